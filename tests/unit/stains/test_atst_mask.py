import math

import cv2
import numpy as np
import pytest
from skimage.color import hed2rgb, rgb2gray, rgb2hed
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import closing, disk

from hepipe.stains.atst_mask import atst_mask, atst_px, dab_grey, otsu
from hepipe.stains.deconvolution import WHITE
from hepipe.stains.matrices import DAB, HAEMATOXYLIN
from hepipe.stains.morphology import close, open_


def stained(side, seed):
    """Nuclei and brown patches: smooth random amounts of both stains."""
    rng = np.random.default_rng(seed)
    amounts = [cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), 3).clip(0) * 4 for _ in range(2)]
    unit = [np.array(vector) / np.linalg.norm(vector) for vector in (HAEMATOXYLIN, DAB)]
    density = sum(amount[..., None] * vector for amount, vector in zip(amounts, unit, strict=True))
    return np.clip(np.rint(WHITE[0] * 10**-density), 0, 255).astype(np.uint8)


def by_scikit_image(rgb, radius):
    """The released script's own calls."""
    amounts = rgb2hed(rgb)
    nothing = np.zeros_like(amounts[..., 0])
    grey = rgb2gray(hed2rgb(np.stack([nothing, nothing, amounts[..., 2]], axis=-1)))
    smooth = gaussian(grey, sigma=1)
    threshold = threshold_otsu(smooth)
    mask = (~(smooth > threshold)).astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    mask = cv2.dilate(cv2.erode(mask, square, iterations=2), square, iterations=2)
    return threshold, closing(mask, disk(radius)).astype(bool)


@pytest.mark.parametrize(("side", "radius"), [(64, 0), (64, 5), (90, 30), (48, 60), (120, 1)])
def test_the_recipe_is_what_scikit_image_and_opencv_make_of_it(side, radius):
    tile = stained(side, side + radius)
    threshold, expected = by_scikit_image(tile, radius)
    found = atst_mask(tile, close_px=radius)
    assert found.threshold == pytest.approx(threshold, rel=1e-9)
    assert expected.mean() > 0
    np.testing.assert_array_equal(found.mask, expected)


def test_black_and_white_are_the_ends_of_the_grey_picture():
    ends = dab_grey(np.array([[[255, 255, 255], [0, 0, 0]]], np.uint8))
    assert ends[0, 0] == pytest.approx(1)
    assert 0 <= ends[0, 1] < 0.02


def test_otsu_of_one_value_is_the_value():
    assert otsu(np.full((4, 4), 0.7)) == 0.7


@pytest.mark.parametrize(
    ("mpp", "px"), [(0.46, (1, 2)), (0.4661, (1, 2)), (0.5, (1, 2)), (0.25, (2, 4)), (2.0, (1, 1))]
)
def test_the_recipe_s_px_are_whole_at_every_resolution(mpp, px):
    assert atst_px(mpp) == px


@pytest.mark.parametrize("radius", [0, 1, 7, 24, 25, 60, 200])
@pytest.mark.parametrize("name", ["random", "empty", "full", "one"])
def test_closing_and_opening_are_those_of_a_disk(radius, name):
    rng = np.random.default_rng(radius)
    mask = {"random": rng.random((40, 57)) < 0.03, "empty": np.zeros((40, 57), bool), "full": np.ones((40, 57), bool)}
    mask["one"] = mask["empty"].copy()
    mask["one"][3, 50] = True
    reach = np.arange(-radius, radius + 1)
    element = (reach[:, None] ** 2 + reach[None] ** 2 <= radius * radius).astype(np.uint8)
    for ours, operation in ((close, cv2.MORPH_CLOSE), (open_, cv2.MORPH_OPEN)):
        for sample in (mask[name], ~mask[name]):
            expected = cv2.morphologyEx(sample.astype(np.uint8), operation, element).astype(bool)
            np.testing.assert_array_equal(ours(sample, radius), expected)


def test_a_tile_without_dab_has_a_mask_of_its_darker_half_as_the_recipe_makes_it():
    rng = np.random.default_rng(1)
    tile = np.full((64, 64, 3), 240, np.uint8) - rng.integers(0, 12, (64, 64, 1), dtype=np.uint8)
    found = atst_mask(tile, close_px=2)
    assert 0.1 < found.dark.mean() < 0.9
    assert math.isfinite(found.threshold)
