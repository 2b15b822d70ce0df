import numpy as np
import pytest

from hepipe.specs.slides import TissueSpec
from hepipe.tissue.clean import clean
from hepipe.tissue.find import find_tissue
from hepipe.tissue.otsu import is_ink, mean_od, threshold_tissue, white_point
from hepipe.tissue.pieces import label_pieces

GLASS = (244, 243, 245)
NONE = {"close_um": 0.0, "min_hole_um2": 0.0, "min_piece_um2": 0.0}


def slide(*areas, shape=(60, 60)):
    """Glass with grain and rectangles ((top, bottom, left, right), colour)."""
    rgb = np.empty((*shape, 3))
    rgb[:] = GLASS
    for (top, bottom, left, right), color in areas:
        rgb[top:bottom, left:right] = color
    return np.clip(rgb + np.random.default_rng(0).normal(0, 1.5, rgb.shape), 0, 254).astype(np.uint8)


@pytest.mark.parametrize("channel", ["od", "saturation"])
def test_a_stained_square_is_tissue_and_glass_is_not(channel):
    found = threshold_tissue(slide(((10, 50, 10, 40), (200, 120, 170))), channel=channel)
    inner = np.zeros((60, 60), bool)
    inner[12:48, 12:38] = True
    outer = np.zeros((60, 60), bool)
    outer[8:52, 8:42] = True
    assert found[inner].all()
    assert not found[~outer].any()


def test_pale_tissue_beside_dark_tissue_is_still_tissue():
    found = threshold_tissue(slide(((10, 50, 10, 30), (90, 30, 60)), ((10, 50, 30, 50), (212, 208, 220))))
    assert found[14:46, 14:46].all()


def test_a_picture_of_glass_has_no_tissue():
    assert not threshold_tissue(slide()).any()


@pytest.mark.parametrize("ink", [(20, 20, 25), (40, 140, 60), (30, 50, 160)])
def test_a_pen_mark_is_not_tissue(ink):
    rgb = slide(((10, 30, 10, 50), (190, 110, 160)), ((40, 52, 10, 50), ink))
    found = threshold_tissue(rgb)
    assert found[12:28, 12:48].all()
    assert not found[42:50, 12:48].any()


@pytest.mark.parametrize("color", [(90, 70, 140), (120, 70, 40), (200, 60, 120), (60, 40, 30)])
def test_dense_stain_is_not_taken_for_ink(color):
    assert not is_ink(np.full((2, 2, 3), color, np.uint8)).any()


def test_the_white_point_ignores_what_lies_beyond_the_slide():
    rgb = np.full((20, 20, 3), 255, np.uint8)
    rgb[:, :8] = (230, 232, 228)
    np.testing.assert_allclose(white_point(rgb), (230, 232, 228))
    assert mean_od(rgb).max() == pytest.approx(0.0, abs=1e-6)


def test_small_holes_are_filled_and_large_ones_kept():
    mask = np.ones((40, 40), bool)
    mask[5:8, 5:8] = False
    mask[20:32, 20:32] = False
    made = clean(mask, mpp=2.0, **{**NONE, "min_hole_um2": 100.0})
    assert made[5:8, 5:8].all()
    assert not made[20:32, 20:32].any()


def test_small_pieces_are_dropped_by_their_area_in_square_micrometres():
    mask = np.zeros((40, 40), bool)
    mask[2:5, 2:5] = True
    mask[10:30, 10:30] = True
    assert clean(mask, mpp=2.0, **{**NONE, "min_piece_um2": 36.0})[2:5, 2:5].all()
    assert not clean(mask, mpp=2.0, **{**NONE, "min_piece_um2": 37.0})[2:5, 2:5].any()


def test_closing_joins_what_is_near_and_leaves_the_border_alone():
    mask = np.ones((30, 30), bool)
    mask[:, 14:16] = False
    made = clean(mask, mpp=4.0, **{**NONE, "close_um": 8.0})
    assert made.all()
    assert not clean(np.zeros((30, 30), bool), mpp=4.0, **{**NONE, "close_um": 8.0}).any()


def test_pieces_are_numbered_from_the_largest():
    mask = np.zeros((20, 20), bool)
    mask[1:4, 1:4] = True
    mask[8:18, 8:18] = True
    labels = label_pieces(mask)
    assert labels[10, 10] == 1
    assert labels[2, 2] == 2
    assert labels[6, 6] == 0


def test_finding_tissue_cleans_by_the_section_of_the_config():
    rgb = slide(((10, 50, 10, 40), (200, 120, 170)), ((2, 6, 52, 56), (200, 120, 170)))
    strict = find_tissue(rgb, mpp=8.0, spec=TissueSpec())
    loose = find_tissue(rgb, mpp=8.0, spec=TissueSpec(min_piece_um2=0.0))
    assert not strict[3, 53]
    assert loose[3, 53]


@pytest.mark.parametrize("channel", ["od", "saturation"])
@pytest.mark.parametrize("smooth_px", [0.0, 1.0, 2.7])
def test_rows_taken_a_few_at_a_time_give_the_same_mask(monkeypatch, channel, smooth_px):
    rgb = slide(((10, 50, 10, 40), (200, 120, 170)), ((5, 9, 3, 50), (20, 20, 25)), shape=(61, 57))
    whole = threshold_tissue(rgb, channel=channel, smooth_px=smooth_px)
    for rows in (3, 16):
        monkeypatch.setattr("hepipe.tissue.otsu.STRIP_PX", rows * 57)
        np.testing.assert_array_equal(threshold_tissue(rgb, channel=channel, smooth_px=smooth_px), whole)


def test_the_white_point_is_numpys_percentile():
    random = np.random.default_rng(3)
    for shape in ((1, 1), (7, 5), (40, 41)):
        rgb = random.integers(100, 256, (*shape, 3)).astype(np.uint8)
        seen = rgb.reshape(-1, 3)[(rgb.reshape(-1, 3) < 255).any(axis=1)]
        np.testing.assert_allclose(white_point(rgb), np.maximum(np.percentile(seen, 95, axis=0), 128), rtol=1e-12)


def test_a_given_mask_is_left_as_it_was():
    mask = np.random.default_rng(0).random((40, 50)) < 0.5
    before = mask.copy()
    clean(mask, mpp=8.0, close_um=0.0, min_hole_um2=500.0, min_piece_um2=500.0)
    np.testing.assert_array_equal(mask, before)
