import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import zarr
from small_stores import MADE, SIDE, files, fill, tissue

from hepipe.errors import StoreError
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.codecs import Passthrough
from hepipe.stores.layout import tiles_per_shard
from hepipe.stores.shards import ShardWriter, sealed, unsealed
from hepipe.stores.tiles import TileStore, TileWriter

CODECS = ["greendelta", "jxl", "zstd", "jpeg", "raw"]


@pytest.mark.parametrize("codec", CODECS)
def test_tiles_come_back_in_their_order_and_masks_with_them(make, codec):
    store = TileStore(make(spec={"codec": codec, "quality": 95, "subsampling": "444"}))
    tiles = tissue(10)
    assert (store.names(), len(store), store.tile_px, store.mpp) == (["dab_mask", "he"], 10, SIDE, 0.5)
    for row in (9, 0, 4, 3):
        read = store.read("he", row)
        if codec == "jpeg":
            assert np.abs(read.astype(int) - tiles[row]).mean() < 3
        else:
            np.testing.assert_array_equal(read, tiles[row])
        np.testing.assert_array_equal(store.read_mask("dab_mask", row), tiles[row, ..., 0] < 120)


@pytest.mark.parametrize("codec", CODECS)
def test_zarr_python_reads_what_the_store_gives(make, codec):
    path = make(spec={"codec": codec})
    group, store = zarr.open_group(path, mode="r"), TileStore(path)
    assert group["he"].shape == (10, SIDE, SIDE, 3)
    assert group.attrs["store"]["codec"] == codec
    np.testing.assert_array_equal(group["he"][:], [store.read("he", row) for row in range(10)])
    np.testing.assert_array_equal(group["he"][5:7, 3:9, 2:4, 1], [store.read("he", row)[3:9, 2:4, 1] for row in (5, 6)])
    np.testing.assert_array_equal(
        np.unpackbits(group["dab_mask"][3]).reshape(SIDE, SIDE), store.read_mask("dab_mask", 3)
    )
    assert sorted(name for name, _ in group.members()) == ["dab_mask", "he", "sha256"]
    digest = hashlib.sha256(sealed(store.chunk("he", 7))).digest()
    assert group["sha256/he"][7].tobytes() == digest


@pytest.mark.parametrize("codec", ["zstd", "raw"])
def test_plain_codecs_need_no_hepipe_to_be_read(make, codec):
    path = make(spec={"codec": codec})
    script = (
        "import sys; sys.modules['hepipe'] = None\n"
        "import zarr; print(int(zarr.open_group(sys.argv[1], mode='r')['he'][:].sum(dtype='u8')))"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert int(ran.stdout) == int(tissue(10).sum(dtype=np.uint64))


def test_zarr_finds_the_codec_where_hepipe_is_installed_but_not_imported(make):
    script = "import sys, zarr; print(int(zarr.open_group(sys.argv[1], mode='r')['he'][:].sum(dtype='u8')))"
    ran = subprocess.run([sys.executable, "-c", script, str(make())], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, "install hepipe again: its entry point zarr.codecs is not there\n" + ran.stderr
    assert int(ran.stdout) == int(tissue(10).sum(dtype=np.uint64))


@pytest.mark.parametrize("codec", ["greendelta", "jxl"])
def test_zarr_python_writes_what_the_store_reads(tmp_path, make, codec):
    path = make(spec={"codec": codec})
    tiles = tissue(10, seed=8)
    array = zarr.open_group(path, mode="r+")["he"]
    array[:] = tiles
    np.testing.assert_array_equal(TileStore(path).read("he", 6), tiles[6])


def test_a_shard_is_read_by_zarr_as_the_standard_says(tmp_path):
    shard = ShardWriter(tmp_path / "c" / "0" / "0", 3)
    shard.append(sealed(b"\1\2"))
    shard.append(sealed(b"\3\4"))
    size = shard.finish()
    assert size == 2 * (2 + 4) + 3 * 16 + 4 == (tmp_path / "c/0/0").stat().st_size
    codecs = [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, 2],
                "codecs": [{"name": "bytes"}, {"name": "crc32c"}],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_location": "end",
            },
        }
    ]
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [3, 2],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 2]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 9,
        "codecs": codecs,
    }
    (tmp_path / "zarr.json").write_text(json.dumps(metadata))
    assert zarr.open_array(tmp_path, mode="r")[:].tolist() == [[1, 2], [3, 4], [9, 9]]


def test_a_tile_is_one_read_of_its_own_bytes(make, monkeypatch):
    store = TileStore(make())
    store.read("he", 0)
    reads = []
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda file, count, offset: reads.append(count) or read(file, count, offset))
    chunk = store.chunk("he", 2)
    store.read("he", 3)
    assert len(reads) == 2
    assert reads[0] == len(chunk) + 4


def test_threads_read_the_same_as_one(make):
    store = TileStore(make(count=30))
    with ThreadPoolExecutor(6) as pool:
        read = list(pool.map(lambda row: store.read("he", row % 30), range(240)))
    tiles = tissue(30)
    for row, tile in enumerate(read):
        np.testing.assert_array_equal(tile, tiles[row % 30])


def test_a_tile_is_read_into_a_given_array(make):
    store = TileStore(make())
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    assert store.read("he", 1, out) is out
    np.testing.assert_array_equal(out, tissue(10)[1])


def test_two_stores_that_stood_at_the_same_place_are_not_mixed_up(make):
    first = TileStore(make())
    first.read("he", 0)
    make(count=6, key="again")
    second = TileStore(first.path)
    assert len(second) == 6
    np.testing.assert_array_equal(second.read("he", 5), tissue(6)[5])


def test_rows_and_attributes_are_kept(begin, tmp_path):
    writer = begin(tmp_path / "c1.zarr", attributes={"tile_ids": ["a", "ß"]})
    fill(writer, 5)
    assert [row["row_in_store"] for row in writer.rows] == [0, 1, 2, 3, 4]
    assert writer.rows[3]["tile_id"] == "c1/3"
    writer.finish()
    store = TileStore(tmp_path / "c1.zarr")
    assert store.attributes["tile_ids"] == ["a", "ß"]
    assert store.provenance == MADE


def test_a_store_without_tiles_is_a_store(make):
    store = TileStore(make(count=0))
    assert len(store) == 0
    assert zarr.open_group(store.path, mode="r")["he"].shape == (0, SIDE, SIDE, 3)


def test_chunks_made_by_threads_make_the_same_store(begin, make, tmp_path):
    tiles = tissue(10)
    with begin(tmp_path / "other.zarr") as writer, ThreadPoolExecutor(3) as pool:
        made = pool.map(
            lambda tile: {"he": writer.encode("he", tile), "dab_mask": writer.encode("dab_mask", tile[..., 0] < 120)},
            tiles,
        )
        for row, chunks in enumerate(made):
            writer.append({"tile_id": f"c1/{row}"}, chunks)
        writer.finish()
    assert files(tmp_path / "other.zarr") == files(make())


def test_a_lossy_store_says_so_and_gives_back_what_its_chunks_hold(begin, tmp_path):
    writer = begin(tmp_path / "c1.zarr", spec={"codec": "jpeg", "quality": 50})
    assert not writer.lossless("he")
    assert writer.lossless("dab_mask")
    chunk = writer.encode("he", tissue(1)[0])
    writer.append({}, {"he": chunk, "dab_mask": writer.encode("dab_mask", np.zeros((SIDE, SIDE), bool))})
    expected = imagecodecs.jpeg8_decode(unsealed(chunk).tobytes())
    writer.finish()
    np.testing.assert_array_equal(TileStore(tmp_path / "c1.zarr").read("he", 0), expected)


def test_the_scanner_s_jpegs_pass_through_where_an_array_can_take_them(tmp_path):
    tiles = tissue(3, 32)
    codec = Passthrough((16, 16))
    spec = StoreSpec(codec="passthrough", otherwise="zstd", tiles_per_shard=2)
    with TileWriter(
        tmp_path / "c.zarr", MADE, mpp=0.5, tile_px=32, arrays={"he": 3, "ihc": 3}, spec=spec, passthrough={"he": codec}
    ) as writer:
        for tile in tiles:
            parts = [np.ascontiguousarray(tile[y : y + 16, x : x + 16]) for y in (0, 16) for x in (0, 16)]
            jpegs = [imagecodecs.jpeg8_encode(part, level=90) for part in parts]
            writer.append({}, {"he": sealed(codec.pack(jpegs, shape=(32, 32))), "ihc": writer.encode("ihc", tile)})
        writer.finish()
    store = TileStore(tmp_path / "c.zarr")
    np.testing.assert_array_equal(store.read("ihc", 2), tiles[2])
    np.testing.assert_array_equal(store.read("he", 2)[16:, 16:], imagecodecs.jpeg8_decode(jpegs[3]))
    assert jpegs[1] in store.chunk("he", 2)
    np.testing.assert_array_equal(zarr.open_group(store.path, mode="r")["he"][1], store.read("he", 1))


@pytest.mark.parametrize(("side", "count"), [(128, 512), (256, 512), (512, 128), (1024, 64), (8192, 64)])
def test_shards_hold_fewer_of_larger_tiles(side, count):
    assert tiles_per_shard(side) == count


def test_a_tile_that_is_not_there_is_an_error(make):
    store = TileStore(make())
    for name, row, said in (("he", 10, "no tile 10 of he; there are 10"), ("ihc", 0, "no array ihc"), ("he", -1, "-1")):
        with pytest.raises(StoreError, match=said):
            store.read(name, row)


def test_a_folder_that_is_no_store_is_an_error(tmp_path, make):
    with pytest.raises(StoreError, match="no readable metadata"):
        TileStore(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="holds tiles, virtual expected"):
        TileStore(make(), "virtual")


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("zarr.json", ["attributes", "hepipe"], {"artefact": "tiles"}),
        ("zarr.json", ["attributes"], None),
        ("zarr.json", ["attributes", "tile_px"], 64),
        ("zarr.json", ["attributes", "tile_px"], "many"),
        ("he/zarr.json", ["shape"], [10**12, SIDE, SIDE, 3]),
        ("he/zarr.json", ["shape"], [9, SIDE, SIDE, 3]),
        ("he/zarr.json", ["shape"], [-1, SIDE, SIDE, 3]),
        ("he/zarr.json", ["shape"], "all"),
        ("he/zarr.json", ["data_type"], "uint16"),
        ("he/zarr.json", ["codecs"], [{"name": "bytes"}]),
        ("he/zarr.json", ["codecs", 0, "configuration", "index_location"], "start"),
        ("he/zarr.json", ["codecs", 0, "configuration", "chunk_shape"], [1, 10**6, 10**6, 3]),
        ("he/zarr.json", ["codecs", 0, "configuration", "codecs", 0, "configuration", "codec"], "webp"),
        ("he/zarr.json", ["chunk_grid", "configuration", "chunk_shape"], [10**9, SIDE, SIDE, 3]),
        ("he/zarr.json", ["chunk_key_encoding"], {"name": "v2"}),
        ("dab_mask/zarr.json", ["codecs", 0, "configuration", "codecs", 0], {"name": "hepipe.tile"}),
    ],
    ids=str,
)
def test_metadata_of_a_stranger_is_refused(make, file, path, value):
    store = make()
    metadata = json.loads((store / file).read_text())
    at = metadata
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (store / file).write_text(json.dumps(metadata))
    with pytest.raises(StoreError):
        TileStore(store)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, "null", "\xff"], ids=["none", "list", "cut", "deep", "null", "latin"]
)
def test_metadata_that_is_no_json_is_refused(make, text):
    store = make()
    (store / "zarr.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError):
        TileStore(store)


def test_an_index_that_points_elsewhere_is_refused(make):
    path = make()
    shard = path / "he/c/0/0/0/0"
    whole = shard.read_bytes()
    slots, length = 4, 4 * 16 + 4
    for offset, count in ((0, 10**9), (10**15, 5), (2**64 - 2, 5), (len(whole), 8)):
        index = np.frombuffer(whole[-length:-4], "<u8").reshape(slots, 2).copy()
        index[1] = offset, count
        shard.write_bytes(whole[:-length] + sealed(index.tobytes()))
        with pytest.raises(StoreError, match="tile 1 of he: the shard's index points beyond"):
            TileStore(path).read("he", 1)
    shard.write_bytes(whole[:10])
    with pytest.raises(StoreError, match="tile 0 of he: the shard's index is damaged"):
        TileStore(path).read("he", 0)
    shard.unlink()
    with pytest.raises(StoreError, match="tile 0 of he: No such file"):
        TileStore(path).read("he", 0)


def test_a_chunk_that_its_codec_did_not_write_names_store_array_and_tile(make):
    path = make()
    shard = path / "he/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    (_, first), (start, length) = np.frombuffer(bytes(data[-68:-4]), "<u8").reshape(4, 2)[:2].astype(int).tolist()
    assert start == first
    # With the right checksum, as a stranger would write it.
    data[start : start + length] = sealed(bytes(length - 4))
    shard.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=r"c1\.zarr: tile 1 of he: a zstd frame of -1 bytes, 3,072 expected"):
        TileStore(path).read("he", 1)


def test_a_sealed_chunk_is_opened_only_as_it_was():
    assert unsealed(sealed(b"abc")).tobytes() == b"abc"
    for harmed in (b"", b"abc", sealed(b"abc")[:-1], b"abx" + sealed(b"abc")[3:]):
        with pytest.raises(ValueError, match="crc32c"):
            unsealed(harmed)
