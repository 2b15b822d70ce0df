import math

import cv2
import numpy as np
import pytest

from hepipe.quality.misalignment import best_shift, misalignment


def texture(side=220, seed=0):
    rng = np.random.default_rng(seed)
    plane = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), 4)
    grey = np.clip(180 + 400 * plane, 20, 250).astype(np.uint8)
    return grey[..., None].repeat(3, -1)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (6, -8), (-20, 5)])
def test_a_known_shift_is_found_in_um(dx, dy):
    whole = texture()
    he = whole[40:168, 40:168]
    ihc = whole[40 + dy : 168 + dy, 40 + dx : 168 + dx]
    found = misalignment(he, ihc, 1.0)
    assert found["shift_um"] == pytest.approx(math.hypot(dx, dy), abs=0.6)
    assert found["ncc_peak"] > 0.97


def test_a_shift_beyond_the_window_reads_as_the_window_or_more():
    whole = texture(400)
    scores, shift = best_shift(
        whole[100:228, 100:228, 0].astype(np.float32), whole[100:228, 160:288, 0].astype(np.float32), window_px=12
    )
    assert shift >= 12 or scores < 0.6


def test_unrelated_tiles_correlate_little():
    assert misalignment(texture(128, 1), texture(128, 2), 1.0)["ncc_peak"] < 0.7


def test_colour_does_not_matter():
    he = texture(128)
    brown = np.clip(he.astype(float) * [1.0, 0.8, 0.6], 0, 255).astype(np.uint8)
    assert misalignment(he, brown, 1.0)["ncc_peak"] > 0.97


def test_a_flat_tile_is_undefined():
    flat = np.full((64, 64, 3), 240, np.uint8)
    found = misalignment(texture(64), flat, 1.0)
    assert math.isnan(found["ncc_peak"])
    assert math.isnan(found["shift_um"])
