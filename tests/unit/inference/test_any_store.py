"""A run shown tiles of other stores than its own."""

import numpy as np
import pytest
import torch
from test_sweep import Inverted

from hepipe.errors import StoreError
from hepipe.inference.blend import starts, weights
from hepipe.inference.sweep import sweep
from hepipe.inference.tiles import tiles_as_trained
from hepipe.models.resolved import resolve_run
from hepipe.specs.training import RunSpec, StitchSpec, TrainingSpec
from hepipe.stores.tables import INDEX, read_provenance, read_table, write_table

TOLD = {"trained_on": {"mpp": 0.5, "markers": ["HER2"]}}


def run(**training):
    spec = TrainingSpec.model_validate({"crop_px": 8, **training})
    return resolve_run("r", RunSpec(model="pixel_map", preset="tiny", dataset="own", training=spec))


def seen(index, told=TOLD, **training):
    return tiles_as_trained(index, "test", run(**training), told, mpp_slack=0.05)


def test_a_finer_store_is_shown_at_the_resolution_of_the_training(make_index):
    tiles = seen(make_index({"test": 2}, tile_px=32, mpp=0.25))
    assert (tiles.mpp, tiles.side_px) == (0.5, 16)


def test_a_store_that_is_as_fine_by_another_number_is_shown_as_stored(make_index):
    for mpp in (0.46, 0.4661, 0.524):
        tiles = seen(make_index({"test": 1}, mpp=mpp, folder=f"at-{mpp}"), {"trained_on": {"mpp": mpp * 1.02}})
        assert (tiles.mpp, tiles.side_px) == (mpp, 16)
    tiles = seen(make_index({"test": 1}, mpp=0.46), {"trained_on": {"mpp": 0.4661, "markers": ["HER2"]}})
    assert (tiles.mpp, tiles.side_px) == (0.46, 16)


def test_a_coarser_store_is_refused_and_both_sets_named(make_index):
    with pytest.raises(
        StoreError, match=r"test tiles of far are stored at 1 µm/px, but run r was trained on own at 0\.5"
    ):
        seen(make_index({"test": 1}, mpp=1.0, folder="far"))


def test_a_store_of_another_marker_is_refused_and_both_named(make_index):
    index = make_index({"test": 1}, folder="er")
    rows = [{**row, "marker": "ER"} for row in read_table(index, INDEX)]
    write_table(rows, index, INDEX, read_provenance(index))
    with pytest.raises(StoreError, match=r"test tiles of er are of ER, but run r has learnt HER2 on own"):
        seen(index)


def test_a_model_that_does_not_say_what_it_saw_goes_by_its_protocol(make_index):
    index = make_index({"test": 1}, tile_px=32, mpp=0.25)
    assert seen(index, {}).mpp == 0.25
    assert seen(index, {}, mpp=0.5).mpp == 0.5


def test_an_empty_split_is_no_mistake(make_index):
    assert len(seen(make_index({"train": 1}, mpp=1.0))) == 0


def test_crops_without_overlap_lie_side_by_side():
    assert starts(1024, 512, overlap_frac=0.0) == [0, 512]
    assert starts(1024, 512) == [0, 256, 512]
    np.testing.assert_array_equal(weights(8, stitch=StitchSpec(blend="mean")), np.ones((8, 8)))


class Numbered(Inverted):
    """Each crop is another grey, in the order that they come."""

    def stain(self, tiles, *, seeds, to="ihc"):
        self.sides.append(tiles.shape[-1])
        return torch.full_like(tiles, float(len(self.sides)))


def test_side_by_side_crops_are_put_together_as_they_are_and_overlapping_ones_are_mixed():
    tiles = torch.zeros(1, 3, 16, 16)
    beside = sweep(Numbered(), tiles, ["a"], crop_px=8, seed=0, stitch=StitchSpec(overlap_frac=0.0))
    assert beside[0, 0].unique().tolist() == [1.0, 2.0, 3.0, 4.0]
    mixed = sweep(Numbered(), tiles, ["a"], crop_px=8, seed=0, stitch=StitchSpec(overlap_frac=0.5, blend="mean"))
    assert mixed[0, 0, 0, 6].item() == pytest.approx(1.5)  # of the first two crops
