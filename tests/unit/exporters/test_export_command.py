import csv
import json

import pytest
import typer
from small_exports import PLAN, contents
from typer.testing import CliRunner

from hepipe.cli import export
from hepipe.dataset.card import read_card, write_card
from hepipe.dataset.terms import Terms
from hepipe.errors import ConfigError, StoreError
from hepipe.exporters.growing import as_csv
from hepipe.exporters.selection import COLUMNS
from hepipe.stores.tables import INDEX

TILES = {tile_id: split for tiles in PLAN.values() for tile_id, split in tiles}


@pytest.fixture
def run():
    app = typer.Typer()
    app.callback()(lambda: None)
    export.register(app)

    def run(*arguments):
        return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False).output

    return run


@pytest.mark.parametrize("kind", ["ab", "pix2pix", "webdataset", "huggingface", "csv"])
def test_every_kind_takes_its_card_terms_and_fingerprint_along(make_set, tmp_path, run, kind):
    assert "8 tiles of set" in run("export", kind, "--index", make_set(), "--out", tmp_path / "out", "--workers", 2)
    files = contents(tmp_path / "out")
    page = files["README.md" if kind == "huggingface" else "CARD.md"].decode()
    terms = files["LICENSE" if kind == "huggingface" else "TERMS.txt"].decode()
    assert "f" * 64 in page
    assert terms.strip() in page
    assert "names no terms" in terms
    assert files["dataset.json"] == (tmp_path / "set" / "dataset.json").read_bytes()


def test_terms_and_licence_texts_of_the_sets_travel(make_set, tmp_path, run):
    index = make_set()
    path = index.with_name("dataset.json")
    known = Terms(source_set="bci", line="BCI: for research, not for sale", texts={"LICENSE": "You may\nlook."})
    write_card(path, read_card(path).model_copy(update={"terms": (known,)}))
    run("export", "ab", "--index", index, "--out", tmp_path / "out")
    files = contents(tmp_path / "out")
    assert files["TERMS.txt"] == b"BCI: for research, not for sale\n\n--- LICENSE of bci ---\nYou may\nlook.\n"
    assert b"> BCI: for research, not for sale" in files["CARD.md"]
    assert json.loads(files["export.json"])["terms"] == ["BCI: for research, not for sale"]


def test_a_mistake_names_what_was_found_and_what_to_do(make_set, tmp_path, run):
    index = make_set()
    with pytest.raises(ConfigError, match="--split testing: train, val, test expected"):
        run("export", "ab", "--index", index, "--out", tmp_path / "out", "--split", "testing")
    for kind, option in (("csv", ["--as", "stored"]), ("ab", ["--shard-mb", 9]), ("ab", ["--no-masks"])):
        with pytest.raises(ConfigError, match=rf"export {kind}: {option[0]} is for .*; leave it out"):
            run("export", kind, "--index", index, "--out", tmp_path / "out", *option)
    index.with_name("dataset.json").unlink()
    with pytest.raises(StoreError, match="run assemble again"):
        run("export", "ab", "--index", index, "--out", tmp_path / "out")


def test_asking_for_stored_bytes_that_are_not_there_is_answered_aloud(make_set, tmp_path, run):
    said = run("export", "ab", "--index", make_set(), "--out", tmp_path / "out", "--as", "stored")
    assert "16 files are PNG, as no single JPEG in the store makes their tile" in said


def test_the_table_has_a_row_a_tile_and_a_meaning_for_each_column(make_set, tmp_path, run):
    run("export", "csv", "--index", make_set(), "--out", tmp_path / "out")
    with (tmp_path / "out" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "out" / "columns.csv").open(newline="") as file:
        meanings = {row["column"]: row["meaning"] for row in csv.DictReader(file)}
    assert {row["tile_id"]: row["split"] for row in rows} == TILES
    assert list(rows[0]) == list(meanings) == [*COLUMNS, "m_blur_he", "m_ncc_peak", "m_shift_um"]
    assert all(meanings.values())
    assert {row["m_shift_um"] for row in rows} == {""}
    assert {row["m_blur_he"] for row in rows} == {"1.5"}
    assert "source_name" in INDEX.names
    assert "source_name" not in meanings


def test_a_cell_is_never_a_formula():
    text = as_csv(("a", "b"), [{"a": '=HYPERLINK("x")', "b": -1.5}, {"a": "@x", "b": None}]).decode()
    assert text == 'a,b\n"\'=HYPERLINK(""x"")",-1.5\n\'@x,\n'
