"""Regions as QuPath exports them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from hepipe.errors import SlideError
from hepipe.tissue.regions import NAMES, REGIONS, _plain, paint, read_regions

SIZE = (400, 300)


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(name, *polygons, kind=None, **properties):
    """Polygons (lists of rings) of one class."""
    geometry = {"type": "Polygon", "coordinates": polygons[0]}
    if len(polygons) > 1:
        geometry = {"type": "MultiPolygon", "coordinates": list(polygons)}
    classified = {} if name is None else {"classification": {"name": name, "color": [200, 0, 0]}}
    return {
        "type": "Feature",
        "id": "0b1d6a4e-4d3b-4b4b-9d2c-3d5a3e7a1c11",
        "geometry": geometry,
        "properties": {"objectType": kind or "annotation", **classified, **properties},
    }


@pytest.fixture
def read(tmp_path):
    def read(document, **options):
        path = tmp_path / "regions.geojson"
        if isinstance(document, bytes):
            path.write_bytes(document)
        else:
            path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_regions(path, slide_id="c1-he", size_px0=SIZE, **options)

    return read


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def painted(found, scale=1.0):
    return paint(found, shape=(round(SIZE[1] * scale), round(SIZE[0] * scale)), px_from_px0=scale)


def of(region):
    return REGIONS.index(region) + 1


def test_a_polygon_with_a_hole_covers_what_lies_between_its_rings(read):
    map_ = painted(read(collection(feature("Tumor", [square(10, 20, 100), square(30, 40, 20)]))))
    expected = np.zeros((300, 400), bool)
    expected[20:120, 10:110] = True
    expected[40:60, 30:50] = False
    np.testing.assert_array_equal(map_ == of("tumour"), expected)


def test_parts_of_a_multipolygon_may_overlap(read):
    map_ = painted(read(collection(feature("DCIS", [square(10, 10, 20)], [square(20, 10, 20)]))))
    assert (map_ == of("in_situ")).sum() == 20 * 30


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_a_px_belongs_where_its_centre_does(read, scale):
    corners = np.array([[50.3, 40.2], [180.7, 90.9], [120.1, 260.6], [20.4, 150.8]])
    map_ = painted(read(collection(feature("Invasive", [[*corners.tolist(), corners[0].tolist()]]))), scale)
    x, y = np.meshgrid((np.arange(map_.shape[1]) + 0.5) / scale, (np.arange(map_.shape[0]) + 0.5) / scale)
    inside = np.ones(map_.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
    np.testing.assert_array_equal(map_ == of("invasive"), inside)


def test_the_smaller_of_two_regions_holds_and_exclude_always_does(read):
    small, large = feature("Necrosis", [square(40, 40, 20)]), feature("Tumor", [square(10, 10, 200)])
    out = feature("Ignore*", [square(0, 0, 250)])
    for order in ([small, large], [large, small]):
        map_ = painted(read(collection(*order)))
        assert map_[50, 50] == of("necrosis")
        assert map_[100, 100] == of("tumour")
    assert set(np.unique(painted(read(collection(small, large, out))))) == {0, of("exclude")}


@pytest.mark.parametrize("name", ["In situ", "IN-SITU", "in_situ", " insitu "])
def test_classes_are_known_whatever_their_case_and_spaces(read, name):
    assert read(collection(feature(name, [square(10, 10, 20)]))).outlines[0].region == "in_situ"


def test_every_class_has_its_own_name_among_the_known_ones():
    assert all(NAMES[region] == region for region in REGIONS)


def test_the_documentation_lists_the_names_and_regions_in_order():
    table = (Path(__file__).parents[3] / "docs/regions.md").read_text().split("| region | classes in QuPath |")[1]
    rows = [line.split("|")[1:3] for line in table.split("\n\n")[0].splitlines()[2:]]
    told = {}
    for region, names in rows:
        known = region.strip(" `").replace("–", "ignore")
        told |= {_plain(name.replace("\\", "")): known for name in names.split(",")}
    assert told == NAMES
    assert tuple(dict.fromkeys(told.values())) == (*REGIONS, "ignore")


def test_a_name_of_ones_own_is_told_in_the_config(read):
    document = collection(feature("Stroma", [square(0, 0, 20)]), feature("Grade 3", [square(50, 50, 20)]))
    found = read(document, names={"stroma": "ignore", "grade 3": "invasive"})
    assert [one.region for one in found.outlines] == ["invasive"]
    assert found.notes == ("1 areas of a class to ignore are left out",)


@pytest.mark.parametrize(
    "document",
    [
        feature("Tumor", [square(10, 10, 20)]),
        [feature("Tumor", [square(10, 10, 20)])],
        collection(collection(feature("Tumor", [square(10, 10, 20)]))),
        collection(
            {
                **feature("Tumor", [square(10, 10, 20)]),
                "geometry": {
                    "type": "GeometryCollection",
                    "geometries": [
                        {"type": "Point", "coordinates": [5, 5]},
                        {"type": "Polygon", "coordinates": [square(10, 10, 20)]},
                    ],
                },
            }
        ),
    ],
)
def test_features_are_found_in_every_wrapping(read, document):
    assert (painted(read(document)) == of("tumour")).sum() == 400


def test_cells_and_points_are_left_out_and_counted(read):
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [5, 5]}, "properties": {}}
    cell = feature(None, [square(10, 10, 5)], kind="detection")
    found = read(collection(feature("Tumor", [square(10, 10, 20)]), point, cell, cell))
    assert len(found.outlines) == 1
    assert found.notes == (
        "1 objects that are no area are left out",
        "2 objects that no person drew are left out",
    )


def test_what_reaches_beyond_the_slide_is_said(read):
    found = read(collection(feature("Tumor", [square(350, 250, 100)])))
    assert "reach beyond the slide" in found.notes[0]
    assert (painted(found) == of("tumour")).sum() == 50 * 50


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (collection(feature("Stroma", [square(0, 0, 20)])), r"class 'Stroma' of feature 1 is not known; known are tum"),
        (collection(feature(None, [square(0, 0, 20)])), "feature 1 has no class"),
        (collection(feature("Tumor", [square(0, 0, 20)]), feature("Tumor", [square(500, 0, 20)])), "feature 2 lies be"),
        (collection(feature("Tumor", [[[0, 0], [5, 5]]])), "three or more positions"),
        (collection(feature("Tumor", [[[0, 0], [5, "5"], [1, 1]]])), "three or more positions"),
        (collection(feature("Tumor", [[[0, 0], [5], [1, 1]]])), "three or more positions"),
        (collection(feature("Tumor", [[[0, 0], [5, 1e8], [1, 1]]])), "no px of a slide"),
        (json.dumps(collection(feature("Tumor", [square(0, 0, 7)]))).replace("7", "1e999"), "no px of a slide"),
        (json.dumps(collection(feature("Tumor", [square(0, 0, 7)]))).replace("7", "NaN"), "the file holds NaN, which"),
        (collection(feature("Tumor", [])), "no rings"),
        (collection({"type": "Feature", "geometry": 3}), "the geometry of feature 1"),
        (collection({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": 3}}), "has no list"),
        (collection({**feature("Tumor", [square(0, 0, 20)]), "properties": [1]}), "the properties of feature 1"),
        (collection(3), "feature 1 is no Feature"),
        (collection(), "no outlined area"),
        ("", "no GeoJSON"),
        ("[" * 100_000, "no GeoJSON"),
        (b"\xff\xfe\x00", "no GeoJSON"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(read, document, words):
    with pytest.raises(SlideError, match=words) as caught:
        read(document)
    assert caught.value.reason.startswith("regions: ")


def test_a_class_that_is_no_plain_word_does_not_get_into_the_verdict(read):
    with pytest.raises(SlideError, match="a class of a strange name") as caught:
        read(collection(feature("see letter to Dr. Meyer, 12.3.1961; born (!)", [square(0, 0, 20)])))
    assert "Meyer" not in caught.value.reason


def test_a_missing_file_is_told_without_its_name(tmp_path):
    with pytest.raises(SlideError, match="no such file") as caught:
        read_regions(tmp_path / "meyer.geojson", slide_id="c1-he", size_px0=SIZE)
    assert "meyer" not in str(caught.value)


def test_sizes_are_bounded(read, monkeypatch):
    document = collection(*[feature("Tumor", [square(10, 10, 20)])] * 3)
    for name, limit, words in (
        ("MAX_OUTLINES", 2, "more than 2 areas"),
        ("MAX_VERTICES", 14, "more than 14 corners"),
        ("MAX_BYTES", 100, "at most 0 expected"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"hepipe.tissue.regions.{name}", limit)
            with pytest.raises(SlideError, match=words):
                read(document)
    monkeypatch.setattr("hepipe.tissue.polygons.MAX_CROSSINGS", 10)
    with pytest.raises(SlideError, match="endless turns"):
        painted(read(document))
