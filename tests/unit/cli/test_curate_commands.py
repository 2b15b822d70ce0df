"""`hepipe curate` and `hepipe curate merge` as a person types them."""

import hashlib

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import curate
from hepipe.dataset.decisions import Decision, read_decisions, write_decisions
from hepipe.errors import ConfigError
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import TILES, VERDICTS, write_table
from hepipe.stores.tiles import TileWriter


def run(*arguments):
    app = typer.Typer()
    curate.register(app)
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["curate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path):
    """One case of five pairs."""
    folder, made = tmp_path / "set", Provenance(artefact="tiles", subject="a")
    rows = []
    with TileWriter(folder / "tiles/a.zarr", made, mpp=0.5, tile_px=16, arrays={"he": 3, "ihc": 3}) as store:
        for number in range(5):
            store.add(**{stain: np.full((16, 16, 3), 10 * number, np.uint8) for stain in ("he", "ihc")})
            empty = {field.name: None if field.nullable else "" for field in TILES}
            digest = hashlib.sha256(bytes([number])).hexdigest()
            own = {"tile_id": f"a/{number}", "row_in_store": number, "mpp": 0.5, "tissue_frac": 1.0, "measurements": {}}
            rows.append(empty | own | {"he_sha256": digest, "ihc_sha256": digest, "section": "restained"})
        store.finish()
    verdict = {"keep": True, "reason": "", "flags": [], "alignment": "aligned"}
    write_table(rows, folder / "tiles/a.parquet", TILES, made)
    write_table([{"tile_id": row["tile_id"], **verdict} for row in rows], folder / "verdict/a.parquet", VERDICTS, made)
    return folder


def test_the_page_is_written_beside_the_data_set_or_where_one_says(folder, tmp_path):
    result = run("--folder", folder)
    assert result.exit_code == 0
    assert "5 pairs (5 kept by the filters) on 1 sheets" in result.output
    assert (folder / "curation/index.html").is_file()
    assert len(list((folder / "curation/pictures-512").iterdir())) == 5
    run("--folder", folder, "--out", tmp_path / "out", "--view-px", 0, "--reasons", "fold, pen", "--cases", "a,")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "sheets"]
    assert '"reasons":["fold","pen"]' in (tmp_path / "out/index.html").read_text(encoding="utf-8")


def test_mistakes_are_told_before_anything_is_written(folder, tmp_path):
    with pytest.raises(ConfigError, match="--folder is missing"):
        run()
    for wrong, said in ((("--reader", "../x"), "at most 32 letters"), (("--cases", "z"), "no tiles of z; there are a")):
        with pytest.raises(ConfigError, match=said):
            run("--folder", folder, "--out", tmp_path / "out", *wrong)
    assert not (tmp_path / "out").exists()


def test_two_readers_are_merged_with_their_table_and_what_they_differ_on(tmp_path):
    said = {"ann": "kkdkd" * 8, "bob": "kddkd" * 8}
    for name, words in said.items():
        rows = [
            Decision(f"{number:032x}", f"c{number % 8}/{number}", "keep" if word == "k" else "drop", "", name)
            for number, word in enumerate(words)
        ]
        write_decisions(tmp_path / f"{name}.csv", rows)
    result = run("merge", tmp_path / "ann.csv", tmp_path / "bob.csv", "--out", tmp_path / "both.csv")
    assert result.exit_code == 0
    # By hand: 16 keeps and 16 drops alike, 8 unlike; chance 0.6 * 0.4 + 0.4 * 0.6 = 0.48, (0.8 - 0.48) / 0.52.
    assert "Cohen's kappa 0.615, 95 % interval" in result.output
    assert "with the 8 cases as the unit" in result.output
    merged = read_decisions(tmp_path / "both.csv").decisions.values()
    assert sum(one.decision == "drop" for one in merged) == 24
    assert len((tmp_path / "both-disagreements.csv").read_text().splitlines()) == 1 + 8
