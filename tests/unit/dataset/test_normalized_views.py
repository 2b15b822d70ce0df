"""Views in the colours of the training split: the same for crops, caches and workers, and never from val or test."""

import pickle

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hepipe.dataset.loading import TileBatches, TilePairs
from hepipe.dataset.normalize import Normalization, find_normalization, told_normalization
from hepipe.dataset.tiles import Crop, Sampler, SplitTiles, tensor_from_rgb
from hepipe.errors import ConfigError, StoreError
from hepipe.specs.training import NormalizeSpec, TrainingSpec
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, stain_matrix
from hepipe.stains.normalize import colour_statistics, median_statistics, normalized

SIDE = 64
PLAN = {
    "a": [("a", "p1", "train")] * 2,
    "b": [("b", "p2", "train")] * 2,
    "c": [("c", "p3", "val")] * 2,
    "imported": [(None, None, "train"), (None, None, "test")],
}
AMOUNTS = {"a": (0.9, 0.5), "b": (0.7, 0.6), "c": (0.3, 0.9), "imported": (0.5, 0.2)}


def stained(random, store, number, stain):
    """Each store in strengths of its own."""
    amounts = random.uniform(0.1, 1, (SIDE, SIDE, 2)) * AMOUNTS[store]
    od = amounts @ stain_matrix(HAEMATOXYLIN, EOSIN if stain == "he" else DAB)[:2]
    return np.rint(255 * 10**-od).astype(np.uint8)


@pytest.fixture
def index(make_cohort):
    return make_cohort(plan=PLAN, paint=stained)[0]


def normalization(index, split="train", **methods):
    tiles = SplitTiles(index, split)
    return find_normalization(NormalizeSpec(**(methods or {"he": "reinhard"})), tiles.cases, tiles.case_pixels)


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_the_target_is_the_median_of_the_training_cases_and_of_no_other(make_cohort, method):
    index, tiles = make_cohort(plan=PLAN, paint=stained)
    found = normalization(index, he=method)
    whole = {
        case: np.concatenate([one["he"].reshape(-1, 3) for tile_id, one in tiles.items() if tile_id.startswith(case)])
        for case in "ab"
    }
    unknown = tiles["imported/0"]["he"].reshape(-1, 3)
    own = [colour_statistics(pixels, method, "he") for pixels in (*whole.values(), unknown)]
    assert found.he == median_statistics(own)
    assert (found.ihc, found.n_cases, found.left_out) == (None, 3, ())

    # Other val and test tiles change nothing.
    def paint(random, store, number, stain):
        drawn = stained(random, store, number, stain)
        return drawn if store != "c" else np.rint(drawn * 0.1).astype(np.uint8)

    assert normalization(make_cohort(plan=PLAN, paint=paint, folder="other")[0], he=method) == found


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_a_case_is_brought_to_the_target_by_its_own_colours(index, method):
    target = normalization(index, he=method)
    raw, seen = SplitTiles(index, "val"), SplitTiles(index, "val", normalization=target)
    own = colour_statistics(raw.case_pixels("he", "c"), method, "he")
    for place in range(2):
        expected = normalized(raw.rgb("he", place), source=own, target=target.he)
        np.testing.assert_array_equal(seen.rgb("he", place), expected)
        np.testing.assert_array_equal(seen.rgb("ihc", place), raw.rgb("ihc", place))
        np.testing.assert_array_equal(seen.mask("dab_mask", place), raw.mask("dab_mask", place))


def test_a_tile_of_no_known_case_is_brought_by_its_own_colours(index):
    target = normalization(index)
    raw, seen = SplitTiles(index, "test"), SplitTiles(index, "test", normalization=target)
    tile = raw.rgb("he", 0)
    expected = normalized(tile, source=colour_statistics(tile.reshape(-1, 3), "reinhard", "he"), target=target.he)
    np.testing.assert_array_equal(seen.rgb("he", 0), expected)
    crop = Crop(8, 16, 24)
    np.testing.assert_array_equal(seen.rgb("he", 0, crop), crop.of(expected))


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("mpp", [None, 1.0])
def test_crops_and_caches_see_the_same_pixels_as_whole_tiles(index, split, mpp):
    target = normalization(index, he="macenko", ihc="reinhard")
    bare = SplitTiles(index, split, mpp=mpp, normalization=target)
    cached = SplitTiles(index, split, mpp=mpp, cache_mb=1, normalization=target)
    crop = Crop(3, 5, 20)
    for name in ("he", "ihc"):
        whole = cached.rgb(name, 0)
        np.testing.assert_array_equal(bare.rgb(name, 0, crop), crop.of(whole))
        np.testing.assert_array_equal(cached.rgb(name, 0, crop), crop.of(whole))


def test_batches_pairs_and_other_processes_see_the_normalised_view(index):
    target = normalization(index)
    tiles = SplitTiles(index, "val", normalization=target)
    sent = pickle.loads(pickle.dumps(tiles))
    np.testing.assert_array_equal(sent.rgb("he", 1), tiles.rgb("he", 1))
    shown = {row.tile_id: tensor_from_rgb(tiles.rgb("he", place)) for place, row in enumerate(tiles.rows)}
    item = TilePairs(tiles)[1]
    torch.testing.assert_close(item["he"], shown[item["tile_id"]], atol=0, rtol=0)
    batch = Sampler(tiles, batch_size=2, crop_px=SIDE, flips=False, seed=0).batch(0)
    for tile_id, he in zip(batch.tile_ids, batch.he, strict=True):
        torch.testing.assert_close(he, shown[tile_id], atol=0, rtol=0)


def test_a_loader_is_not_gone_on_with_in_other_colours(index):
    samplers = [
        Sampler(SplitTiles(index, "train", normalization=one), batch_size=1, crop_px=8, flips=True, seed=0)
        for one in (None, normalization(index))
    ]
    raw, seen = (TileBatches(sampler, stop=4) for sampler in samplers)
    with pytest.raises(ConfigError, match="the state has another tiles"):
        seen.load_state_dict(raw.state_dict(done=1))


def test_nothing_is_normalised_unless_asked_for(index):
    tiles = SplitTiles(index, "train")
    assert find_normalization(TrainingSpec().normalize, tiles.cases, tiles.case_pixels) is None


def test_one_word_means_the_he():
    assert TrainingSpec.model_validate({"normalize": "macenko"}).normalize == NormalizeSpec(he="macenko")
    assert TrainingSpec.model_validate({"normalize": {"ihc": "reinhard"}}).normalize == NormalizeSpec(ihc="reinhard")
    with pytest.raises(ValidationError, match="reinhard"):
        TrainingSpec.model_validate({"normalize": "vahadane"})


def test_a_split_of_glass_has_no_colours(make_cohort):
    index, _ = make_cohort(plan=PLAN, paint=lambda *_: np.full((SIDE, SIDE, 3), 243, np.uint8))
    with pytest.raises(StoreError, match=r"training\.normalize\.he: no case of the training split has enough tissue"):
        normalization(index)


def test_a_case_without_tissue_is_left_out_of_the_target_and_left_as_it_is(make_cohort):
    def paint(random, store, number, stain):
        return np.full((SIDE, SIDE, 3), 243, np.uint8) if store == "b" else stained(random, store, number, stain)

    index, tiles = make_cohort(plan=PLAN, paint=paint)
    found = normalization(index)
    assert found.left_out == ("he b",)
    seen = SplitTiles(index, "train", normalization=found)
    place = next(place for place, row in enumerate(seen.rows) if row.case_id == "b")
    np.testing.assert_array_equal(seen.rgb("he", place), tiles[seen.rows[place].tile_id]["he"])


def test_a_model_says_what_its_views_were_brought_to(index):
    made = normalization(index, he="macenko")
    told = {"normalization": made.model_dump(mode="json")}
    assert told_normalization(told, NormalizeSpec(he="macenko"), what="m") == made
    assert told_normalization({}, NormalizeSpec(), what="m") is None
    with pytest.raises(StoreError, match="m: trained with he normalised by macenko, its run's record says none"):
        told_normalization(told, NormalizeSpec(), what="m")
    with pytest.raises(StoreError, match="m: trained with he normalised by none, its run's record says reinhard"):
        told_normalization({}, NormalizeSpec(he="reinhard"), what="m")
    with pytest.raises(StoreError, match="of another version"):
        told_normalization({"normalization": {"he": {"method": "x"}}}, NormalizeSpec(), what="m")
    assert Normalization.model_validate_json(made.model_dump_json()) == made
