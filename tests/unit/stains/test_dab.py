import cv2
import numpy as np
import pytest

from hepipe.specs.stains import StainsSpec
from hepipe.stains.dab import dab_mask, otsu_od

PLAIN = StainsSpec(dab_sigma_um=0, dab_open_um=0, dab_close_um=0)


def two_classes():
    rng = np.random.default_rng(2)
    od = rng.normal(0.1, 0.03, (64, 64)).clip(0).astype(np.float32)
    od[20:40, 20:40] = rng.normal(0.8, 0.05, (20, 20))
    return od


def test_otsu_agrees_with_a_second_implementation():
    od = two_classes()
    quantised = np.floor(od * (256 / 3)).astype(np.uint8)
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
