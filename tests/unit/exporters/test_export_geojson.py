import json

import numpy as np
import pytest
from small_exports import PLAN, SIDE, contents, mask, row_of

from hepipe.errors import ConfigError, StoreError
from hepipe.exporters import geojson
from hepipe.exporters.geojson import export_geojson
from hepipe.exporters.selection import Selection
from hepipe.status import OK
from hepipe.stores.cases import CheckedCase, SlideFacts, write_checked
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import TILES, VERDICTS, write_table
from hepipe.tissue.regions import paint, read_regions

CASES = {case: tiles for case, tiles in PLAN.items() if case != "imported"}
SCALE = 2  # px of level 0 per px of a tile: 0.5 against 0.25 µm
SIZE = (640, 480)


@pytest.fixture
def sliced(make_set):
    """A data set whose cases have their tables and records, with a dropped tile and one that waits."""
    index = make_set()
    root = index.parent
    for case, tiles in CASES.items():
        rows = [row_of(tile_id, case, number, split) for number, (tile_id, split) in enumerate(tiles)]
        rows += [row_of(f"{case}/9-{number}", case, 7 + number, "train") for number in range(2)]
        rows = [{name: row[name] for name in TILES.names} for row in rows]
        reasons = [""] * (len(rows) - 2) + ["blur_he", ""]
        verdicts = [
            {"tile_id": row["tile_id"], "keep": not reason, "reason": reason, "flags": [], "alignment": "aligned"}
            for row, reason in zip(rows, reasons, strict=True)
        ]
        made = Provenance(artefact="tiles", subject=case)
        write_table(rows, root / "tiles" / f"{case}.parquet", TILES, made)
        write_table(verdicts, root / "verdict" / f"{case}.parquet", VERDICTS, made)
        he = SlideFacts(
            slide_id=f"{case}-he",
            reader="direct",
            format="svs",
            mpp=0.25,
            mpp_from="file",
            size_px0=SIZE,
            origin_px0=(0, 0),
            downsamples=(1.0,),
            tissue_mm2=1.0,
            content_sha256="",
        )
        checked = CheckedCase(
            case_id=case,
            patient_id="p",
            marker="HER2",
            her2_score=None,
            section="restained",
            he=he,
            ihc=he,
            provenance=Provenance(artefact="checked", subject=case, status=OK),
        )
        write_checked(root / "checked" / f"{case}.json", checked)
    return index


def features(path):
    return json.loads(path.read_text())["features"]


def test_masks_that_our_own_reader_reads_again_lie_where_they_were(sliced, tmp_path):
    export_geojson(Selection(sliced), tmp_path / "out")
    found = read_regions(
        tmp_path / "out" / "c1.dab-00.geojson", slide_id="c1-he", size_px0=SIZE, names={"DAB": "tumour"}
    )
    assert found.notes == ()
    seen = paint(found, shape=SIZE[::-1], px_from_px0=1.0) > 0
    expected = np.zeros(SIZE[::-1], bool)
    for number, (tile_id, _) in enumerate(CASES["c1"]):
        at = 100 + 64 * number
        large = np.kron(mask(tile_id), np.ones((SCALE, SCALE), bool))
        expected[at : at + SIDE * SCALE, at : at + SIDE * SCALE] = large
    np.testing.assert_array_equal(seen, expected)
    assert not expected[100 + 9, 100 + 11]  # the hole
    assert expected[100 + 5, 100 + 7]


def test_tiles_stand_in_their_place_with_their_fate_and_numbers(sliced, tmp_path):
    export_geojson(Selection(sliced), tmp_path / "out")
    tiles = {one["properties"]["name"]: one for one in features(tmp_path / "out" / "c1.tiles.geojson")}
    classes = {name: one["properties"]["classification"]["name"] for name, one in tiles.items()}
    assert classes == {
        "c1/0-0": "kept: train",
        "c1/1-0": "kept: train",
        "c1/1-1": "kept: train",
        "c1/9-0": "dropped: blur_he",
        "c1/9-1": "left out",
    }
    ring = np.array(tiles["c1/1-0"]["geometry"]["coordinates"][0])
    assert ring.min(0).tolist() == [164, 164]
    assert ring.max(0).tolist() == [164 + SIDE * SCALE] * 2
    assert tiles["c1/0-0"]["properties"]["measurements"] == {"tissue_frac": 0.5, "blur_he": 1.5, "ncc_peak": 0.25}
    assert {one["properties"]["objectType"] for one in tiles.values()} == {"tile"}


def test_a_readers_drop_stands_with_its_reason(sliced, tmp_path):
    table = sliced.with_name("curated.csv")
    table.write_text("content_id,tile_id,decision,reason,effect\nx,c1/9-1,drop,fold,dropped\ny,c1/0-0,keep,,kept\n")
    export_geojson(Selection(sliced), tmp_path / "out")
    tiles = {one["properties"]["name"]: one["properties"] for one in features(tmp_path / "out" / "c1.tiles.geojson")}
    assert tiles["c1/9-1"]["classification"] == {"name": "dropped: curation:fold", "color": [200, 40, 40]}
    assert tiles["c1/0-0"]["classification"]["name"] == "kept: train"
    table.write_text("something,else\n1,2\n")
    with pytest.raises(StoreError, match="no table of decisions"):
        export_geojson(Selection(sliced), tmp_path / "out")


def test_tiles_given_back_as_regions_are_not_taken_for_a_persons_outlines(sliced, tmp_path):
    export_geojson(Selection(sliced), tmp_path / "out")
    drawn = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[9, 9], [90, 9], [90, 90], [9, 9]]]},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}},
    }
    both = {"type": "FeatureCollection", "features": [*features(tmp_path / "out" / "c1.tiles.geojson"), drawn]}
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps(both))
    found = read_regions(path, slide_id="c1-he", size_px0=SIZE)
    assert [outline.region for outline in found.outlines] == ["tumour"]
    assert found.notes == ("5 objects that no person drew are left out",)


def test_masks_go_into_files_of_a_bounded_size(sliced, tmp_path, monkeypatch):
    monkeypatch.setattr(geojson, "MOST_TILES", 2)
    export_geojson(Selection(sliced), tmp_path / "out")
    assert [len(features(path)) for path in sorted((tmp_path / "out").glob("c1.dab-*"))] == [2, 1]
    monkeypatch.setattr(geojson, "MOST_CORNERS", 1)
    export_geojson(Selection(sliced), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("c1.dab-*"))) == 3


def test_the_tissue_goes_with_the_tiles(sliced, tmp_path):
    folder = sliced.parent / "tissue"
    folder.mkdir()
    (folder / "c1.geojson").write_text('{"type":"FeatureCollection","features":[]}\n')
    export_geojson(Selection(sliced, cases=["c1"]), tmp_path / "out", masks=False)
    assert {"c1.tiles.geojson", "c1.tissue.geojson"} == {
        name for name in contents(tmp_path / "out") if name.endswith(".geojson")
    }


def test_tiles_of_no_slide_are_refused(make_set, tmp_path):
    with pytest.raises(ConfigError, match="have no place on a slide"):
        export_geojson(Selection(make_set({"imported": PLAN["imported"]})), tmp_path / "out")
