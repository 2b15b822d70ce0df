"""Nothing half-written is ever taken for whole, and what is whole is never lost."""

import contextlib
import errno
import fcntl
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from small_stores import MADE, files, fill, tissue

from hepipe.errors import HepipeWarning, StoreError
from hepipe.specs.tiling import StoreSpec
from hepipe.stores import shards
from hepipe.stores.partial import discard_partial, partial_folder
from hepipe.stores.tiles import TileStore, TileWriter
from hepipe.stores.upkeep import verify

SLOTS = 4


class Killed(BaseException):
    """In place of a signal: nothing of the writer runs after it but `close`."""


def counted(monkeypatch, kill_at):
    """Count what touches the disk, and end the writer at one of these calls; the number of them is in the list."""
    calls = [0]

    def stop(real):
        def call(*given, **more):
            calls[0] += 1
            if calls[0] == kill_at:
                raise Killed
            return real(*given, **more)

        return call

    for name in ("replace", "fsync", "unlink"):
        monkeypatch.setattr(os, name, stop(getattr(os, name)))
    monkeypatch.setattr(shards.ShardWriter, "_write", stop(shards.ShardWriter._write))
    return calls


def test_a_writer_killed_at_any_step_leaves_nothing_half_and_loses_a_shard_at_most(make, begin, tmp_path, monkeypatch):
    whole = files(make(count=6))
    with monkeypatch.context() as patch:
        calls = counted(patch, kill_at=0)
        make("counted.zarr", count=6)
    assert calls[0] > 40
    path = tmp_path / "killed.zarr"
    for kill_at in range(1, calls[0] + 1):
        with monkeypatch.context() as patch, begin(path) as writer:
            counted(patch, kill_at)
            with contextlib.suppress(Killed):
                fill(writer, 6)
                writer.finish()
            done = len(writer.rows)
        stands = path.exists()
        if stands:
            assert verify(path) == []
            assert files(path) == whole
        with begin(path) as writer:
            assert stands or done - len(writer.rows) <= SLOTS, kill_at
            fill(writer, 6)
            assert [row["tile_id"] for row in writer.rows] == [f"c1/{row}" for row in range(6)]
            writer.finish()
        assert files(path) == whole, kill_at
        assert not partial_folder(path).exists()
        shutil.rmtree(path)


def write_slowly(path: str, count: int, pause: float) -> None:
    tiles = tissue(count)
    arrays = {"he": 3, "dab_mask": 0}
    spec = StoreSpec(tiles_per_shard=SLOTS)
    with TileWriter(Path(path), MADE, mpp=0.5, tile_px=tiles.shape[1], arrays=arrays, spec=spec) as writer:
        for row in range(len(writer.rows), count):
            writer.add({"tile_id": f"c1/{row}"}, he=tiles[row], dab_mask=tiles[row, ..., 0] < 120)
            time.sleep(pause)
        writer.finish()


def kill_until_whole(path, count, seed, *, longest):
    """Begin writers and kill each after a random time, until one ends by itself; how many were killed."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["hepipe.stores.tiles", "small_stores"])
    draw = random.Random(seed)
    killed, committed = 0, 0
    while True:
        writer = start.Process(target=write_slowly, args=(str(path), count, 0.001))
        writer.start()
        # Longer and longer, so that it ends on a machine of any speed.
        writer.join(draw.uniform(0, longest * 1.15**killed))
        if writer.is_alive():
            os.kill(writer.pid, signal.SIGKILL)
            killed += 1
        writer.join()
        if writer.exitcode == 0:
            return killed
        assert writer.exitcode == -signal.SIGKILL
        if path.exists():
            # Between its place and its end.
            assert verify(path) == []
        entered = len(list((partial_folder(path) / "journal").glob("??????.json")))
        assert entered >= committed or path.exists()
        committed = entered


def test_random_kills_lose_nothing_that_was_committed(tmp_path, make):
    path = tmp_path / "killed.zarr"
    killed = kill_until_whole(path, 60, 1, longest=0.3)
    assert killed >= 1
    assert files(path) == files(make(count=60))


@pytest.mark.long
def test_hundreds_of_random_kills_lose_nothing_that_was_committed(tmp_path, make):
    whole = files(make(count=200))
    killed = 0
    for seed in range(40):
        path = tmp_path / f"killed-{seed}.zarr"
        killed += kill_until_whole(path, 200, seed, longest=0.5)
        assert files(path) == whole
        shutil.rmtree(path)
    assert killed >= 200


@pytest.mark.parametrize("full_at", [2, 11, 22, 29, 35])
def test_a_full_disk_is_said_and_what_was_committed_stays(make, begin, tmp_path, monkeypatch, full_at):
    path, calls = tmp_path / "full.zarr", 0
    write = shards.ShardWriter._write

    def full(self, data):
        nonlocal calls
        calls += 1
        if calls == full_at:
            # Half of it still found room.
            write(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    with monkeypatch.context() as patch, begin(path) as writer:
        patch.setattr(shards.ShardWriter, "_write", full)
        said = r"full\.zarr: No space left on device; free some, .* repeats 4 tiles at most"
        with pytest.raises(StoreError, match=said):
            fill(writer, 16)
        done = len(writer.rows)
    assert not path.exists()
    with begin(path) as writer:
        assert done - SLOTS <= len(writer.rows) <= done
        fill(writer, 16)
        writer.finish()
    assert files(path) == files(make(count=16))


def test_a_file_that_may_not_grow_is_said_as_a_full_disk(make, begin, tmp_path):
    # What a quota looks like: the kernel itself refuses.
    path = tmp_path / "full.zarr"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with begin(path, spec={"codec": "raw"}) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            with pytest.raises(StoreError, match=r"full\.zarr: File too large; free some"):
                fill(writer, 10)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with begin(path, spec={"codec": "raw"}) as writer:
        fill(writer, 10)
        writer.finish()
    assert files(path) == files(make(spec={"codec": "raw"}))


def test_a_raw_write_that_takes_a_part_is_gone_on_with(make, monkeypatch, tmp_path):
    whole = files(make())

    class Slow:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[:7])

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = Path.open

    def open_slowly(self, mode="r", *given, **more):
        file = opened(self, mode, *given, **more)
        return Slow(file) if more.get("buffering") == 0 else file

    monkeypatch.setattr(Path, "open", open_slowly)
    assert files(make("slow.zarr")) == whole


def test_a_second_process_is_told_that_the_first_writes(begin, make, tmp_path):
    path = tmp_path / "c1.zarr"
    first = begin(path)
    fill(first, 5)
    with pytest.raises(StoreError, match=r"\.c1\.zarr\.partial: another process writes this store"):
        begin(path)
    with pytest.raises(StoreError, match="another process"):
        discard_partial(path)
    fill(first, 10)
    first.finish()
    assert files(path) == files(make("other.zarr"))
    # Its lock went with it.
    begin(path).close()


def test_of_processes_that_begin_at_once_one_writes_and_the_others_are_told(tmp_path, make):
    path = tmp_path / "c1.zarr"
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["hepipe.stores.tiles", "small_stores"])
    writers = [start.Process(target=write_slowly, args=(str(path), 10, 0.02)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    codes = sorted(writer.exitcode for writer in writers)
    assert codes[0] == 0
    assert set(codes) <= {0, 1}
    assert files(path) == files(make("other.zarr"))


def test_a_file_system_without_locks_is_said(begin, tmp_path, monkeypatch):
    def none(file, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(HepipeWarning, match="no locks"):
        begin(tmp_path / "c1.zarr").close()


def test_a_store_begun_otherwise_is_begun_anew(begin, tmp_path, make):
    path = tmp_path / "c1.zarr"
    others = [
        {"provenance": MADE.model_copy(update={"inputs": {"he": "1"}})},
        {"spec": {"codec": "zstd"}},
        {"spec": {"level": 3}},
        {"attributes": {"note": "x"}},
        {"key": "other files"},
        {"tile_px": 16},
    ]
    for other in others:
        with begin(path, **other) as writer:
            fill(writer, 9)
        with begin(path) as writer:
            assert writer.rows == []
            fill(writer, 6)
    with begin(path) as writer:
        assert len(writer.rows) == 4
        fill(writer, 10)
        writer.finish()
    assert files(path) == files(make("other.zarr"))


def test_a_store_killed_while_it_takes_the_place_of_another_is_begun_again_as_often_as_it_takes(
    make, begin, monkeypatch
):
    path = make()
    for kill_at in range(1, 9):
        with begin(path, key=f"{kill_at // 2}") as writer:
            fill(writer, 6)
            replace, left = os.replace, [kill_at]

            def last(*given, replace=replace, left=left):
                # Those of metadata files are not meant.
                if not os.path.isfile(given[0]):
                    left[0] -= 1
                    if left[0] == 0:
                        raise Killed
                replace(*given)

            def no_cleaning(*given, **more):
                raise Killed

            with monkeypatch.context() as patch, contextlib.suppress(Killed):
                patch.setattr(os, "replace", last)
                patch.setattr(shutil, "rmtree", no_cleaning)
                writer.finish()
    with begin(path) as writer:
        assert len(TileStore(path)) in (6, 10)
        fill(writer, 10)
        writer.finish()
    assert files(path) == files(make("other.zarr"))


def test_a_finished_store_stays_until_the_new_one_is_whole(begin, make):
    path = make()
    with begin(path, key="again") as writer:
        fill(writer, 6)
    assert len(TileStore(path)) == 10
    with begin(path, key="again") as writer:
        fill(writer, 6)
        writer.finish()
    assert len(TileStore(path)) == 6


def test_a_shard_that_changed_its_size_is_written_again(begin, tmp_path, make):
    path = tmp_path / "c1.zarr"
    with begin(path) as writer:
        fill(writer, 9)
    shard = partial_folder(path) / "store/he/c/1/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with begin(path) as writer:
        assert len(writer.rows) == 4
        fill(writer, 10)
        writer.finish()
    assert files(path) == files(make("other.zarr"))


def test_what_is_left_of_an_unfinished_store_can_be_discarded(begin, tmp_path):
    path = tmp_path / "c1.zarr"
    discard_partial(path)
    with begin(path) as writer:
        fill(writer, 9)
    discard_partial(path)
    assert list(tmp_path.iterdir()) == []


def test_memory_of_writing_does_not_grow_with_the_shard(begin, tmp_path):
    import tracemalloc

    tiles = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    mask = np.zeros((128, 128), bool)
    with begin(tmp_path / "c1.zarr", tile_px=128, spec={"codec": "raw", "tiles_per_shard": 512}) as writer:
        tracemalloc.start()
        for row in range(400):
            writer.add({}, he=tiles[row % 4], dab_mask=mask)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # 400 tiles are 19 MB.
    assert peak < 2_000_000


def flips(path: Path, count: int, rng: random.Random):
    size = path.stat().st_size
    return sorted({0, size - 1, *(rng.randrange(size) for _ in range(count))})


def test_one_flipped_byte_in_any_file_is_found_and_its_tile_or_file_named(make):
    path = make()
    assert verify(path) == []
    rng = random.Random(4)
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path).as_posix()
        whole = file.read_bytes()
        array, shard = (
            (name.split("/")[0], int(name.split("/")[2])) if name.startswith(("he/c", "dab_mask/c")) else ("", 0)
        )
        for place in flips(file, 6, rng):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
            found = verify(path)
            assert found, (name, place)
            if not array:
                assert any(problem.startswith((f"{name}:", f"{path / name}:")) for problem in found), (place, found)
                continue
            index = np.frombuffer(whole[-68:-4], "<u8").reshape(SLOTS, 2)
            hit = [slot for slot, (start, length) in enumerate(index) if start <= place < int(start) + int(length)]
            if hit:
                assert [problem.partition(":")[0] for problem in found] == [f"tile {shard * SLOTS + hit[0]} of {array}"]
            else:
                assert any(f"(tiles {shard * SLOTS} to " in problem for problem in found), found
        file.write_bytes(whole)
    assert verify(path) == []


def test_bytes_that_belong_to_no_tile_are_found(make):
    path = make()
    shard = path / "he/c/0/0/0/0"
    whole = shard.read_bytes()
    index = np.frombuffer(whole[-68:-4], "<u8").reshape(SLOTS, 2).copy()
    index[:, 0] += 3
    shard.write_bytes(b"abc" + whole[:-68] + shards.sealed(index.tobytes()))
    assert verify(path) == ["he/c/0/0/0/0 (tiles 0 to 3 of he): bytes that belong to no tile"]


def test_two_tiles_in_each_other_s_place_are_found(make):
    path = make()
    shard = path / "he/c/0/0/0/0"
    whole = shard.read_bytes()
    index = np.frombuffer(whole[-68:-4], "<u8").reshape(SLOTS, 2).copy()
    index[[0, 1]] = index[[1, 0]]
    shard.write_bytes(whole[:-68] + shards.sealed(index.tobytes()))
    found = verify(path)
    assert "tile 0 of he: its bytes are not those of its digest" in found
    assert "tile 1 of he: its bytes are not those of its digest" in found


@pytest.mark.parametrize(
    "gone", ["sha256/zarr.json", "sha256/he/zarr.json", "sha256/he/c/0/0", "he/zarr.json", "zarr.json", "he/c/1/0/0/0"]
)
def test_a_missing_file_is_named(make, gone):
    path = make()
    (path / gone).unlink()
    found = verify(path)
    assert any(gone in problem for problem in found), found


def test_a_file_that_was_put_into_the_store_is_named(make):
    path = make()
    shutil.copytree(path / "he", path / "more")
    assert any(problem.startswith("more/zarr.json: does not belong") for problem in verify(path))


def test_threads_find_the_same(make):
    path = make(count=30)
    shard = path / "he/c/2/0/0/0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 4
    data[-80] ^= 4
    shard.write_bytes(bytes(data))
    assert verify(path) == verify(path, workers=4) != []


def test_a_tile_that_was_wrong_before_it_was_written_is_found_by_decoding(begin, tmp_path):
    with begin(tmp_path / "c1.zarr") as writer:
        mask = writer.encode("dab_mask", np.zeros((32, 32), bool))
        writer.append({}, {"he": shards.sealed(b"nonsense"), "dab_mask": mask})
        writer.finish()
    assert verify(tmp_path / "c1.zarr") == []
    found = verify(tmp_path / "c1.zarr", pixels=True)
    assert found == ["tile 0 of he: a zstd frame of -1 bytes, 3,072 expected"]
