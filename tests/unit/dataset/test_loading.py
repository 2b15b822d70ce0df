"""Batches and pairs for trainings of one's own; `make_index` gives tiles whose IHC is the H&E in inverted colours."""

import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hepipe.dataset.loading import TileBatches, TilePairs
from hepipe.dataset.tiles import Crop, Sampler, SplitTiles, rgb_from_tensor, viewed
from hepipe.errors import ConfigError

RANK = """
import sys
import torch
import torch.distributed as dist
from pathlib import Path
from hepipe.dataset.loading import TileBatches
from hepipe.dataset.tiles import Sampler, SplitTiles

rank, index, meeting, out = int(sys.argv[1]), *map(Path, sys.argv[2:])
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
sampler = Sampler(SplitTiles(index, "train"), batch_size=4, crop_px=8, flips=True, seed=4, rank=rank, n_ranks=2)
for batch in TileBatches(sampler, stop=5):
    shares = [torch.empty_like(batch.he) for _ in range(2)]
    dist.all_gather(shares, batch.he)
    whole = torch.stack(shares, dim=1).flatten(0, 1)
if rank == 0:
    torch.save(whole, out)
dist.destroy_process_group()
"""


def sampler(index, **changes):
    values = {"batch_size": 3, "crop_px": 8, "flips": True, "seed": 4, "needs": ("dab_mask",)}
    tiles = changes.pop("tiles", None) or SplitTiles(index, "train")
    return Sampler(tiles, **{**values, **changes})


def pixels(batches):
    return [(b.tile_ids, b.he.numpy().tobytes(), b.ihc.numpy().tobytes(), b["dab_mask"].sum().item()) for b in batches]


def expected(index, steps):
    return pixels(sampler(index).batch(step) for step in steps)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_any_number_of_threads_gives_the_batches_of_the_steps_in_order(make_index, threads):
    index = make_index({"train": 7})
    given = TileBatches(sampler(index), stop=6, threads=threads)
    assert pixels(given) == expected(index, range(6))
    assert len(given) == 6


def test_a_loader_without_workers_gives_whole_batches_as_they_are(make_index):
    index = make_index({"train": 7})
    loader = DataLoader(TileBatches(sampler(index), stop=4), batch_size=None)
    assert pixels(loader) == expected(index, range(4))


@pytest.mark.parametrize(("workers", "context"), [(2, "fork"), (1, "spawn")])
def test_worker_processes_share_out_the_steps_and_none_comes_twice(make_index, workers, context):
    index = make_index({"train": 7})
    given = TileBatches(sampler(index), start=2, stop=9, threads=1)
    loader = DataLoader(given, batch_size=None, num_workers=workers, multiprocessing_context=context)
    assert pixels(loader) == expected(index, range(2, 9))


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_together_see_the_batch_of_one(make_index, n_ranks):
    index = make_index({"train": 7})
    ranks = [
        TileBatches(sampler(index, batch_size=6, rank=rank, n_ranks=n_ranks), stop=4, threads=rank)
        for rank in range(n_ranks)
    ]
    for step, shares in enumerate(zip(*ranks, strict=True)):
        one = sampler(index, batch_size=6).batch(step)
        assert tuple(itertools.chain(*zip(*(share.tile_ids for share in shares), strict=True))) == one.tile_ids
        assert torch.equal(torch.stack([share.he for share in shares], dim=1).flatten(0, 1), one.he)


@pytest.mark.long
def test_processes_that_train_together_see_the_batch_of_one(make_index, tmp_path):
    index = make_index({"train": 7})
    words = [str(index), str(tmp_path / "meeting"), str(tmp_path / "whole.pt")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    started = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), *words], env=environment) for rank in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    assert torch.equal(whole, sampler(index, batch_size=4, needs=()).batch(4).he)


def test_a_training_goes_on_in_the_middle_of_an_epoch_with_other_threads_and_ranks(make_index):
    index = make_index({"train": 7})
    first = TileBatches(sampler(index, batch_size=4), stop=20, threads=2)
    taken = list(itertools.islice(first, 5))
    assert len(taken) == 5
    state = first.state_dict()
    assert state["step"] == 5
    for rank in range(2):
        again = TileBatches(sampler(index, batch_size=4, rank=rank, n_ranks=2), stop=7, threads=rank)
        again.load_state_dict(state)
        got = list(again)
        assert len(got) == 2
        for step, batch in enumerate(got, 5):
            assert torch.equal(batch.he, sampler(index, batch_size=4).batch(step).he[rank::2])


def test_a_state_after_batches_of_worker_processes_asks_how_many_were_taken(make_index):
    index = make_index({"train": 7})
    given = TileBatches(sampler(index), start=3, stop=9)
    assert len(list(DataLoader(given, batch_size=None, num_workers=1, multiprocessing_context="fork"))) == 6
    with pytest.raises(ConfigError, match=r"give state_dict\(done=…\)"):
        given.state_dict()
    assert given.state_dict(done=4)["step"] == 7


@pytest.mark.parametrize(
    ("changes", "text"), [({"seed": 5}, "another seed"), ({"batch_size": 2}, "another batch_size"), ({}, None)]
)
def test_a_state_of_another_draw_is_refused(make_index, changes, text):
    index = make_index({"train": 7})
    state = TileBatches(sampler(index), stop=9).state_dict(done=2)
    other = TileBatches(sampler(index, **changes), stop=9)
    if text is None:
        other.load_state_dict(state)
        assert other.start == 2
    else:
        with pytest.raises(ConfigError, match=text):
            other.load_state_dict(state)


def test_a_state_of_other_tiles_is_refused(make_index):
    state = TileBatches(sampler(make_index({"train": 7})), stop=9).state_dict(done=2)
    with pytest.raises(ConfigError, match="another tiles"):
        TileBatches(sampler(make_index({"train": 8}, folder="other")), stop=9).load_state_dict(state)


def test_without_a_stop_it_goes_on_and_has_no_length(make_index):
    index = make_index({"train": 2})
    endless = TileBatches(sampler(index), stop=None)
    assert len(list(itertools.islice(endless, 11))) == 11
    with pytest.raises(TypeError, match="never ends"):
        len(endless)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can pin memory")
def test_pinned_memory_without_a_gpu_is_refused(make_index):
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        TileBatches(sampler(make_index({"train": 2})), stop=1, pin=True)


def test_tiles_sent_to_another_process_begin_with_an_empty_cache(make_index):
    tiles = SplitTiles(make_index({"train": 3}), "train", cache_mb=1)
    empty = len(pickle.dumps(tiles))
    before = [tiles.rgb("he", place) for place in range(3)]
    assert len(pickle.dumps(tiles)) == empty
    sent = pickle.loads(pickle.dumps(tiles))
    for place in range(3):
        np.testing.assert_array_equal(sent.rgb("he", place), before[place])


@pytest.mark.parametrize("mpp", [0.5, 1.0, 0.7])
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_a_crop_at_the_read_is_the_crop_of_the_tile_as_seen(make_index, mpp, cache_mb):
    tiles = SplitTiles(make_index({"train": 2}), "train", mpp=mpp, cache_mb=cache_mb)
    whole = SplitTiles(make_index({"train": 2}), "train").rgb("ihc", 1)
    crop = Crop(3, 1, 5)
    np.testing.assert_array_equal(tiles.rgb("ihc", 1, crop), crop.of(viewed(whole, tiles.side_px)))


def test_pairs_come_one_by_one_with_the_same_crop_for_all_of_an_item(make_index):
    tiles = SplitTiles(make_index({"train": 5}), "train")
    pairs = TilePairs(tiles, crop_px=8, flips=True, needs=("dab_mask", "score"))
    assert len(pairs) == 5
    for place in range(5):
        item = pairs[place]
        assert (item["tile_id"], item["marker"], item["score"]) == (f"train/{place:03d}", "HER2", 2)
        torch.testing.assert_close(item["ihc"], -item["he"])
        mask = item["dab_mask"][0] == 1
        assert item["he"][0][mask].min() > item["he"][0][~mask].max()
    with pytest.raises(IndexError):
        pairs[5]


def test_pairs_without_a_crop_are_the_stored_tiles(make_index):
    tiles = SplitTiles(make_index({"train": 2}), "train")
    np.testing.assert_array_equal(rgb_from_tensor(TilePairs(tiles)[1]["he"]), tiles.rgb("he", 1))


@pytest.mark.parametrize(("workers", "threads"), [(0, 3), (2, 0)])
def test_a_loader_of_pairs_gives_the_same_whoever_decodes(make_index, workers, threads):
    tiles = SplitTiles(make_index({"train": 5}), "train")
    pairs = TilePairs(tiles, crop_px=8, flips=True, threads=threads)
    loader = DataLoader(pairs, batch_size=2, num_workers=workers)
    got = torch.cat([batch["he"] for batch in loader])
    plain = TilePairs(tiles, crop_px=8, flips=True)
    assert torch.equal(got, torch.stack([plain[place]["he"] for place in range(5)]))


def test_another_epoch_has_other_crops(make_index):
    pairs = TilePairs(SplitTiles(make_index({"train": 5}), "train"), crop_px=8)
    before = [pairs[place]["he"] for place in range(5)]
    pairs.set_epoch(1)
    assert not all(torch.equal(pairs[place]["he"], before[place]) for place in range(5))


def test_a_crop_larger_than_the_tiles_and_an_unknown_need_are_refused(make_index):
    tiles = SplitTiles(make_index({"train": 1}), "train")
    with pytest.raises(ConfigError, match="crop_px is 17, but tiles are 16 px"):
        TilePairs(tiles, crop_px=17)
    with pytest.raises(ConfigError, match="needs nuclei; dab_mask and score can be had"):
        TilePairs(tiles, needs=("nuclei",))
