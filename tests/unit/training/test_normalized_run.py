import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import learn
from hepipe.dataset.normalize import Normalization
from hepipe.dataset.tiles import SplitTiles
from hepipe.errors import StoreError
from hepipe.models.finished import read_finished_provenance
from hepipe.models.resolved import resolve_run, write_resolved
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.stores.tiles import TileStore
from hepipe.training.train import train_run


def trained(index, folder, **training):
    """A model that gives back what it sees, with its record."""
    spec = TrainingSpec.model_validate({"n_steps": 1, "batch_size": 2, "crop_px": 16, "workers": 0, **training})
    made = resolve_run("r", RunSpec(model="identity", preset="tiny", dataset="set", training=spec))
    write_resolved(folder / "config.json", made)
    train_run(
        made,
        index,
        fingerprint="f",
        part_folders={},
        model=folder / "model.safetensors",
        history=folder / "history.parquet",
    )
    return folder


def predict(index, folder, config=None):
    app = typer.Typer()
    learn.register(app)
    paths = {"config": config or folder / "config.json", "model": folder / "model.safetensors", "index": index}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    words += ["--split", "test", "--virtual", str(folder / "virtual.zarr")]
    CliRunner().invoke(app, ["predict", *words], catch_exceptions=False)
    return TileStore(folder / "virtual.zarr", "virtual")


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_a_model_stains_in_the_colours_that_it_was_trained_in(make_index, tmp_path, method):
    index = make_index({"train": 4, "val": 2, "test": 2}, tile_px=48)
    folder = trained(index, tmp_path / "r", normalize=method)
    told = read_finished_provenance(folder / "model.safetensors").told
    virtual = predict(index, folder)
    assert virtual.provenance.told["normalization"] == told["normalization"]
    target = Normalization.model_validate(told["normalization"])
    raw, seen = SplitTiles(index, "test"), SplitTiles(index, "test", normalization=target)
    for place in range(2):
        np.testing.assert_array_equal(virtual.read("virtual", place), seen.rgb("he", place))
        assert (virtual.read("virtual", place) != raw.rgb("he", place)).any()


def test_a_run_as_stored_says_nothing_of_colours(make_index, tmp_path):
    index = make_index({"train": 4, "val": 2, "test": 2}, tile_px=48)
    folder = trained(index, tmp_path / "r")
    assert "normalization" not in read_finished_provenance(folder / "model.safetensors").told
    np.testing.assert_array_equal(predict(index, folder).read("virtual", 0), SplitTiles(index, "test").rgb("he", 0))


def test_a_model_is_not_used_with_the_record_of_a_run_of_other_colours(make_index, tmp_path):
    index = make_index({"train": 4, "val": 2, "test": 2}, tile_px=48)
    one, other = trained(index, tmp_path / "r", normalize="reinhard"), trained(index, tmp_path / "s")
    with pytest.raises(StoreError, match=r"model\.safetensors: trained with he normalised by reinhard"):
        predict(index, one, config=other / "config.json")
