import math

import cv2
import numpy as np
import pytest

from hepipe.quality.misalignment import best_shift, misalignment, same_section_misalignment
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, stain_matrix

MPP = 0.5
OF_HE = Separator(stain_matrix(HAEMATOXYLIN, EOSIN), stains=(0,))
OF_IHC = Separator(stain_matrix(HAEMATOXYLIN, DAB), stains=(0,))


def restained(shift_x_um, shift_y_um=0.0, *, side=256, cells=260, seed=0, lost=None):
    """Nuclei as one section shows them in two stains; the IHC shows its nuclei further right and down."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(-10, side + 10, (cells, 2))
    radius = rng.uniform(4, 7, cells)
    row, column = np.mgrid[:side, :side] + 0.5
    nuclei = []
    for dx, dy in ((0.0, 0.0), (shift_x_um, shift_y_um)):
        plane = np.zeros((side, side))
        for (x, y), r in zip(at, radius, strict=True):
            move_x, move_y = (d(x, y) if callable(d) else d for d in (dx, dy))
            plane += np.exp(-((column - x - move_x / MPP) ** 2 + (row - y - move_y / MPP) ** 2) / (0.5 * r * r))
        nuclei.append(0.5 * np.minimum(plane, 1.2))
    if lost is not None:
        nuclei[1][lost] = 0.0
    soft = [cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), 9) for _ in range(2)]
    second = [0.15 + np.maximum(one, 0) for one in soft]
    tiles = []
    for plane, other, vectors in zip(nuclei, second, ((HAEMATOXYLIN, EOSIN), (HAEMATOXYLIN, DAB)), strict=True):
        unit = [np.array(v) / np.linalg.norm(v) for v in vectors]
        od = plane[..., None] * unit[0] + other[..., None] * unit[1]
        tiles.append(np.clip(np.rint(255 * 10**-od + rng.normal(0, 2, od.shape)), 0, 255).astype(np.uint8))
    return tiles


def measure(*tiles, mpp=MPP):
    return same_section_misalignment(*tiles, mpp, of_he=OF_HE, of_ihc=OF_IHC)


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


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.4, -0.3), (2.0, 1.5), (-6.0, 4.0)])
def test_nuclei_of_one_section_tell_its_shift_to_a_fifth_of_a_um(dx, dy):
    found = measure(*restained(dx, dy))
    assert found["shift_um"] == pytest.approx(math.hypot(dx, dy), abs=0.2)
    assert found["matched_frac"] > 0.9
    assert found["ncc_peak"] > 0.6


def test_a_part_of_a_tile_that_is_off_is_seen_although_the_rest_is_right():
    def bulge(x, y):
        return 3.0 * math.exp(-((x - 170) ** 2 + (y - 170) ** 2) / 80**2)

    found = measure(*restained(bulge))
    assert 1.5 < found["shift_um"] < 3.2


def test_tissue_lost_from_one_slide_lowers_the_share_of_windows_and_not_the_shift():
    lost = np.s_[:, 110:]
    found = measure(*restained(0.0, lost=lost))
    assert found["matched_frac"] < 0.8
    assert found["shift_um"] < 0.5


def test_nuclei_of_another_section_match_nowhere():
    he, _ = restained(0.0, seed=1)
    _, ihc = restained(0.0, seed=2)
    found = measure(he, ihc)
    assert found["matched_frac"] < 0.3
    assert found["ncc_peak"] < 0.5


def test_small_tiles_and_coarse_ones_are_measured_too():
    he, ihc = restained(2.0)
    small = measure(he[:64, :64], ihc[:64, :64])
    assert 0 < small["search_um"] <= 12
    assert math.isfinite(small["shift_um"])
    coarse = measure(he[:64, :64], ihc[:64, :64], mpp=2.0)
    assert math.isfinite(coarse["ncc_peak"])


def test_glass_has_no_shift():
    glass = np.full((128, 128, 3), 250, np.uint8)
    found = measure(glass, glass)
    assert all(math.isnan(found[name]) for name in ("shift_um", "ncc_peak", "matched_frac"))
