from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hepipe.dataset.tiles import SplitTiles, rgb_from_tensor
from hepipe.errors import StoreError
from hepipe.inference.blend import starts, weights
from hepipe.inference.sweep import sweep
from hepipe.inference.tiles import crop_of, predict_split
from hepipe.models.catalog import catalog, read_entry
from hepipe.stores.provenance import Provenance
from hepipe.stores.tiles import TileStore

CPU = torch.device("cpu")


class Inverted(nn.Module):
    """Knows only a pixel, so that crops cannot matter."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[int] = []

    def players(self):
        return {}

    def optimizer(self, player):
        raise AssertionError

    def rate(self, player, at):
        raise AssertionError

    def averages(self):
        return {}

    def turns(self, batch, at):
        return iter(())

    def stain(self, tiles, *, seeds, to="ihc"):
        self.sides.append(tiles.shape[-1])
        return -tiles


class Noise(Inverted):
    """Gives what its seeds say."""

    def stain(self, tiles, *, seeds, to="ihc"):
        drawn = [torch.rand(3, *tiles.shape[2:], generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        return torch.stack(drawn)


@pytest.mark.parametrize(("side", "crop"), [(16, 16), (16, 8), (17, 8), (64, 48), (100, 32)])
def test_crops_cover_a_side_with_the_overlap(side, crop):
    edges = starts(side, crop)
    assert (edges[0], edges[-1]) == (0, side - crop)
    assert all(b - a <= crop * 0.75 for a, b in pairwise(edges))


def test_a_crop_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="a crop of 9 px does not fit into 8 px"):
        starts(8, 9)


def test_weights_fall_towards_the_edges_but_never_to_nothing():
    values = weights(16)
    assert values.min() > 0
    assert values.max() == 1
    np.testing.assert_array_equal(values, values.T)
    np.testing.assert_array_equal(values, values[::-1])


def test_crops_of_a_pixelwise_method_give_its_whole_tile():
    tiles = torch.rand(2, 3, 20, 20) * 2 - 1
    torch.testing.assert_close(sweep(Inverted(), tiles, ["a", "b"], crop_px=8, seed=0), -tiles)


def test_a_tile_is_the_same_alone_and_in_a_batch():
    tiles = torch.rand(3, 3, 20, 20)
    for crop in (8, 20):
        together = sweep(Noise(), tiles, ["a", "b", "c"], crop_px=crop, seed=0)
        assert torch.equal(together[1:2], sweep(Noise(), tiles[1:2], ["b"], crop_px=crop, seed=0))
        assert not torch.equal(together, sweep(Noise(), tiles, ["a", "b", "c"], crop_px=crop, seed=1))


def test_the_protocol_and_the_model_settle_the_crop(tmp_path):
    path = tmp_path / "m.py"
    head = 'PAIRING = "paired"\nNEEDS = {"*": ()}\nPARTS = {"*": {}}\nSTREAMS = {}\nPRESETS = {"tiny": 0}\n'
    path.write_text(head + 'SIZE = {"*": {"multiple": 16}, "small": {"multiple": 4}}\n')
    multiple = read_entry(path)
    path.write_text(head + 'SIZE = {"*": {"exact": 64}}\n')
    exact = read_entry(path)
    assert crop_of(multiple, "paper", side_px=512, wanted_px=0) == 512
    assert crop_of(multiple, "paper", side_px=500, wanted_px=0) == 496
    assert crop_of(multiple, "paper", side_px=512, wanted_px=256) == 256
    assert crop_of(exact, "paper", side_px=512, wanted_px=0) == 64
    for entry, side, wanted in ((exact, 32, 0), (multiple, 512, 100), (multiple, 128, 256)):
        with pytest.raises(StoreError, match="cannot be predicted by crops"):
            crop_of(entry, "paper", side_px=side, wanted_px=wanted)


def predict(index, path, *, batch_size, crop_px=16, split="test"):
    predict_split(
        Inverted(),
        SplitTiles(index, split),
        path,
        Provenance(artefact="virtual", subject="r"),
        crop_px=crop_px,
        batch_size=batch_size,
        seed=0,
        device=CPU,
    )
    return TileStore(path, "virtual")


def test_virtual_tiles_come_sorted_by_id_whatever_the_batch(make_index, tmp_path):
    index = make_index({"train": 2, "test": 3})
    for batch_size in (1, 2, 8):
        store = predict(index, tmp_path / f"v{batch_size}.zarr", batch_size=batch_size)
        assert store.attributes["tile_ids"] == ["test/000", "test/001", "test/002"]
        assert len(store) == 3
        for row in range(3):
            he = TileStore(index.parent / "tiles/c.zarr").read("he", 2 + row)
            np.testing.assert_array_equal(store.read("virtual", row), 255 - he)


def test_an_empty_split_gives_an_empty_store(make_index, tmp_path):
    store = predict(make_index({"train": 2}), tmp_path / "v.zarr", batch_size=2)
    assert store.attributes["tile_ids"] == []
    assert len(store) == 0


def test_every_model_of_the_zoo_predicts_stored_tiles_of_512_px():
    for entry in catalog().values():
        assert crop_of(entry, "paper", side_px=512, wanted_px=0) > 0


def test_rounding_is_to_the_nearest_level():
    half = torch.tensor([100.4, 100.6, 254.9]).reshape(3, 1, 1) / 127.5 - 1
    assert rgb_from_tensor(half).ravel().tolist() == [100, 101, 255]
