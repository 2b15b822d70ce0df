"""The curation page as files: what is on its sheets, what its data say, and that a build goes on where it stopped."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from curation_sets import write_set
from PIL import Image

from hepipe.dataset.curation import content_id
from hepipe.dataset.decisions import read_content_ids
from hepipe.errors import ConfigError, StoreError
from hepipe.report import curation_page as module
from hepipe.report.curation_page import SIDE, read_set, write_page
from hepipe.stores.tables import TILES, read_table


def embedded(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found.group(1))


def built(folder, **options):
    write_page(read_set(folder), folder / "curation", reader="ann", thumb_px=8, **options)
    return embedded((folder / "curation" / "index.html").read_text(encoding="utf-8"))


def test_every_pair_is_on_its_sheet_he_left_and_ihc_right(tmp_path):
    data = built(write_set(tmp_path / "set"))
    assert data["tile_id"][13] == "b/1-0"
    assert len(data["sheets"]) == 2
    sheet = np.asarray(Image.open(tmp_path / "set/curation/sheets" / data["sheets"][13 // SIDE**2]))
    top, left = 13 % SIDE**2 // SIDE * 8, 13 % SIDE * 16
    np.testing.assert_allclose(sheet[top + 4, left + 4], 11, atol=3)
    np.testing.assert_allclose(sheet[top + 4, left + 12], (199, 150, 90), atol=6)


def test_the_data_are_the_tables_own(tmp_path):
    folder = write_set(tmp_path / "set")
    data = built(folder)
    rows = [row for case in "ab" for row in read_table(folder / f"tiles/{case}.parquet", TILES)]
    assert data["content_id"] == [content_id(row) for row in rows]
    assert data["passes"] == [int(number % 6 != 5) for number in range(12)] * 2
    assert data["numbers"]["shift_um"][2:5] == [0.2, None, 0.4]
    assert data["numbers"]["blur_he"][5] == 0.9
    assert data["limits"]["restained"]["blur_he"] == [None, 0.75]
    words = {kind: [of["names"][code] for code in of["codes"]] for kind, of in data["words"].items()}
    assert words["reason"][4:6] == ["", "blur_he"]
    assert words["case"][11:13] == ["a", "b"]


def test_the_page_asks_nobody_and_runs_nothing_but_its_own_script(tmp_path):
    built(write_set(tmp_path / "set"))
    page = (tmp_path / "set/curation/index.html").read_text(encoding="utf-8")
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "").replace('.startsWith("http")', "")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    styles, scripts = (re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL) for name in ("style", "script"))
    assert module.policy(styles[0], scripts[-1]) == policy


def test_what_a_table_says_cannot_write_into_the_page(tmp_path):
    bad = "</script><script>alert(1)</script>"
    folder = write_set(tmp_path / "set", changes={"a/0-0": {"case_id": bad, "region": bad}})
    data = built(folder)
    assert "alert(1)</script>" not in (folder / "curation/index.html").read_text(encoding="utf-8")
    assert bad in data["words"]["case"]["names"]


def test_a_build_that_was_stopped_makes_only_what_is_missing(tmp_path, monkeypatch):
    folder = write_set(tmp_path / "set")
    data = built(folder, view_px=16)
    sheets, pictures = folder / "curation/sheets", folder / "curation/pictures-16"
    before = {path: path.read_bytes() for path in (*sheets.iterdir(), *pictures.iterdir())}
    assert len(before) == 2 + 24
    (sheets / data["sheets"][1]).unlink()
    (sheets / "0123456789abcdef.jpg").touch()
    (sheets / "notes.txt").touch()
    read, real = [], module.CurationSet.read
    monkeypatch.setattr(module.CurationSet, "read", lambda self, number: read.append(number) or real(self, number))
    assert built(folder, view_px=16) == data
    assert read == list(range(16, 24))
    after = {path: path.read_bytes() for path in (*sheets.iterdir(), *pictures.iterdir())}
    assert after == before | {sheets / "notes.txt": b""}


def test_any_number_of_threads_writes_the_same_page(tmp_path):
    folder = write_set(tmp_path / "set", n_tiles=40)
    pages = []
    for workers in (1, 3):
        out = tmp_path / str(workers)
        write_page(read_set(folder), out, reader="ann", thumb_px=8, workers=workers)
        pages.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.*") if path.is_file()})
    assert pages[0] == pages[1]


def test_the_larger_pictures_are_never_larger_than_the_tiles(tmp_path):
    folder = write_set(tmp_path / "set")
    data = built(folder, view_px=512)
    assert data["pictures"] == "pictures-512"
    picture = Image.open(folder / "curation/pictures-512" / f"{data['content_id'][0]}.jpg")
    assert picture.size == (32, 16)


def test_tiles_without_pixels_are_left_out_and_twins_are_shown_once(tmp_path):
    gone = {"problem": "damaged", "row_in_store": None, "he_sha256": None, "ihc_sha256": None}
    twin = {"he_sha256": "same", "ihc_sha256": "same"}
    folder = write_set(tmp_path / "set", changes={"a/2-0": gone, "a/3-0": twin, "b/3-0": twin})
    data = built(folder)
    assert len(data["tile_id"]) == 22
    assert data["twins"][data["tile_id"].index("a/3-0")] == 1


def test_a_damaged_tile_is_crossed_out_and_the_others_are_there_until_the_store_is_whole_again(tmp_path):
    folder = write_set(tmp_path / "set")
    whole = built(folder, view_px=16)
    shutil.rmtree(folder / "curation")
    shards = [path for path in (folder / "tiles/b.zarr/he").rglob("*") if path.is_file()]
    shard = max(shards, key=lambda path: path.stat().st_size)
    before = shard.read_bytes()
    shard.write_bytes(before[:4] + bytes([before[4] ^ 255]) + before[5:])
    for _ in range(2):
        told = write_page(read_set(folder), folder / "curation", reader="ann", thumb_px=8, view_px=16)
        assert "1 pairs cannot be read and are crossed out, such as b/0-0" in told
    assert len(list((folder / "curation/pictures-16").iterdir())) == 23
    shard.write_bytes(before)
    module._store.cache_clear()
    assert built(folder, view_px=16) == whole
    assert sorted(path.name for path in (folder / "curation/sheets").iterdir()) == sorted(whole["sheets"])


def test_some_pairs_alone_can_be_shown(tmp_path):
    folder = write_set(tmp_path / "set")
    keys = [pair.content_id for pair in read_set(folder).pairs]
    (tmp_path / "some.csv").write_text(f"tile_id;content_id\nx;{keys[3]}\ny;{keys[20]}\nz;\n")
    only = read_content_ids(tmp_path / "some.csv")
    assert [pair.content_id for pair in read_set(folder, only=only).pairs] == [keys[3], keys[20]]
    with pytest.raises(ConfigError, match="none of the 1 pairs asked for"):
        read_set(folder, only=["0" * 32])
    (tmp_path / "none.csv").write_text("tile_id,id\na,b\n")
    with pytest.raises(ConfigError, match="no content id in a column content_id"):
        read_content_ids(tmp_path / "none.csv")


def test_a_mistake_of_a_person_is_told(tmp_path):
    folder = write_set(tmp_path / "set")
    with pytest.raises(ConfigError, match="no tiles of z; there are a, b"):
        read_set(folder, ["z"])
    with pytest.raises(ConfigError, match="no tiles of z; there are none"):
        read_set(tmp_path, ["z"])
    with pytest.raises(ConfigError, match="at most 32 letters"):
        write_page(read_set(folder), tmp_path / "out", reader="../ann")
    for reasons in ((), ("a", "a"), ("=1+1",), tuple("abcdefghij")):
        with pytest.raises(ConfigError, match="one to 9 different ones"):
            write_page(read_set(folder), tmp_path / "out", reader="ann", reasons=reasons)
    write_set(tmp_path / "other", cases=("a",), n_tiles=3)
    (tmp_path / "other/verdict/a.parquet").replace(folder / "verdict/a.parquet")
    with pytest.raises(StoreError, match="verdicts on other tiles"):
        read_set(folder)


def test_a_picture_holds_both_stains_and_no_metadata():
    he, ihc = (np.full((16, 16, 3), value, np.uint8) for value in (40, 200))
    content = module.jpeg(module.side_by_side(he, ihc, 32), 92)
    picture = Image.open(io.BytesIO(content))
    assert picture.size == (64, 32)
    assert not picture.getexif()
    np.testing.assert_allclose(np.asarray(picture)[16, [8, 56]], [[40] * 3, [200] * 3], atol=3)
