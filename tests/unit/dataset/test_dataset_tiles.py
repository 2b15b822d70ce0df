import dataclasses

import numpy as np
import pytest
import torch

from hepipe.dataset.tiles import (
    Sampler,
    SplitTiles,
    View,
    batches,
    rgb_from_tensor,
    tensor_from_rgb,
    tile_seed,
    viewed,
    viewed_mask,
)
from hepipe.errors import StoreError


def sampler(index, **changes):
    values = {"batch_size": 3, "crop_px": 8, "flips": True, "seed": 4}
    tiles = changes.pop("tiles", None) or SplitTiles(index, "train")
    return Sampler(tiles, **{**values, **changes})


def same(one, other):
    return (
        one.tile_ids == other.tile_ids
        and torch.equal(one.he, other.he)
        and torch.equal(one.ihc, other.ihc)
        and all(torch.equal(one[name], other[name]) for name in one.extras)
    )


def test_every_8_bit_level_survives_the_way_to_a_tensor_and_back():
    rgb = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    values = tensor_from_rgb(rgb)
    assert (float(values.min()), float(values.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(rgb_from_tensor(values), rgb)


def test_values_beyond_the_range_are_clipped():
    assert rgb_from_tensor(torch.tensor([-3.0, 0.0, 7.0]).reshape(3, 1, 1)).ravel().tolist() == [0, 128, 255]


def test_a_coarser_view_is_the_mean_over_areas():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2, :2] = [[[10, 10, 10], [20, 20, 20]], [[30, 30, 30], [40, 40, 40]]]
    np.testing.assert_array_equal(viewed(rgb, 2)[..., 0], [[25, 0], [0, 0]])
    mask = np.zeros((4, 4), bool)
    mask[0, :3] = True
    mask[1, 0] = True
    np.testing.assert_array_equal(viewed_mask(mask, 2), [[True, False], [False, False]])


def test_both_stains_and_the_mask_are_cropped_and_turned_alike(make_index):
    tiles = sampler(make_index({"train": 7}), needs=("dab_mask",))
    for step in range(6):
        batch = tiles.batch(step)
        torch.testing.assert_close(batch.ihc, -batch.he)
        assert batch["dab_mask"].shape == (3, 1, 8, 8)
        for he, mask in zip(batch.he, batch["dab_mask"], strict=True):
            red = he[0]
            assert red[mask[0] == 1].min() > red[mask[0] == 0].max()


def test_flips_and_turns_give_all_eight_symmetries():
    tile = np.arange(9, dtype=np.uint8).reshape(3, 3)
    seen = {View(0, 0, 3, turns, mirrored).of(tile).tobytes() for turns in range(4) for mirrored in (False, True)}
    assert len(seen) == 8


def test_without_flips_a_whole_tile_comes_as_stored(make_index):
    index = make_index({"train": 2})
    tiles = SplitTiles(index, "train")
    batch = sampler(index, tiles=tiles, crop_px=16, batch_size=2, flips=False).batch(0)
    for tile_id, he in zip(batch.tile_ids, batch.he, strict=True):
        place = [row.tile_id for row in tiles.rows].index(tile_id)
        np.testing.assert_array_equal(rgb_from_tensor(he), tiles.rgb("he", place))


def test_an_epoch_sees_every_tile_once_and_the_next_in_another_order(make_index):
    tiles = sampler(make_index({"train": 6, "val": 3}), batch_size=2)
    seen = [tile for step in range(6) for tile in tiles.batch(step).tile_ids]
    assert tiles.steps_per_epoch == 3
    assert sorted(seen[:6]) == sorted(seen[6:]) == [f"train/{i:03d}" for i in range(6)]
    assert seen[:6] != seen[6:]


def test_batches_do_not_depend_on_threads_or_on_where_one_starts(make_index):
    index = make_index({"train": 7})
    plain = [sampler(index, needs=("dab_mask",)).batch(step) for step in range(9)]
    for workers, start in ((0, 0), (1, 4), (3, 2)):
        got = list(batches(sampler(index, needs=("dab_mask",)), range(start, 9), workers=workers))
        assert len(got) == 9 - start
        assert all(map(same, got, plain[start:]))


def test_a_cache_changes_nothing(make_index):
    index = make_index({"train": 5})
    cached = SplitTiles(index, "train", cache_mb=1)
    for step in range(6):
        assert same(sampler(index).batch(step), sampler(index, tiles=cached).batch(step))


def test_every_draw_has_its_own_crop_and_symmetry(make_index):
    tiles = sampler(make_index({"train": 1}), batch_size=1)
    seen = {tiles.batch(step).he.numpy().tobytes() for step in range(60)}
    # 81 corners times 8 symmetries: sixty draws of 648 views hold 2.7 repeats on average.
    assert len(seen) > 48


def test_another_seed_gives_other_crops(make_index):
    index = make_index({"train": 7})
    assert not same(sampler(index, seed=1).batch(0), sampler(index, seed=2).batch(0))


def test_several_processes_share_the_batch_of_one(make_index):
    whole = sampler(make_index({"train": 7}), batch_size=5)
    shares = [dataclasses.replace(whole, rank=rank, n_ranks=2).batch(3) for rank in range(2)]
    assert [len(share) for share in shares] == [3, 2]
    one = whole.batch(3)
    for rank, share in enumerate(shares):
        assert share.tile_ids == one.tile_ids[rank::2]
        assert torch.equal(share.he, one.he[rank::2])


def test_with_replacement_an_epoch_repeats_tiles_and_leaves_others_out(make_index):
    index = make_index({"train": 7})
    once, drawn = sampler(index), sampler(index, replacement=True)
    epochs = 40

    def tiles_of_epoch(of, epoch):
        steps = range(epoch * of.steps_per_epoch, (epoch + 1) * of.steps_per_epoch)
        return [tile for step in steps for tile in of.batch(step).tile_ids][: len(of.tiles)]

    n = len(once.tiles)
    assert len(set(tiles_of_epoch(once, 0))) == n
    found = [len(set(tiles_of_epoch(drawn, epoch))) / n for epoch in range(epochs)]
    assert abs(sum(found) / epochs - (1 - (1 - 1 / n) ** n)) < 0.1
    assert drawn.batch(5).tile_ids == sampler(index, replacement=True).batch(5).tile_ids


def test_unpaired_ihc_is_drawn_independently(make_index):
    index = make_index({"train": 9})
    paired, unpaired = sampler(index), sampler(index, unpaired=True)
    for step in range(4):
        assert torch.equal(paired.batch(step).he, unpaired.batch(step).he)
        assert not torch.allclose(unpaired.batch(step).ihc, -unpaired.batch(step).he)
        loose = sampler(index, needs=("loose_ihc",)).batch(step)
        torch.testing.assert_close(loose.ihc, -loose.he)
        assert torch.equal(loose["loose_ihc"], unpaired.batch(step).ihc)


def test_scores_come_as_ranks(make_index):
    assert sampler(make_index({"train": 3}, score="3+"), needs=("score",)).batch(0)["score"].tolist() == [3, 3, 3]


def test_a_view_at_twice_the_pixel_size_has_half_the_side(make_index):
    tiles = SplitTiles(make_index({"train": 2}), "train", mpp=1.0)
    assert (tiles.side_px, tiles.mpp) == (8, 1.0)
    assert tiles.rgb("he", 0).shape == (8, 8, 3)
    assert tiles.mask("dab_mask", 0).shape == (8, 8)


@pytest.mark.parametrize(
    ("changes", "made", "text"),
    [
        ({}, {"counts": {"val": 2}}, "split train holds no tile"),
        ({"crop_px": 17}, {}, r"crop_px is 17, but tiles are 16 px at 0.5 µm/px"),
        ({"batch_size": 1, "n_ranks": 2}, {}, "a batch of 1 cannot be shared by 2 processes"),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused_at_once(make_index, changes, made, text):
    with pytest.raises(StoreError, match=text):
        sampler(make_index(**{"counts": {"train": 2}, **made}), **changes)


def test_missing_masks_and_scores_are_named(make_index):
    index = make_index({"train": 2}, masks=False, score=None)
    with pytest.raises(StoreError, match="holds no dab_mask"):
        sampler(index, needs=("dab_mask",)).batch(0)
    with pytest.raises(StoreError, match=r"tile train/00[01]: no HER2 score"):
        sampler(index, needs=("score",)).batch(0)


def test_a_view_finer_than_stored_is_refused(make_index):
    with pytest.raises(StoreError, match=r"stored at 0.5 µm/px; a view at 0.25 would be finer"):
        SplitTiles(make_index({"train": 1}), "train", mpp=0.25)


def test_pieces_of_a_batch_put_together_are_the_batch(make_index):
    batch = sampler(make_index({"train": 7}), batch_size=5, needs=("dab_mask",)).batch(0)
    pieces = batch.pieces(2)
    assert [len(piece) for piece in pieces] == [2, 3]
    assert torch.equal(torch.cat([piece["dab_mask"] for piece in pieces]), batch["dab_mask"])
    assert sum((piece.tile_ids for piece in pieces), ()) == batch.tile_ids


def test_a_tile_keeps_its_seed():
    assert tile_seed("c/1-2") == tile_seed("c/1-2")
    assert tile_seed("c/1-2") != tile_seed("c/1-3")
    assert 0 <= tile_seed("c/1-2") < 2**31
