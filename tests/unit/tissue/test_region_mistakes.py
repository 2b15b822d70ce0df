"""Outlines as strangers write them: crossing themselves, in another order, unit or level."""

import json

import numpy as np
import pytest
from skimage.measure import points_in_poly

from hepipe.errors import SlideError
from hepipe.tissue.polygons import crossing, fill, winding
from hepipe.tissue.regions import likely_slip, paint, read_regions

SIZE = (40_000, 24_000)


def box(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


@pytest.fixture
def read(tmp_path):
    def read(*rings, kind="Tumor", size_px0=SIZE, mpp=0.25):
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [np.asarray(ring).tolist()]},
                "properties": {"objectType": "annotation", "classification": {"name": kind}},
            }
            for ring in rings
        ]
        path = tmp_path / "regions.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return read_regions(path, slide_id="c1-he", size_px0=size_px0, mpp=mpp)

    return read


BOW = [[1000, 1000], [3000, 3000], [3000, 1000], [1000, 3000], [1000, 1000]]
SPIRAL = np.array([[0, 0], [9, 0], [9, 9], [1, 9], [1, 3], [6, 3], [6, 6], [0, 6], [0, 0]]) * 300 + 1000
"""A line that goes on around a part of what it has been around."""


def test_winding_agrees_with_another_programs_insides(read):
    random = np.random.default_rng(4)
    for _ in range(20):
        ring = random.uniform(0, 30, (7, 2))
        wound = winding(ring, (30, 30), "c1-he")
        y, x = np.mgrid[:30, :30] + 0.5
        odd = points_in_poly(np.stack([x.ravel(), y.ravel()], axis=1), ring).reshape(30, 30)
        np.testing.assert_array_equal(wound % 2 == 1, odd)
        np.testing.assert_array_equal(fill([ring], (30, 30), "c1-he"), odd)


def test_winding_counts_turns_with_their_sense():
    twice = np.array([[0, 0], [10, 0], [10, 10], [0, 10]] * 2, np.float64)
    assert (winding(twice, (10, 10), "c1-he") == winding(twice[::-1], (10, 10), "c1-he") * -1).all()
    assert set(np.abs(winding(twice, (10, 10), "c1-he")).ravel()) == {2}


def test_a_plain_outline_is_not_said_to_cross_itself(read):
    circle = np.stack([np.cos(np.arange(0, 6.28, 0.01)), np.sin(np.arange(0, 6.28, 0.01))], axis=1)
    star = circle[::20] * np.where(np.arange(len(circle[::20])) % 2, 1, 0.3)[:, None]
    touching = [[0, 0], [400, 0], [400, 400], [200, 0], [0, 400]]
    for ring in (circle * 900 + 2000, star * 900 + 2000, touching, box(9, 9, 800, 300)):
        assert crossing(np.asarray(ring, np.float64), "c1-he") is None
        assert read([*np.asarray(ring).tolist()] if len(ring) != 5 else np.asarray(ring) + 1000).notes == ()


def test_a_bow_tie_keeps_both_of_its_wings_and_says_so(read):
    found = read(BOW)
    assert found.notes == ("1 outlines cross themselves; all that their lines go around counts as inside",)
    # By the shoelace its wings cancel, and it would be left out as an area of no extent.
    assert found.outlines[0].area_px0 == pytest.approx(2000 * 2000 / 2, rel=0.01)
    map_ = paint(found, shape=(240, 400), px_from_px0=0.01)
    assert (map_ > 0).sum() == pytest.approx(20 * 20 / 2, abs=12)


def test_an_outline_that_goes_around_a_part_twice_is_nobodys_guess(read):
    with pytest.raises(SlideError, match=r"the line of feature 2 crosses itself and goes around \d+\.\d% of its area"):
        read(box(10, 10, 5000, 5000), SPIRAL)


def test_a_speck_that_a_hand_goes_around_twice_stops_nothing(read):
    ring = box(1000, 1000, 9000, 9000)
    loop = [[1000, 5000], [1090, 5000], [1090, 5100], [1000, 5050]]
    assert len(read([*ring[:4], *loop, ring[4]]).outlines) == 1


@pytest.mark.parametrize(
    ("ring", "words"),
    [
        (np.array(box(30_000, 2_000, 9_000, 9_000))[:, ::-1], r"with x and y changed over it would lie on it; GeoJSON"),
        (np.array(box(3_000, 2_000, 9_000, 9_000)) * (1, -1), "with the sign of y turned it would lie on it"),
        (np.array(box(3_000, 90_000, 9_000, 9_000)), "another slide's file, or not px of level 0"),
    ],
)
def test_an_outline_beside_the_slide_is_told_with_what_would_put_it_there(read, ring, words):
    with pytest.raises(SlideError, match=r"feature 1 lies beside the slide \(x .*: " + words):
        read(ring)


def test_micrometres_of_large_px_are_told_beside_the_slide(read):
    with pytest.raises(SlideError, match="as µm it would lie on it; positions are px of level 0: divide by"):
        read(box(3_000, 2_000, 1_000, 900), size_px0=(2_000, 1_500), mpp=4.0)


@pytest.mark.parametrize(
    ("ring", "words"),
    [
        ([[16.37, 48.2], [16.38, 48.2], [16.38, 48.21], [16.37, 48.2]], "within ±180 and ±90: degrees"),
        (box(-170, -80, 300, 160), "within ±180 and ±90: degrees"),
        (box(0.1, 0.2, 0.5, 0.5), "from 0 to 1: shares of the slide"),
    ],
)
def test_positions_of_a_map_are_no_px(read, ring, words):
    with pytest.raises(SlideError, match=f"all positions lie {words}"):
        read(ring)


def test_a_small_picture_may_have_small_outlines(read):
    assert len(read(box(10, 10, 60, 40), size_px0=(400, 300)).outlines) == 1


TISSUE = np.zeros((240, 400), bool)
TISSUE[30:90, 250:380] = True  # px of 100 px of level 0
MEANT = np.array(box(26_000, 4_000, 10_000, 4_000), np.float64)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (MEANT * 0.25, "as µm 100% of it would be tissue; positions are px of level 0: divide"),
        (MEANT / 16, "as px of a level 16 times smaller 100% of it would be tissue"),
        (MEANT * (1, -1) + (0, SIZE[1]), "with y counted from the lower edge 100% of it would be tissue"),
    ],
)
def test_outlines_that_miss_the_tissue_are_told_what_would_put_them_onto_it(read, written, words):
    found = read(written, mpp=0.25)
    said = likely_slip(found, TISSUE, px_from_px0=0.01, size_px0=SIZE, mpp=0.25)
    assert said.startswith(words)


def test_changed_over_positions_within_the_slide_are_told_by_the_tissue(read):
    tissue = np.zeros((240, 240), bool)
    tissue[20:60, 150:220] = True
    found = read(np.array(box(16_000, 3_000, 5_000, 2_000))[:, ::-1], size_px0=(24_000, 24_000))
    said = likely_slip(found, tissue, px_from_px0=0.01, size_px0=(24_000, 24_000), mpp=0.25)
    assert said.startswith("with x and y changed over 100% of it would be tissue; GeoJSON's positions are [x, y]")


def test_outlines_of_another_slide_are_not_explained_away(read):
    found = read(box(100, 20_000, 3_000, 3_000))
    assert likely_slip(found, TISSUE, px_from_px0=0.01, size_px0=SIZE, mpp=0.25) == ""
