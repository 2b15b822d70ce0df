import math

import cv2
import numpy as np
import pytest

from hepipe.specs.stains import StainsSpec
from hepipe.stains.atst_mask import atst_mask
from hepipe.stains.dab import closing_um, dab_mask, otsu_od, tile_mask
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import DAB, HAEMATOXYLIN, stain_matrix

PLAIN = StainsSpec(dab_sigma_um=0, dab_open_um=0, dab_close_um=0)


def two_classes():
    rng = np.random.default_rng(2)
    od = rng.normal(0.1, 0.03, (64, 64)).clip(0).astype(np.float32)
    od[20:40, 20:40] = rng.normal(0.8, 0.05, (20, 20))
    return od


def test_otsu_agrees_with_a_second_implementation():
    od = two_classes()
    quantised = np.floor((1 - 10**-od) * 256).astype(np.uint8)
    _, other = cv2.threshold(quantised, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    np.testing.assert_array_equal(od > otsu_od(od), other.astype(bool))


def test_a_patch_of_dab_is_the_mask():
    expected = np.zeros((64, 64), bool)
    expected[20:40, 20:40] = True
    np.testing.assert_array_equal(dab_mask(two_classes(), mpp=0.5, spec=PLAIN), expected)


def test_a_tile_without_dab_has_an_empty_mask():
    od = np.random.default_rng(3).uniform(0, 0.12, (64, 64)).astype(np.float32)
    assert not dab_mask(od, mpp=0.5, spec=StainsSpec()).any()


def test_a_flat_tile_above_the_floor_is_positive_only_by_the_floor():
    assert otsu_od(np.zeros((8, 8), np.float32)) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("mpp", "closed"), [(0.5, True), (5.0, False)])
def test_radii_are_physical(mpp, closed):
    od = np.zeros((32, 32), np.float32)
    od[8:24, 8:24] = 1
    od[15:17, 8:24] = 0
    mask = dab_mask(od, mpp=mpp, spec=StainsSpec(dab_sigma_um=0, dab_close_um=2))
    assert mask[15:17, 12:20].all() == closed


def test_opening_removes_specks():
    od = two_classes()
    od[5, 5] = 1
    spec = StainsSpec(dab_sigma_um=0, dab_open_um=1, dab_close_um=0)
    assert dab_mask(od, mpp=0.5, spec=PLAIN)[5, 5]
    assert not dab_mask(od, mpp=0.5, spec=spec)[5, 5]


OF_DAB = Separator(stain_matrix(HAEMATOXYLIN, DAB), stains=(1,))


def brown(od):
    """A tile with as much DAB as the plane says, on white."""
    unit = np.array(DAB) / np.linalg.norm(DAB)
    return np.clip(np.rint(255 * 10 ** -(od[..., None] * unit)), 0, 255).astype(np.uint8)


def two_patches(gap_px):
    od = np.zeros((80, 80), np.float32)
    od[30:50, 10 : 40 - gap_px // 2] = od[30:50, 40 + gap_px // 2 : 70] = 0.8
    return od


def test_each_method_finds_a_patch_of_dab():
    od = np.zeros((80, 80), np.float32)
    od[20:60, 20:60] = 0.8
    for spec in (
        StainsSpec(),
        StainsSpec(dab_method="absolute", dab_thresholds_od=(0.2, 0.4, 0.6)),
        StainsSpec(dab_method="atst", dab_close_um=1),
    ):
        mask = tile_mask(brown(od), mpp=0.5, spec=spec, of_dab=OF_DAB)
        assert (mask != (od > 0)).mean() < 0.05, spec.dab_method


def test_an_absolute_threshold_is_the_same_for_every_tile():
    spec = StainsSpec(dab_method="absolute", dab_thresholds_od=(0.3, 0.4, 0.6))
    for level, positive in ((0.28, False), (0.32, True)):
        mask = tile_mask(brown(np.full((40, 40), level)), mpp=0.5, spec=spec, of_dab=OF_DAB)
        assert mask.all() == mask.any() == positive


def test_the_recipe_takes_no_slide_s_vectors():
    tile = brown(two_patches(10))
    other = Separator(stain_matrix((0.3, 0.9, 0.3), (0.5, 0.5, 0.7)), stains=(1,))
    expected = atst_mask(tile, close_px=30).mask
    np.testing.assert_array_equal(
        tile_mask(tile, mpp=0.4661, spec=StainsSpec(dab_method="atst"), of_dab=other), expected
    )


@pytest.mark.parametrize(("method", "closed"), [("otsu_od", False), ("atst", True)])
def test_the_recipe_closes_by_14_um_and_ours_by_1(method, closed):
    mask = tile_mask(brown(two_patches(16)), mpp=0.5, spec=StainsSpec(dab_method=method), of_dab=OF_DAB)
    assert mask[40, 40] == closed


@pytest.mark.parametrize(
    ("shift_um", "radius_um"), [(math.nan, 1.0), (0.2, 1.0), (5.0, 5.0), (25.0, 14.0), (math.inf, 1.0)]
)
def test_a_closing_by_the_shift_is_bounded(shift_um, radius_um):
    assert closing_um(StainsSpec(dab_close="shift"), shift_um) == radius_um
    assert closing_um(StainsSpec(dab_close="shift", dab_method="atst"), shift_um) == radius_um
    assert closing_um(StainsSpec(dab_close_um=2.5), shift_um) == 2.5


def test_a_tile_far_off_its_partner_has_its_gaps_closed():
    spec = StainsSpec(dab_close="shift")
    tile = brown(two_patches(16))
    assert not tile_mask(tile, mpp=0.5, spec=spec, of_dab=OF_DAB, shift_um=0.5)[40, 40]
    assert tile_mask(tile, mpp=0.5, spec=spec, of_dab=OF_DAB, shift_um=8.0)[40, 40]


def test_a_few_black_cells_do_not_hide_the_brown_ones():
    od = np.random.default_rng(5).uniform(0, 0.1, (96, 96)).astype(np.float32)
    od[10:40, 10:40] = 2.2
    od[50:80, 50:80] = 0.6
    assert dab_mask(od, mpp=0.5, spec=PLAIN)[55:75, 55:75].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dab_thresholds_od": (0.4, 0.2, 0.6)}, "ascending"),
        ({"dab_close": "shift", "dab_close_most_um": 0.5}, "below the least"),
        ({"batches": {"b": {"haematoxylin": DAB, "dab": DAB}}}, "12 degrees"),
        ({"batches": {"b": {"haematoxylin": HAEMATOXYLIN, "dab": (0, 0, 0)}}}, "not all 0"),
        ({"batches": {"b": {"haematoxylin": HAEMATOXYLIN, "dab": DAB, "white": (255, 255, 2)}}}, "grey values"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        StainsSpec.model_validate(options)


def test_a_case_s_spec_holds_its_own_batch_alone():
    given = {"haematoxylin": HAEMATOXYLIN, "dab": DAB}
    spec = StainsSpec.model_validate({"batches": {"a": given, "b": given}})
    assert list(spec.of_batch("b").batches) == ["b"]
    assert spec.of_batch(None).batches == {}
