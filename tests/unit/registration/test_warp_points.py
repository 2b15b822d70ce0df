"""Points of a table and of GeoJSON through a transform; every file that is none by its error."""

import csv
import json
import os

import numpy as np
import pytest

from hepipe.errors import ConfigError
from hepipe.geometry import Transform, translation
from hepipe.registration import points as module
from hepipe.registration.points import Way, warp_geojson, warp_points, warp_table
from hepipe.registration.transform import invert

SHIFT = Way(Transform(translation(10.0, -0.5), 1.0, 1.0, np.zeros((2, 10, 10), np.float32), 10.0))
"""Covers 100 x 100 px."""


@pytest.fixture
def bent():
    """A turned and bent transform with its stored inverse, as `register` keeps them."""
    rng = np.random.default_rng(4)
    field = rng.normal(0, 1.2, (2, 20, 20)).astype(np.float32)
    affine = np.array([[0.9, 0.4, 60.0], [-0.4, 0.9, 300.0], [0, 0, 1.0]])
    forward = Transform(affine, 0.5, 0.5, field, 20.0)
    return forward, invert(forward, a_size_px0=(800, 800), b_size_px0=(1100, 1100)).transform


def test_a_table_repeats_header_other_columns_and_rows_byte_for_byte():
    text = '\ufeff,X,Y,"Name, long"\r\n1,63,309.25,"a, ""b"""\r\n\r\n  2 ,1e1, 20 ,ü\r\n'
    made, moved = warp_table(text, SHIFT, name="p.csv")
    assert made == ('\ufeff,X,Y,"Name, long",extrapolated\r\n1,73.0,308.75,"a, ""b""",1\r\n\r\n  2 ,20.0,19.5,ü,0\r\n')
    assert (moved.points, moved.extrapolated) == (2, 1)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["id{0}x{0}y", "Y{0}id{0}X", '"X"{0} "Y" {0}note', "X{0}Y"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_separator_order_of_columns_and_last_line_end_are_kept(separator, header, end):
    header = header.format(separator)
    columns = [name.strip(' "').lower() for name in header.split(separator)]
    row = separator.join({"x": "1.5", "y": '"2"'}.get(name, "k") for name in columns)
    made, _ = warp_table(f"{header}\n{row}{end}", SHIFT, name="p.csv")
    expected = separator.join({"x": "11.5", "y": "1.5"}.get(name, "k") for name in columns)
    assert made == f"{header}{separator}extrapolated\n{expected}{separator}0{end}"


def test_empty_lines_stay_where_they_are_and_batches_leave_no_trace(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)
    text = "\r\n \nX,Y\n" + "".join(f"{n},{n}\n\n" for n in range(10))
    made, moved = warp_table(text, SHIFT, name="p.csv")
    assert made == "\r\n \nX,Y,extrapolated\n" + "".join(f"{n + 10.0},{n - 0.5},0\n\n" for n in range(10))
    assert moved.points == 10
    features = [feature({"type": "LineString", "coordinates": [[n, n], [n, 200]]}) for n in range(7)]
    made, moved = warp_geojson(json.dumps(features), SHIFT, name="p.geojson")
    assert [one["geometry"]["coordinates"][0] for one in json.loads(made)] == [[n + 10.0, n - 0.5] for n in range(7)]
    assert (moved.points, moved.extrapolated) == (14, 7)


def test_a_cell_with_line_ends_in_quotes_is_one_cell():
    made, moved = warp_table('x,y,note\n1,2,"two\nlines, here"\n3,4,z\n', SHIFT, name="p.csv")
    assert made == 'x,y,note,extrapolated\n11.0,1.5,"two\nlines, here",0\n13.0,3.5,z,0\n'
    assert moved.points == 2


def test_coordinates_keep_full_precision():
    third = Way(Transform(np.diag([1 / 3, 1 / 7, 1.0]), 1.0, 1.0))
    made, _ = warp_table("X,Y\n100,100\n", third, name="p.csv")
    x, y = next(csv.reader([made.splitlines()[1]]))[:2]
    assert (float(x), float(y)) == (100 * (1 / 3), 100 * (1 / 7))


def test_a_point_beyond_the_field_follows_the_affine_part_and_is_flagged():
    field = np.full((2, 4, 4), 5.0, np.float32)
    way = Way(Transform(translation(1.0, 1.0), 1.0, 1.0, field, 10.0))
    made, moved = warp_table("X,Y\n20,20\n41,20\n20,-0.1\n", way, name="p.csv")
    assert made.splitlines()[1:] == ["26.0,26.0,0", "42.0,21.0,1", "21.0,0.9,1"]
    assert moved.extrapolated == 2


def test_the_way_there_and_back_ends_where_it_began(bent):
    forward, back = bent
    places = np.random.default_rng(1).uniform(100, 700, (200, 2))
    text = "id,X,Y\n" + "".join(f"{n},{x!r},{y!r}\n" for n, (x, y) in enumerate(places.tolist()))
    there, _ = warp_table(text, Way(forward), name="p.csv")
    stored, _ = warp_table(there, Way(back), name="p.csv")
    solved, moved = warp_table(there, Way(back, forward), name="p.csv")

    def error(table):
        found = np.array([[float(row["X"]), float(row["Y"])] for row in csv.DictReader(table.splitlines())])
        return np.linalg.norm(found - places, axis=1).max()

    # The stored inverse alone holds on its grid's nodes only.
    assert error(stored) > 0.2
    assert error(solved) < 1e-3
    assert moved.extrapolated == 0
    assert solved.splitlines()[0] == "id,X,Y,extrapolated"


def test_a_flag_of_the_way_there_survives_the_way_back():
    made, moved = warp_table("X,Y,extrapolated\n1,2,1\n3,4,0\n", SHIFT, name="p.csv")
    assert made == "X,Y,extrapolated\n11.0,1.5,1\n13.0,3.5,0\n"
    assert moved.extrapolated == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n", r"no columns X and Y in its first line, '1,2'; a header with both"),
        ("id,X\n1,2\n", "no columns X and Y in its first line, 'id,X'"),
        ("X,Y,x\n1,2,3\n", "2 columns x, one expected; rename the others"),
        ("X,Y\n", "a header and no points below it"),
        ("X,Y\n1,2\n3\n", "row 3 has 1 columns, its header 2; correct the row"),
        ("X,Y\n1,2,3\n", "row 2 has 3 columns, its header 2"),
        ("X,Y\n1,\n", r"row 2, column Y is '', px of level 0 expected: a number with a point, -10,000,000 to"),
        ("X,Y\n1,nan\n", "row 2, column Y is 'nan', px of level 0 expected"),
        ("X,Y\n-inf,1\n", "row 2, column X is '-inf'"),
        ("X,Y\n1,1e300\n", "row 2, column Y is '1e300'"),
        ("X,Y\n1,1_000\n", "row 2, column Y is '1_000'"),
        ("X;Y\n1,5;2\n", "row 2, column X is '1,5', px of level 0 expected: a number with a point"),
        ("id\tX\tY\n\n7\t1\tabc\n", "row 3, column Y is 'abc'"),
        ("X,Y\n1," + "z" * 500 + "\n", r"column Y is 'z{56}\.\.\.', px"),
        ("X,Y,extrapolated\n1,2,no\n", "row 2, column extrapolated is 'no', 0 or 1 expected; rename it"),
        ('X,Y\n1,2\n1,"2\n3,4\n', "row 3 opens a quote that no row closes"),
    ],
)
def test_a_table_that_is_none_names_row_column_found_and_expected(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        warp_table(text, SHIFT, name="p.csv")
    assert str(caught.value).startswith("p.csv: ")
    assert "\n" not in str(caught.value)


def feature(geometry, **members):
    return {"type": "Feature", "id": "7f", "geometry": geometry, "properties": {"name": "é", "area": 1.5}, **members}


GEOMETRIES = [
    ({"type": "Point", "coordinates": [1, 2]}, {"type": "Point", "coordinates": [11.0, 1.5]}),
    ({"type": "Point", "coordinates": [1, 2, 7]}, {"type": "Point", "coordinates": [11.0, 1.5, 7]}),
    (
        {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]], "plane": {"z": 0}},
        {"type": "MultiPoint", "coordinates": [[11.0, 1.5], [13.0, 3.5]], "plane": {"z": 0}},
    ),
    (
        {"type": "LineString", "coordinates": [[1, 2], [90, 4]]},
        {"type": "LineString", "coordinates": [[11.0, 1.5], [100.0, 3.5]]},
    ),
    (
        {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]], [[2, 1], [3, 1], [3, 2], [2, 1]]]},
        {
            "type": "Polygon",
            "coordinates": [
                [[10.0, -0.5], [19.0, -0.5], [19.0, 8.5], [10.0, -0.5]],
                [[12.0, 0.5], [13.0, 0.5], [13.0, 1.5], [12.0, 0.5]],
            ],
        },
    ),
    (
        {"type": "MultiPolygon", "coordinates": [[[[0, 0], [9, 0], [9, 9], [0, 0]]]]},
        {"type": "MultiPolygon", "coordinates": [[[[10.0, -0.5], [19.0, -0.5], [19.0, 8.5], [10.0, -0.5]]]]},
    ),
    (
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}]},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [11.0, 1.5]}]},
    ),
    ({"type": "Point", "coordinates": [1, 2], "bbox": [1, 2, 1, 2]}, {"type": "Point", "coordinates": [11.0, 1.5]}),
]


@pytest.mark.parametrize(("geometry", "expected"), GEOMETRIES, ids=lambda value: value["type"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: {"type": "FeatureCollection", "features": [one], "name": "all"},
        lambda one: one,
        lambda one: [one],
    ],
    ids=["collection", "feature", "list"],
)
def test_geometries_of_every_kind_move_and_the_rest_is_kept(geometry, expected, wrap):
    nucleus = {"type": "Point", "coordinates": [5, 5]}
    made, _ = warp_geojson(json.dumps(wrap(feature(geometry, nucleusGeometry=nucleus))), SHIFT, name="p.geojson")
    moved = {"type": "Point", "coordinates": [15.0, 4.5]}
    assert json.loads(made) == wrap(feature(expected, nucleusGeometry=moved))
    assert "é" in made


def test_a_feature_with_a_point_beyond_the_field_is_flagged_and_no_other():
    inside = feature({"type": "Point", "coordinates": [50, 50]})
    outside = feature({"type": "LineString", "coordinates": [[50, 50], [150, 50]]})
    bare = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [-1, 0]}, "properties": None}
    made, moved = warp_geojson(json.dumps([inside, outside, bare]), SHIFT, name="p.geojson")
    flags = [one["properties"].get("extrapolated") for one in json.loads(made)]
    assert flags == [None, True, True]
    assert (moved.points, moved.extrapolated) == (4, 2)


def test_a_feature_without_geometry_and_measurements_that_are_nan_pass_through():
    text = '[{"type":"Feature","geometry":null,"properties":{"a":NaN}},' + json.dumps(feature(GEOMETRIES[0][0])) + "]"
    made, moved = warp_geojson(text, SHIFT, name="p.geojson")
    assert '{"type":"Feature","geometry":null,"properties":{"a":NaN}}' in made
    assert moved.points == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "nested without end|no JSON"),
        ("7", "no features; a FeatureCollection, a Feature or a list of Features expected"),
        ('{"type":"FeatureCollection","features":[]}', "no features"),
        ('{"type":"FeatureCollection"}', "no features"),
        ('{"type":"Point","coordinates":[1,2]}', "feature 1 is of type 'Point', Feature expected"),
        ("[7]", "feature 1 is of type 'int', Feature expected"),
        ('[{"type":"Feature","geometry":null}]', "its features hold no positions"),
        ('[{"type":"Feature","geometry":{"type":"Circle"}}]', "geometry is of type 'Circle', one of Point, "),
        ('[{"type":"Feature","geometry":[1,2]}]', "geometry is of type 'None'"),
        ('[{"type":"Feature","geometry":null,"properties":3}]', "feature 1: its properties are no object"),
        ('[{"type":"Feature","geometry":{"type":"Point"}}]', r"geometry \(Point\): coordinates are 'None', a list"),
        (
            '[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[1,2]]}}]',
            r"geometry \(Polygon\), 1, 1: coordinates are '1', a list expected",
        ),
        (
            '[{"type":"Feature","geometry":{"type":"MultiPoint","coordinates":[[1,2],[3]]}}]',
            r"geometry \(MultiPoint\), 2: a position of 1 numbers, x and y expected",
        ),
        (
            '[{"type":"Feature","geometry":{"type":"Point","coordinates":[1,NaN]}}]',
            "y is 'nan', px of level 0 expected",
        ),
        ('[{"type":"Feature","geometry":{"type":"Point","coordinates":[1e999,1]}}]', "x is 'inf'"),
        ('[{"type":"Feature","geometry":{"type":"Point","coordinates":["1",1]}}]', "x is '1', px"),
        ('[{"type":"Feature","geometry":{"type":"Point","coordinates":[true,1]}}]', "x is 'True', px"),
        (
            '[{"type":"Feature","geometry":{"type":"Point","coordinates":[1' + "0" * 4000 + ",1]}}]",
            r"x is '10+\.\.\.', px",
        ),
        (
            '[{"type":"Feature","geometry":{"type":"GeometryCollection","geometries":7}}]',
            "without a list of geometries",
        ),
    ],
)
def test_geojson_that_is_none_names_the_feature_found_and_expected(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        warp_geojson(text, SHIFT, name="p.geojson")
    assert str(caught.value).startswith("p.geojson: ")


def test_a_file_comes_out_whole_and_bytes_of_another_encoding_as_they_were(tmp_path):
    source, target = tmp_path / "a.csv", tmp_path / "deep" / "b.csv"
    source.write_bytes(b"X,Y,name\n1,2,M\xfcller\n")
    assert warp_points(source, target, SHIFT).points == 1
    assert target.read_bytes() == b"X,Y,name,extrapolated\n11.0,1.5,M\xfcller,0\n"
    source.write_bytes(b"X,Y,name\n1,zwei,M\xfcller\n")
    with pytest.raises(ConfigError, match="row 2, column Y is 'zwei'"):
        warp_points(source, target, SHIFT)
    assert target.read_bytes().startswith(b"X,Y,name,extrapolated")
    assert [path.name for path in target.parent.iterdir()] == ["b.csv"]


def test_files_that_cannot_be_used_are_refused_before_they_are_read(tmp_path, monkeypatch):
    source = tmp_path / "a.csv"
    for content, message in ((b"", "is empty"), (b"\xef\xbb\xbf \n", "is empty"), ("X,Y".encode("utf-16"), "no UTF-8")):
        source.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            warp_points(source, tmp_path / "b.csv", SHIFT)
    source.write_bytes(b"X,Y\n1,2\n")
    for target, message in (("b.geojson", "give both one kind"), ("b.xlsx", "rename it by what it holds")):
        with pytest.raises(ConfigError, match=message):
            warp_points(source, tmp_path / target, SHIFT)
    os.link(source, tmp_path / "same.csv")
    with pytest.raises(ConfigError, match="would replace the points it is made from"):
        warp_points(source, tmp_path / "same.csv", SHIFT)
    with source.open("ab") as file:
        file.truncate(1_000_000_000)
    monkeypatch.setattr(module.Path, "read_bytes", None)
    with pytest.raises(ConfigError, match=r"a\.csv: 1000 MB, at most 256 expected; split it"):
        warp_points(source, tmp_path / "b.csv", SHIFT)
