import copy
import io
import json
import sys
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from small_exports import PLAN, contents, mask, pixels

from hepipe.errors import ConfigError
from hepipe.exporters.huggingface import export_huggingface
from hepipe.exporters.selection import Selection
from hepipe.exporters.shards import plan
from hepipe.exporters.webdataset import export_webdataset

TILES = {tile_id: split for tiles in PLAN.values() for tile_id, split in tiles}
EXPORTS = [export_webdataset, export_huggingface]


@pytest.fixture
def two_a_shard(monkeypatch):
    """Shards of two tiles."""

    def planned(selection, **options):
        larger = copy.copy(selection)
        larger.tile_px = 250
        return plan(larger, **{**options, "shard_mb": 1})

    for export in EXPORTS:
        monkeypatch.setattr(sys.modules[export.__module__], "plan", planned)


def picture(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def samples(out):
    """Split to key to member to bytes, as WebDataset cuts names at the first dot."""
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, role = member.name.partition(".")
                split = path.name.partition("-")[0]
                found.setdefault(split, {}).setdefault(key, {})[role] = tar.extractfile(member).read()
    return found


def test_webdataset_samples_have_the_pixels_of_the_store(make_set, tmp_path):
    export_webdataset(Selection(make_set()), tmp_path / "out")
    seen = {}
    for split, keys in samples(tmp_path / "out").items():
        for parts in keys.values():
            assert parts.keys() == {"he.png", "ihc.png", "dab_mask.png", "json"}
            facts = json.loads(parts["json"])
            seen[facts["tile_id"]] = split
            for stain in ("he", "ihc"):
                np.testing.assert_array_equal(picture(parts[f"{stain}.png"]), pixels(facts["tile_id"], stain))
            np.testing.assert_array_equal(picture(parts["dab_mask.png"]) == 255, mask(facts["tile_id"]))
            assert facts["measurements"] == {"blur_he": 1.5, "ncc_peak": 0.25, "shift_um": None}
            assert "source_name" not in facts
    assert seen == TILES


def test_members_of_a_tar_say_nothing_of_who_wrote_them_and_when(make_set, tmp_path):
    export_webdataset(Selection(make_set()), tmp_path / "out")
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert member.isfile()


@pytest.mark.parametrize("export", EXPORTS)
def test_shards_hold_a_fixed_number_of_tiles_in_a_fixed_order(make_set, tmp_path, two_a_shard, export):
    export(Selection(make_set()), tmp_path / "one")
    export(Selection(make_set()), tmp_path / "four", workers=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")
    if export is export_webdataset:
        index = json.loads((tmp_path / "one" / "train.json").read_text())
        assert [(shard["url"], shard["nsamples"]) for shard in index["shardlist"]] == [
            ("train-000000.tar", 2),
            ("train-000001.tar", 2),
            ("train-000002.tar", 1),
        ]
    else:
        names = sorted(path.name for path in (tmp_path / "one" / "data").iterdir())
        assert names[1:4] == [f"train-0000{number}-of-00003.parquet" for number in range(3)]


@pytest.mark.parametrize("export", EXPORTS)
def test_shards_that_a_killed_export_has_finished_are_not_made_again(
    make_set, tmp_path, two_a_shard, monkeypatch, export
):
    index = make_set()
    export(Selection(index), tmp_path / "whole")
    broken, read = Selection(index), []

    def dying(row, stain):
        read.append(row["tile_id"])
        if len(read) > 6:
            raise KeyboardInterrupt
        return Selection.rgb(broken, row, stain)

    monkeypatch.setattr(broken, "rgb", dying)
    with pytest.raises(KeyboardInterrupt):
        export(broken, tmp_path / "out")
    again, drawn = Selection(index), set()
    monkeypatch.setattr(again, "rgb", lambda row, stain: drawn.add(row["tile_id"]) or Selection.rgb(again, row, stain))
    export(again, tmp_path / "out")
    assert len(drawn) == len(TILES) - 2
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_mixed_order_is_another_one_and_always_the_same(make_set):
    chosen = Selection(make_set())

    def order(kind):
        return [[row["tile_id"] for row in shard.rows] for shard in plan(chosen, shard_mb=9, order=kind)]

    assert order("mixed") == order("mixed") != order("id")
    assert [sorted(ids) for ids in order("mixed")] == [sorted(ids) for ids in order("id")]


def test_a_shard_that_holds_no_tile_is_refused(make_set):
    chosen = Selection(make_set())
    chosen.tile_px = 4096
    with pytest.raises(ConfigError, match="--shard-mb 100 holds no pair of 4096 px"):
        plan(chosen, shard_mb=100)


def test_hugging_face_rows_have_the_pixels_of_the_store(make_set, tmp_path):
    export_huggingface(Selection(make_set()), tmp_path / "out")
    seen = {}
    for path in sorted((tmp_path / "out" / "data").iterdir()):
        split = {"validation": "val"}.get(path.name.split("-")[0], path.name.split("-")[0])
        for row in pq.read_table(path).to_pylist():
            seen[row["tile_id"]] = split
            for stain in ("he", "ihc"):
                assert row[stain].keys() == {"bytes", "path"}
                np.testing.assert_array_equal(picture(row[stain]["bytes"]), pixels(row["tile_id"], stain))
            np.testing.assert_array_equal(picture(row["dab_mask"]["bytes"]) == 255, mask(row["tile_id"]))
            assert row["measurements"] == {"blur_he": 1.5, "ncc_peak": 0.25, "shift_um": None}
    assert seen == TILES


def test_hugging_faces_head_is_yaml_that_agrees_with_the_parquet(make_set, tmp_path):
    export_huggingface(Selection(make_set(folder="set: of [all]")), tmp_path / "out")
    _, head, page = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["pretty_name"] == "set: of [all]"
    assert (told["license"], told["license_link"]) == ("other", "LICENSE")
    assert (tmp_path / "out" / "LICENSE").is_file()
    for given in told["configs"][0]["data_files"]:
        assert list((tmp_path / "out").glob(given["path"]))
    counts = {split["name"]: split["num_examples"] for split in told["dataset_info"]["splits"]}
    assert counts == {"train": 5, "validation": 1, "test": 2}
    file = next((tmp_path / "out" / "data").glob("train-*"))
    schema = pq.read_schema(file)
    stored = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    named = told["dataset_info"]["features"]
    assert [one["name"] for one in named] == list(stored) == schema.names
    kinds = {one["name"]: one.get("dtype") for one in named}
    assert kinds["he"] == kinds["dab_mask"] == "image"
    for name, feature in stored.items():
        if feature.get("_type") == "Value":
            arrow = {"double": "float64", "float": "float32"}.get(str(schema.field(name).type), schema.field(name).type)
            assert str(arrow) == feature["dtype"] == kinds[name]
    assert page.strip().startswith("# set: of")


def test_row_groups_are_small_enough_to_be_held(make_set, tmp_path, monkeypatch):
    monkeypatch.setattr("hepipe.exporters.huggingface.ROWS_PER_GROUP", 2)
    export_huggingface(Selection(make_set()), tmp_path / "out")
    file = pq.ParquetFile(next((tmp_path / "out" / "data").glob("train-*")))
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [2, 2, 1]
