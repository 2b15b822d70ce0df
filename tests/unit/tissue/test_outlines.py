"""Masks as polygons for QuPath, and the way back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.tissue.outlines import geojson, trace, write_outlines
from hepipe.tissue.regions import REGIONS, paint, read_regions


def test_a_square_with_a_hole_is_two_rings_of_four_corners():
    mask = np.zeros((8, 9), bool)
    mask[1:7, 2:8] = True
    mask[3:5, 4:6] = False
    (polygon,) = trace(mask)
    assert [sorted(map(tuple, ring.tolist())) for ring in polygon] == [
        [(2, 1), (2, 7), (8, 1), (8, 7)],
        [(4, 3), (4, 5), (6, 3), (6, 5)],
    ]


def test_parts_that_touch_at_a_corner_are_apart():
    assert [len(polygon) for polygon in trace(np.eye(3, dtype=bool))] == [1, 1, 1]


def test_an_empty_mask_has_no_polygon():
    assert trace(np.zeros((3, 3), bool)) == []


def back(text, tmp_path, shape, scale, size):
    path = tmp_path / "back.geojson"
    write_outlines(path, text)
    return paint(read_regions(path, slide_id="c1-he", size_px0=size), shape=shape, px_from_px0=1 / scale)


@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.2, 0.8), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_polygons_give_the_mask_again(tmp_path_factory, height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    if not mask.any():
        return
    text = geojson({"tumour": mask}, px0_from_px=32.0, size_px0=(width * 32, height * 32))
    found = back(text, tmp_path_factory.mktemp("t"), mask.shape, 32.0, (width * 32, height * 32))
    np.testing.assert_array_equal(found == 1, mask)


@pytest.mark.parametrize("scale", [31.7, 16.0])
def test_regions_of_every_class_come_back_and_tissue_is_none(tmp_path, scale):
    numbers = np.random.default_rng(1).integers(0, len(REGIONS) + 1, size=(12, 10)).repeat(3, 0).repeat(3, 1)
    areas = {"tissue": numbers > 0, "taken_out": numbers == 0}
    areas |= {region: numbers == place for place, region in enumerate(REGIONS, start=1)}
    size = (int(30 * scale), int(36 * scale))
    found = back(geojson(areas, px0_from_px=scale, size_px0=size), tmp_path, numbers.shape, scale, size)
    np.testing.assert_array_equal(found, numbers)


def test_what_qupath_wants_of_an_annotation_is_there():
    mask = np.ones((2, 2), bool)
    document = json.loads(geojson({"tissue": mask, "exclude": ~mask}, px0_from_px=10.0, size_px0=(19, 20)))
    (only,) = document["features"]
    assert only["properties"]["objectType"] == "annotation"
    assert only["properties"]["classification"] == {"name": "tissue", "color": [20, 60, 200]}
    (ring,) = only["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert max(x for x, _ in ring) == 19
