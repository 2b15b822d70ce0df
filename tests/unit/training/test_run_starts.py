"""What a run says of its start: in the log, and with its finished model."""

import pytest

from hepipe.models.finished import read_finished_provenance
from hepipe.models.resolved import resolve_run
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.training.train import train_run
from hepipe.weights.start import start_files

TRAINING = {"n_steps": 1, "batch_size": 2, "crop_px": 32, "workers": 0, "threads": 1}
SMALL = {"backbone": "resnet18", "width": 4, "judge_width": 4, "judge_layers": 1, "pretrained": False}


@pytest.fixture
def trained(make_index, tmp_path, monkeypatch):
    """Trains a run of CSSP2P whose optional encoder is not there; gives what its model tells."""
    monkeypatch.setenv("HEPIPE_WEIGHTS", str(tmp_path / "none"))
    index = make_index({"train": 2, "val": 1}, tile_px=32)

    def train(name, **values):
        training = TrainingSpec.model_validate(TRAINING)
        spec = RunSpec(model="cssp2p", dataset="set", options=SMALL, training=training, **values)
        folder = tmp_path / name
        train_run(
            resolve_run(name, spec),
            index,
            fingerprint="f",
            part_folders={},
            model=folder / "model.safetensors",
            history=folder / "history.parquet",
            init_files=start_files(spec.init_from, runs=tmp_path),
        )
        return read_finished_provenance(folder / "model.safetensors")

    return train


def test_an_encoder_that_is_not_there_is_said_aloud_and_stays_with_the_model(trained, capfd):
    told = trained("r").told
    note = "encoder is trained from scratch: no weights of role resnet50; see `hepipe weights status`"
    assert told["notes"] == [note]
    assert f"r: {note}" in capfd.readouterr().err


def test_a_run_that_starts_from_another_of_the_config_names_it_with_its_hash(trained, capfd):
    trained("a")
    made = trained("b", init_from="run:a")
    assert made.told["notes"] == ["starts from run a (cssp2p paper)"]
    assert made.inputs["init:*"] == made.told["init_from"]["*"]["sha256"]
    assert made.spec["init_from"]["*"]["source"] == "a"
    assert "b: starts from run a" in capfd.readouterr().err
