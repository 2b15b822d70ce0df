"""BCI and its clean part: runs on either are judged by the same tiles, and what is not fair is told."""

import io
import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from hepipe.cli import dataset, imports, learn, results, tiles
from hepipe.errors import StoreError
from hepipe.models.finished import read_finished_provenance
from hepipe.stores.tables import HISTORY, INDEX, SCORES, read_provenance, read_table, write_table
from hepipe.stores.tiles import TileStore

app = typer.Typer()
for room in (dataset, imports, learn, results, tiles):
    room.register(app)
NO_LIMITS = json.dumps({"limits": {"restained": {}, "consecutive": {}}, "alignment": {"drop": []}})
TRAINING = {
    "n_steps": 2, "batch_size": 2, "crop_px": 32, "threads": 1, "workers": 1,
    "budget": {"rule": "published_epochs", "most_steps": 3},
}  # fmt: skip


def call(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def tissue(seed, vector):
    amount = np.random.default_rng(seed).random((16, 16)).repeat(4, 0).repeat(4, 1) ** 3
    file = io.BytesIO()
    pixels = 255 * 10 ** -(1.2 * amount[..., None] * np.array(vector))
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A small BCI and its clean part: four of six pairs of train, all of test."""
    folder = tmp_path_factory.mktemp("both")
    for split, count in (("train", 6), ("test", 2)):
        for number in range(count):
            for stain, vector in (("HE", (0.65, 0.70, 0.29)), ("IHC", (0.27, 0.57, 0.78))):
                file = folder / "BCI" / stain / split / f"{number:05d}_{split}_{number % 2}{'+' * (number % 2)}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(tissue(number + 10 * (split == "test"), vector))
    kept = [path.name for path in sorted((folder / "BCI/HE").rglob("*.png")) if path.name[:5] not in ("00002", "00003")]
    (folder / "clean.txt").write_text("\n".join(kept))
    for kind, more in (("bci", ()), ("bci-clean", ("--names", folder / "clean.txt"))):
        out = folder / "results" / kind
        call("import", kind, folder / "BCI", "--out", out, "--preset", "bci_paper", "--workers", 1, *more)
        table, verdict = out / "tiles/imported.parquet", out / "verdict/imported.parquet"
        call("grade", "--index", table, "--verdict", verdict, "--spec", NO_LIMITS)
        index, card = out / "index.parquet", out / "dataset.json"
        call("assemble", "--folder", out, "--cases", "imported", "--index", index, "--card", card)
    return folder / "results"


@pytest.fixture(scope="module")
def trained(both):
    """A run on each of the two sets."""
    for name in ("bci", "bci-clean"):
        run = both / "runs" / name
        training = TRAINING if name == "bci" else {**TRAINING, "budget": "equal_steps"}
        spec = {"model": "pyramid_pix2pix", "preset": "tiny", "dataset": name, "training": training}
        call("resolve", "--run", name, "--config", run / "config.json", "--spec", json.dumps(spec))
        files = ("--model", run / "model.safetensors", "--history", run / "history.parquet")
        data = ("--index", both / name / "index.parquet", "--card", both / name / "dataset.json")
        call("train", "--config", run / "config.json", *data, *files)
    return both


def judged(results, name, on, split="test", stitch=None):
    """The score table of a run on a split of a data set."""
    run, index = results / "runs" / name, results / on / "index.parquet"
    place = run / "on" / on / split
    spec = json.dumps({"tile_px": 32, "stitch": stitch or {}, "batch_size": 2})
    given = ("--config", run / "config.json", "--index", index, "--split", split)
    virtual, scores = place / "virtual.zarr", place / "scores.parquet"
    call("predict", *given, "--model", run / "model.safetensors", "--virtual", virtual, "--spec", spec)
    learned = results / name / "index.parquet"
    call("score", *given, "--dataset", on, "--virtual", virtual, "--scores", scores, "--trained", learned)
    return scores


def test_runs_on_bci_and_on_its_clean_part_are_judged_by_the_same_tiles(trained):
    tables = [judged(trained, "bci", "bci"), judged(trained, "bci-clean", "bci"), judged(trained, "bci", "bci-clean")]
    seen = [{row["tile_id"] for row in read_table(table, SCORES)} - {None} for table in tables]
    assert seen[0] == seen[1] == seen[2] == {"test/00000_test_0", "test/00001_test_1+"}
    hashes = [
        {row["tile_id"]: row["he_sha256"] for row in read_table(trained / name / "index.parquet", INDEX)}
        for name in ("bci", "bci-clean")
    ]
    assert all(hashes[0][tile] == hashes[1][tile] for tile in seen[0])
    assert len(hashes[1]) == 6 < len(hashes[0])
    for table in tables:
        assert read_provenance(table).told["shared"] == {"n_tiles": 2, "trained": {}, "chosen": {}}


def test_tiles_of_the_clean_part_that_the_whole_was_trained_on_are_counted(trained):
    told = read_provenance(judged(trained, "bci", "bci-clean", "train")).told
    assert told["shared"] == {"n_tiles": 4, "trained": {"pixels": 4}, "chosen": {}}


def test_budget_code_and_data_set_stand_with_model_and_history(trained):
    run = trained / "runs/bci"
    model, history = read_finished_provenance(run / "model.safetensors"), read_provenance(run / "history.parquet")
    told = model.told["budget"]
    assert told["published"] == {"epochs": 200, "batch_size": 2, "steps": 389_600}
    assert (told["rule"], told["n_steps"], told["n_tiles"], told["epochs"]) == ("published_epochs", 3, 6, 1.0)
    assert told["capped"]
    assert model.told["trained_on"] == {"mpp": 0.46, "markers": ["HER2"]}
    assert model.told["code"].startswith("hepipe 0.")
    assert len(model.inputs["dataset"]) == 64
    assert (history.told, history.inputs["dataset"]) == (model.told, model.inputs["dataset"])
    assert max(row["step"] for row in read_table(run / "history.parquet", HISTORY)) == 3
    other = read_finished_provenance(trained / "runs/bci-clean/model.safetensors").told["budget"]
    assert (other["rule"], other["n_steps"], other["capped"]) == ("equal_steps", 2, False)


def test_stitching_stands_with_virtual_tiles_and_with_their_scores(trained):
    stitch = {"overlap_frac": 0.0, "blend": "mean"}
    scores = judged(trained, "bci", "bci", stitch=stitch)
    spec = TileStore(scores.with_name("virtual.zarr"), "virtual").provenance.spec
    assert (spec["stitch"], spec["crop_px"], spec["mpp"]) == (stitch, 32, 0.46)
    assert read_provenance(scores).told["prediction"] == spec


def test_a_set_of_another_marker_is_refused_by_its_store_and_both_named(trained, tmp_path):
    rows = [{**row, "marker": "ER"} for row in read_table(trained / "bci/index.parquet", INDEX)]
    index = trained / "bci" / "er.parquet"
    write_table(rows, index, INDEX, read_provenance(trained / "bci/index.parquet"))
    run = trained / "runs/bci-clean"
    given = ("--config", run / "config.json", "--index", index, "--split", "test")
    with pytest.raises(StoreError, match="of ER, but run bci-clean has learnt HER2 on bci-clean"):
        call("predict", *given, "--model", run / "model.safetensors", "--virtual", tmp_path / "v.zarr")
