import json

import numpy as np
import pytest
from small_stores import MADE, files, tissue
from typer.testing import CliRunner

from hepipe.cli import commands
from hepipe.cli.app import app
from hepipe.config import Sections, load_config
from hepipe.errors import ConfigError, StoreError
from hepipe.specs.tiling import StoreSpec
from hepipe.status import failed
from hepipe.stores.arrays import whole, write_group
from hepipe.stores.tiles import TileStore
from hepipe.stores.upkeep import convert, is_lossless, open_any, verify


@pytest.fixture(scope="module")
def hepipe():
    commands.register(app)

    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.mark.parametrize("codec", ["jxl", "zstd", "raw", "jpeg", "greendelta"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_converted_store_holds_the_same_tiles_in_the_same_order(make, tmp_path, codec, workers):
    source = make(attributes={"tile_ids": ["a"]})
    target = tmp_path / "to.zarr"
    assert convert(source, target, StoreSpec(codec=codec, tiles_per_shard=3), workers=workers) == 10
    assert verify(target, pixels=True) == []
    before, after = TileStore(source), TileStore(target)
    assert after.provenance == MADE
    assert after.attributes["tile_ids"] == ["a"]
    assert after.attributes["converted"] == [{"store": before.attributes["store"], "sha256": before.digest}]
    assert [layout.slots for layout in after.layouts.values()] == [3, 3]
    for row in range(10):
        np.testing.assert_array_equal(after.read_mask("dab_mask", row), before.read_mask("dab_mask", row))
        if codec != "jpeg":
            np.testing.assert_array_equal(after.read("he", row), tissue(10)[row])


def test_there_and_back_gives_the_same_bytes_of_tiles(make, tmp_path):
    source = make()
    convert(source, tmp_path / "jxl.zarr", StoreSpec(codec="jxl"))
    convert(tmp_path / "jxl.zarr", tmp_path / "back.zarr", StoreSpec(tiles_per_shard=4))
    one, two = files(source), files(tmp_path / "back.zarr")
    assert {name for name in one if one[name] != two[name]} == {"zarr.json", "sha256/zarr.json"}
    assert len(TileStore(tmp_path / "back.zarr").attributes["converted"]) == 2


def test_a_conversion_stops_at_a_damaged_tile_and_leaves_nothing_that_looks_whole(make, tmp_path):
    source = make()
    shard = source / "he/c/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[9] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="tile 4 of he"):
        convert(source, tmp_path / "to.zarr", StoreSpec(codec="jxl"))
    assert not (tmp_path / "to.zarr").exists()


def test_a_conversion_that_cannot_be_is_a_mistake_of_a_person(make, tmp_path):
    source = make()
    with pytest.raises(ConfigError, match="stands there already"):
        convert(source, source, StoreSpec())
    with pytest.raises(ConfigError, match="codec passthrough needs the scanner's own JPEGs"):
        convert(source, tmp_path / "to.zarr", StoreSpec(codec="passthrough"))


def test_only_a_lossy_codec_changes_pixels(make, tmp_path):
    store = TileStore(make())
    assert is_lossless(store, StoreSpec(codec="jxl"))
    assert not is_lossless(store, StoreSpec(codec="jpeg"))
    convert(store.path, tmp_path / "jpeg.zarr", StoreSpec(codec="jpeg"))
    assert is_lossless(TileStore(tmp_path / "jpeg.zarr"), StoreSpec(codec="jpeg"))


def test_the_commands_say_what_is_there(hepipe, make, tmp_path):
    path, target = make(), tmp_path / "to.zarr"
    said = hepipe("store", "info", path).output
    assert "10 tiles of 32 px at 0.5 µm per px" in said
    assert "he: greendelta (level 1); " in said
    assert hepipe("store", "verify", path).output == f"{path}: whole\n"
    ran = hepipe("store", "convert", path, target, "--codec", "jpeg", "--spec", '{"quality": 70}', "--workers", 2)
    assert ran.exit_code == 0, ran.output
    assert "its pixels are others" in ran.output
    assert "jpeg (quality 70, subsampling 420) with loss" in hepipe("store", "info", target).output


def test_verify_ends_with_an_error_when_one_of_several_stores_is_damaged(hepipe, make, tmp_path):
    good, bad = make("a.zarr"), make("b.zarr")
    file = bad / "dab_mask/c/2/0"
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    ran = hepipe("store", "verify", good, bad, tmp_path / "none.zarr")
    assert ran.exit_code == 1
    assert ran.output.splitlines() == [
        f"{good}: whole",
        f"{bad}: tile 8 of dab_mask: its bytes are not those that were written (crc32c)",
        f"{tmp_path / 'none.zarr'}: no tile store",
    ]


def test_the_store_of_a_failed_case_is_whole_and_holds_no_tiles(hepipe, tmp_path):
    path = tmp_path / "c2.zarr"
    with whole(path) as beside:
        write_group(beside, MADE.model_copy(update={"status": failed("tiling", "no tissue")}))
    assert verify(path) == []
    assert "tiling: no tissue\nno tiles" in hepipe("store", "info", path).output
    with pytest.raises(StoreError, match="holds no tiles: no tissue"):
        convert(path, tmp_path / "to.zarr", StoreSpec())


def test_a_store_that_is_being_written_is_said_to_be(begin, tmp_path):
    from small_stores import fill

    with begin(tmp_path / "c1.zarr") as writer:
        fill(writer, 9)
    with pytest.raises(StoreError, match="not finished: 2 shards are written"):
        open_any(tmp_path / "c1.zarr")


def test_the_section_is_checked_and_a_data_set_may_override_it():
    config = load_config(
        {
            "store": {"codec": "jxl", "level": 3},
            "datasets": {"a": {"synth": {}}, "b": {"synth": {}, "store": {"codec": "zstd"}}},
        }
    )
    stores = [config.datasets[name].sections.store for name in "ab"]
    assert [(store.codec, store.level) for store in stores] == [("jxl", 3), ("zstd", 3)]
    assert json.loads(Sections().store.model_dump_json())["codec"] == "greendelta"
    with pytest.raises(ConfigError, match=r"store.*jxl takes an effort of 1 to 10"):
        load_config({"store": {"codec": "jxl", "level": 11}, "datasets": {"a": {"synth": {}}}})
