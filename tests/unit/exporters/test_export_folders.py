import csv
import hashlib
import json

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from small_exports import PLAN, SIDE, contents, pixels, sha256

from hepipe.errors import ConfigError
from hepipe.exporters import folders, growing
from hepipe.exporters.folders import LAYOUTS, export_folders, export_side_by_side
from hepipe.exporters.selection import Selection
from hepipe.importers.aligned import open_aligned
from hepipe.importers.folder import open_folders
from hepipe.specs.imports import ImportSpec
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.codecs import Passthrough
from hepipe.stores.provenance import Provenance
from hepipe.stores.shards import sealed
from hepipe.stores.tiles import TileWriter

TILES = {tile_id: split for tiles in PLAN.values() for tile_id, split in tiles}


def manifest(out):
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("layout", "he", "ihc"), [("bci", "HE", "IHC"), ("split", "A", "B")])
def test_folders_that_are_imported_again_have_the_pixels_of_the_store(make_set, tmp_path, layout, he, ihc):
    out = tmp_path / "out"
    export_folders(Selection(make_set()), out, layout=layout)
    back = {}
    pairs = open_folders(out, ImportSpec(kind="folder", path="x", mpp=0.5, he=he, ihc=ihc)).pairs
    for pair in pairs:
        back[f"{pair.split}/{pair.name}"] = tuple(sha256(one) for one in pair.read())
    named = {row["file"].rpartition(".")[0]: row["tile_id"] for row in manifest(out) if row["role"] == "he"}
    assert len(back) == len(TILES)
    for place, tile_id in named.items():
        name = f"{TILES[tile_id]}/{place.rsplit('/')[-1]}"
        assert back[name] == (sha256(pixels(tile_id, "he")), sha256(pixels(tile_id, "ihc")))


def test_side_by_side_pictures_that_are_imported_again_have_the_pixels_of_the_store(make_set, tmp_path):
    out = tmp_path / "out"
    export_side_by_side(Selection(make_set()), out)
    named = {row["file"].removeprefix("pairs/").removesuffix(".png"): row["tile_id"] for row in manifest(out)}
    pairs = open_aligned(out / "pairs", ImportSpec(kind="aligned", path="x", mpp=0.5)).pairs
    assert {named[pair.tile_id] for pair in pairs} == set(TILES)
    for pair in pairs:
        tile_id = named[pair.tile_id]
        assert [sha256(one) for one in pair.read()] == [sha256(pixels(tile_id, stain)) for stain in ("he", "ihc")]


def test_an_imported_set_leaves_under_the_names_that_it_came_with(make_set, tmp_path):
    export_folders(Selection(make_set()), tmp_path / "out", layout="bci")
    assert (tmp_path / "out" / "HE" / "train" / "00001_train_1+.png").is_file()
    # Its id says test and its split is train now: the id's word stays, so that no two names meet.
    assert (tmp_path / "out" / "IHC" / "train" / "test__00003_test_3+.png").is_file()


def test_a_set_without_splits_leaves_under_its_own_names(make_set, tmp_path):
    index = make_set({"imported": [("all/one", "train"), ("all/two", "test"), ("train/one", "train")]})
    chosen = Selection(index)
    names = {row["tile_id"]: chosen.name(row) for row in chosen.rows}
    assert names["all/two"] == "two"
    # Both would be `one` of train: each takes its id's hash.
    assert len({names["all/one"], names["train/one"]}) == 2
    assert all(names[tile_id].startswith("one-") for tile_id in ("all/one", "train/one"))


def test_cyclegans_folders_have_a_file_of_one_name_on_both_sides(make_set, tmp_path):
    export_folders(Selection(make_set()), tmp_path / "out")
    for split in ("train", "val", "test"):
        sides = [{file.name for file in (tmp_path / "out" / f"{split}{letter}").iterdir()} for letter in "AB"]
        assert sides[0] == sides[1] != set()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_has_the_same_bytes_for_any_number_of_workers(make_set, tmp_path, layout):
    for name, workers in (("one", 1), ("three", 3)):
        export_folders(Selection(make_set()), tmp_path / name, layout=layout, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_the_manifest_leads_from_every_file_to_its_tile_and_bytes(make_set, tmp_path):
    export_folders(Selection(make_set()), tmp_path / "out")
    files = contents(tmp_path / "out")
    rows = manifest(tmp_path / "out")
    for row in rows:
        assert row["sha256"] == hashlib.sha256(files[row["file"]]).hexdigest()
        own = np.asarray(Image.open(tmp_path / "out" / row["file"]))
        assert sha256(own) == sha256(pixels(row["tile_id"], row["role"]))
    beside = {"manifest.csv", "CARD.md", "TERMS.txt", "dataset.json", "export.json"}
    assert files.keys() == {row["file"] for row in rows} | beside


def test_filters_choose_by_split_case_and_number(make_set):
    index = make_set()

    def ids(**chosen):
        return {row["tile_id"] for row in Selection(index, **chosen).rows}

    assert ids(splits=["val"]) == {"c.2/0-0"}
    assert ids(cases=["c1"]) == {"c1/0-0", "c1/1-0", "c1/1-1"}
    assert len(ids(most=4)) == 4
    with pytest.raises(ConfigError, match=r"no tile of case c9 in this index; it has c\.2, c1"):
        ids(cases=["c9"])
    with pytest.raises(ConfigError, match="leave a filter out"):
        ids(splits=["val"], cases=["c1"])
    with pytest.raises(ConfigError, match="leave a filter out"):
        ids(place="outside")


def test_a_name_does_not_follow_from_what_else_is_exported(make_set):
    index = make_set()
    whole, part = Selection(index), Selection(index, cases=["c.2"])
    assert [part.name(row) for row in part.rows] == [whole.name(row) for row in whole.rows if row["case_id"] == "c.2"]


def test_a_folder_with_other_files_is_left_alone(make_set, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfigError, match="holds files that no export has written"):
        export_folders(Selection(make_set()), out)
    assert contents(out) == {"thesis.txt": b"all of it"}


def test_an_earlier_export_is_replaced_whole_but_by_its_own_kind_alone(make_set, tmp_path):
    index, out = make_set(), tmp_path / "out"
    export_folders(Selection(index), out)
    export_folders(Selection(index, cases=["c1"]), out)
    assert len(manifest(out)) == 6
    assert len(list(out.rglob("*.png"))) == 6
    with pytest.raises(ConfigError, match="holds an export of kind ab, pix2pix is to be written"):
        export_side_by_side(Selection(index), out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_killed_export_goes_on_where_it_stopped_and_ends_with_the_same_bytes(make_set, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "PER_PART", 2)
    index = make_set()
    export_folders(Selection(index), tmp_path / "whole")
    broken = Selection(index)
    read, seen = broken.rgb, []

    def killed(row, stain):
        seen.append(row["tile_id"])
        if len(seen) > 9:
            raise KeyboardInterrupt
        return read(row, stain)

    monkeypatch.setattr(broken, "picture", lambda row, stain, *, stored: (folders.png(killed(row, stain)), "png"))
    with pytest.raises(KeyboardInterrupt):
        export_folders(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    again = Selection(index)
    picture, drawn = again.picture, []

    def watched(row, stain, *, stored):
        drawn.append(row["tile_id"])
        return picture(row, stain, stored=stored)

    monkeypatch.setattr(again, "picture", watched)
    export_folders(again, tmp_path / "out")
    assert len(set(drawn)) == 4
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_stored_jpegs_leave_as_they_are(make_set, tmp_path):
    index = make_set(codec="jpeg")
    chosen = Selection(index, cases=["c1"])
    assert export_folders(chosen, tmp_path / "out", stored=True) == {"jpg": 6}
    store = chosen.stores["tiles/c1.zarr"]
    assert (tmp_path / "out" / "trainA" / "c1__1-0.jpg").read_bytes() == store.chunk("he", 1)


def test_jpegs_that_the_store_passes_through_leave_byte_for_byte(make_set, tmp_path):
    """One file in the store is a whole tile; the other is one that reaches over the slide's edge, which becomes PNG."""
    index = make_set({"c1": [("c1/0-0", "train"), ("c1/1-0", "train")]})
    codec = Passthrough((SIDE, SIDE))
    jpegs = [imagecodecs.jpeg8_encode(pixels(tile_id, "he"), level=80) for tile_id in ("c1/0-0", "c1/1-0")]
    with TileWriter(
        index.parent / "tiles" / "c1.zarr",
        Provenance(artefact="tiles", subject="c1"),
        mpp=0.5,
        tile_px=SIDE,
        arrays={"he": 3, "ihc": 3},
        spec=StoreSpec(codec="passthrough"),
        passthrough={"he": codec},
    ) as writer:
        for jpeg, inside in zip(jpegs, ((SIDE, SIDE), (SIDE, 9)), strict=True):
            chunk = sealed(codec.pack([jpeg], shape=(SIDE, SIDE), inside=inside))
            writer.append({}, {"he": chunk, "ihc": writer.encode("ihc", pixels("c1/0-0", "ihc"))})
        writer.finish()
    assert export_folders(Selection(index), tmp_path / "out", stored=True) == {"png": 3, "jpg": 1}
    assert (tmp_path / "out" / "trainA" / "c1__0-0.jpg").read_bytes() == jpegs[0]
    edge = np.asarray(Image.open(tmp_path / "out" / "trainA" / "c1__1-0.png"))
    assert (edge[:, 9:] == 255).all()
    assert "files of a pair may differ in their suffix" in (tmp_path / "out" / "CARD.md").read_text()


def test_the_page_says_what_is_not_known_of_patients_and_of_what_was_interpolated(make_set, tmp_path):
    export_folders(Selection(make_set(warped_stain="")), tmp_path / "out")
    page = (tmp_path / "out" / "CARD.md").read_text()
    assert "| train | 5 | 1 and unknown ones | 1 and unknown ones |" in page
    assert "Interpolated by registration: not said in 8." in page
    assert "suffix" not in page


def test_a_store_without_jpegs_gives_png_and_the_count_says_so(make_set, tmp_path):
    assert export_folders(Selection(make_set(), cases=["c1"]), tmp_path / "out", stored=True) == {"png": 6}
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["files"] == {"png": 6, "jpg": 0}


def test_ids_that_lead_out_of_the_folder_stay_in_it(make_set, tmp_path):
    evil = [
        "../../../up",
        "/etc/passwd",
        "a\\..\\b",
        "con",
        "..",
        "x" * 300,
        "A/b",
        "a/B",
        "a b",
        "Müller",
        "-rf",
        "a.b",
    ]
    index = make_set({"c1": [(tile_id, "train") for tile_id in evil]})
    before = set(tmp_path.rglob("*"))
    export_folders(Selection(index), tmp_path / "deep" / "out")
    assert all(str(path).startswith(str(tmp_path / "deep")) for path in set(tmp_path.rglob("*")) - before)
    rows = manifest(tmp_path / "deep" / "out")
    names = [row["file"].lower() for row in rows]
    assert len(set(names)) == len(rows) == 2 * len(evil)
    assert {row["tile_id"].removeprefix("'") for row in rows} == set(evil)
    assert all(len(name) < 100 for name in names)


def test_no_export_writes_outside_of_its_folder(tmp_path):
    with growing.Growing(tmp_path / "out", kind="ab", options={}) as folder:
        for name in ("../a", "/a", "a/../../b", "", "a\\b"):
            with pytest.raises(ValueError, match="leads out of the folder"):
                folder.write(name, b"")


def test_what_a_public_set_calls_its_tiles_stays_at_home(make_set, tmp_path):
    export_folders(Selection(make_set()), tmp_path / "out")
    assert not any(b"A12-3456" in content for content in contents(tmp_path / "out").values())


def test_the_card_shows_text_from_elsewhere_as_text(make_set, tmp_path):
    index = make_set(warnings=["<script>alert(1)</script> [click](http://x) | a\n# heading"])
    export_folders(Selection(index), tmp_path / "out")
    page = (tmp_path / "out" / "CARD.md").read_text()
    assert "<script" not in page
    assert "[click]" not in page.replace("\\[", "(").replace("\\]", ")")
    assert "\n# heading" not in page
    assert "f" * 64 in page
