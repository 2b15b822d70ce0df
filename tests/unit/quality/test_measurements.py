import math

import cv2
import numpy as np
import pytest

from hepipe.quality.blur import blur
from hepipe.quality.crease import crease
from hepipe.quality.doubling import doubling
from hepipe.quality.loss import SAME_SECTION_REACH_UM, loss
from hepipe.quality.overstain import overstain
from hepipe.quality.pen import pen
from hepipe.quality.residual import residual
from hepipe.quality.rim import rim
from hepipe.quality.saturation import saturation
from hepipe.quality.shade import shade
from hepipe.quality.stain import stain_amounts
from hepipe.quality.unscanned import unscanned
from hepipe.quality.white import white
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, stain_matrix

MPP = 0.5
SIDE = 192


def picture(vectors=(HAEMATOXYLIN, EOSIN), *, seed=0, extra=None):
    """Nuclei of 7 um in a pale ground; `extra` is optical density to add."""
    rng = np.random.default_rng(seed)
    first = np.zeros((SIDE, SIDE), np.float32)
    for x, y in rng.integers(0, SIDE, (70, 2)):
        cv2.circle(first, (int(x), int(y)), 7, 0.6, -1)
    grain = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), 2)
    second = np.clip(0.15 + 0.4 * grain, 0.02, None)
    unit = np.array([np.array(v) / np.linalg.norm(v) for v in vectors])
    od = first[..., None] * unit[0] + second[..., None] * unit[1]
    if extra is not None:
        od = od + extra
    return np.clip(255 * 10**-od, 0, 255).astype(np.uint8)


def square(value, low=64, high=160):
    cover = np.zeros((SIDE, SIDE, 1))
    cover[low:high, low:high] = 1
    return cover * np.asarray(value, np.float64)


def test_blur_is_the_width_of_an_edge():
    sharp = picture()
    widths = [blur(cv2.GaussianBlur(sharp, (0, 0), s), sharp, MPP)["blur_he"] for s in (1, 2, 4)]
    assert blur(sharp, sharp, MPP)["blur_he"] < widths[0] < widths[1] < widths[2]


def test_the_width_of_a_known_edge_is_returned_in_um():
    stripes = np.where(((np.arange(SIDE) + 24) // 48 % 2)[None, :, None] == 1, 90, 200) * np.ones((SIDE, 1, 3))
    soft = cv2.GaussianBlur(stripes.astype(np.float32), (0, 0), 3)
    tile = np.rint(soft).astype(np.uint8)
    assert blur(tile, tile, MPP)["blur_he"] == pytest.approx(3 * MPP, rel=0.15)


def test_blur_does_not_depend_on_contrast():
    strong, weak = picture(), (255 - (255 - picture().astype(int)) // 2).astype(np.uint8)
    found = blur(strong, weak, MPP)
    assert found["blur_he"] == pytest.approx(found["blur_ihc"], rel=0.15)


def test_blur_of_glass_is_undefined():
    glass = np.full((64, 64, 3), 252, np.uint8)
    assert math.isnan(blur(glass, glass, MPP)["blur_he"])


def test_glass_of_a_slide_with_a_dim_white_is_no_tissue_for_the_sharpness():
    glass = np.full((SIDE, SIDE, 3), 228, np.uint8)
    assert not math.isnan(blur(glass, glass, MPP)["blur_ihc"])
    assert math.isnan(blur(glass, glass, MPP, white_ihc=(230.0, 229.0, 228.0))["blur_ihc"])


@pytest.mark.parametrize(
    ("color", "ink"), [("blue", (1.1, 0.62, 0.12)), ("green", (0.95, 0.3, 0.8)), ("black", (1.0, 1.0, 0.95))]
)
def test_ink_is_found_and_its_colour_told(color, ink):
    found = pen(picture(extra=square(ink)), picture((HAEMATOXYLIN, DAB)), MPP)
    assert found["pen_he"] == pytest.approx(0.25, abs=0.12)
    assert found[f"pen_{color}_he"] > 0.8 * found["pen_he"]
    assert found["pen_ihc"] == 0


def test_red_ink_is_found_on_glass():
    glass = np.broadcast_to(255 * 10 ** -square((0.05, 0.8, 0.7)), (SIDE, SIDE, 3)).astype(np.uint8)
    assert pen(glass, glass, MPP)["pen_red_he"] == pytest.approx(0.25, abs=0.05)


def test_dense_red_ink_is_found_on_tissue_too():
    found = pen(picture(extra=square((0.08, 1.0, 0.95))), picture(extra=square((0.05, 0.3, 0.25))), MPP)
    assert found["pen_red_he"] == pytest.approx(0.25, abs=0.08)
    assert found["pen_red_ihc"] == 0, "that much eosin or blood is tissue"


def test_a_tinted_background_is_no_ink():
    tinted = np.broadcast_to(np.uint8([150, 215, 190]), (SIDE, SIDE, 3))
    white = (150.0, 215.0, 190.0)
    assert pen(tinted, tinted, MPP)["pen_green_he"] > 0.5
    assert pen(tinted, tinted, MPP, white_he=white, white_ihc=white)["pen_he"] == 0


@pytest.mark.parametrize("stain", [HAEMATOXYLIN, EOSIN, DAB])
def test_a_patch_of_strong_stain_is_no_ink(stain):
    tile = picture((HAEMATOXYLIN, DAB), extra=square(np.array(stain) * 1.2))
    assert set(pen(tile, tile, MPP).values()) == {0.0}


def test_shade_is_light_lost_in_every_colour_and_strong_staining_is_none():
    plain = picture((HAEMATOXYLIN, DAB))
    strong = picture((HAEMATOXYLIN, DAB), extra=np.where(plain.min(-1, keepdims=True) < 150, 1.0, 0.0) * np.array(DAB))
    shaded = shade(picture(extra=square(0.4, 0, SIDE)), strong, MPP)
    assert shaded["shade_he"] > 0.3
    assert shaded["veil_he"] > 0.3
    assert shaded["shade_ihc"] < 0.15


def test_shade_is_counted_from_the_slides_white():
    grey = np.full((64, 64, 3), 200, np.uint8)
    found = shade(grey, grey, MPP, white_he=(200.0, 200.0, 200.0))
    assert found["shade_he"] == pytest.approx(0)
    assert found["shade_ihc"] == pytest.approx(math.log10(255 / 200), abs=1e-3)


def test_a_fold_is_denser_than_its_surroundings_and_a_dense_tile_is_not():
    folded = crease(picture(extra=square(0.4, 80, 130)), picture(extra=square(0.4, 0, SIDE)), MPP)
    assert folded["crease_he"] > 0.25
    assert folded["crease_ihc"] < 0.2


def test_a_rim_is_long_and_dark_in_every_colour():
    ring = np.zeros((SIDE, SIDE, 1))
    cv2.circle(ring, (96, 96), 70, 0.7, 8)
    brown = np.zeros((SIDE, SIDE, 1))
    cv2.circle(brown, (96, 96), 70, 0.7, 8)
    found = rim(picture(extra=ring), picture(extra=brown * np.array([0.0, 0.5, 0.7])), MPP)
    assert found["bubble_um_he"] == pytest.approx(math.hypot(148, 148) * MPP, rel=0.1)
    assert found["edge_um_he"] == 0
    assert found["bubble_um_ihc"] == found["edge_um_ihc"] == 0


def test_a_straight_rim_is_a_coverslips_and_a_bent_one_a_bubbles():
    straight, bent = np.zeros((SIDE, SIDE, 1)), np.zeros((SIDE, SIDE, 1))
    cv2.line(straight, (20, 10), (120, 180), 0.7, 8)
    cv2.ellipse(bent, (96, 150), (120, 120), 0, 225, 315, 0.7, 8)
    found = rim(picture(extra=straight), picture(extra=bent), MPP)
    assert found["edge_um_he"] > 60 > found["bubble_um_he"]
    assert found["bubble_um_ihc"] > 60 > found["edge_um_ihc"]


def test_doubling_is_seen_and_a_single_picture_has_none():
    single = picture(seed=3)
    ghost = cv2.addWeighted(single, 0.55, np.roll(single, (6, 12), (0, 1)), 0.45, 0)
    found = doubling(ghost, single, MPP)
    assert found["doubling_he"] > 0.2
    assert found["doubling_ihc"] < 0.09


def test_tissue_on_one_side_only_is_lost_on_the_other():
    he, ihc = picture(), picture((HAEMATOXYLIN, DAB))
    ihc[:, :96] = 255
    found = loss(he, ihc, MPP)
    assert found["lost_frac_ihc"] == pytest.approx(0.33, abs=0.08)
    assert found["lost_frac_he"] == 0


def test_a_slit_is_lost_tissue_of_the_same_section_and_a_cleft_of_the_next():
    he, ihc = picture(), picture((HAEMATOXYLIN, DAB))
    ihc[:, 70:120] = 255
    assert loss(he, ihc, MPP, reach_um=SAME_SECTION_REACH_UM)["lost_frac_ihc"] > 0.04
    assert loss(he, ihc, MPP)["lost_frac_ihc"] == 0


def test_glass_is_counted_from_the_slides_white_and_pale_tissue_is_none():
    he, ihc = picture(), np.full((SIDE, SIDE, 3), 235, np.uint8)
    he[:, :96] = 255
    found = white(he, ihc, MPP)
    assert found["white_frac_he"] == pytest.approx(0.5, abs=0.06)
    assert found["white_frac_ihc"] == 0
    assert white(he, ihc, MPP, white_ihc=(236.0, 236.0, 236.0))["white_frac_ihc"] == 1


@pytest.mark.parametrize("cell", [None, 8])
def test_grey_and_chequered_fields_are_unscanned_and_noisy_glass_is_not(cell):
    rng = np.random.default_rng(1)
    glass = np.clip(238 + rng.normal(0, 1.5, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8).repeat(3, -1)
    hole = picture()
    field = np.full((96, 96, 3), 204, np.uint8)
    if cell is not None:
        rows, columns = np.indices((96, 96)) // (2 * cell)
        field[(rows + columns) % 2 == 1] = 255
    hole[48:144, 48:144] = field
    found = unscanned(hole, glass, MPP)
    assert found["unscanned_he"] > (0.15 if cell is None else 0.02)
    assert found["unscanned_ihc"] == 0
    assert unscanned(picture(), np.full_like(glass, 255), MPP) == {"unscanned_he": 0, "unscanned_ihc": 0}


def test_burnt_and_black_px_are_counted_and_strong_dab_is_neither():
    strong = picture((HAEMATOXYLIN, DAB), extra=square(np.array(DAB) * 1.6))
    burnt = np.minimum(picture().astype(int) + np.array([60, 0, 0]), 255).astype(np.uint8)
    found = saturation(burnt, strong, MPP)
    assert found["burnt_frac_he"] > 0.3
    assert found["burnt_frac_ihc"] == found["black_frac_ihc"] == 0
    assert saturation(burnt, picture(extra=square(3.0)), MPP)["black_frac_ihc"] == pytest.approx(0.25, abs=0.02)


def membranes(od):
    """Cells of 20 µm with DAB on their membranes and in thin cytoplasm."""
    rows, columns = np.indices((SIDE, SIDE)) % 40
    edge = np.minimum(np.minimum(rows, 40 - rows), np.minimum(columns, 40 - columns)) < 4
    return (np.where(edge, od, 0.15 * od)[..., None] * np.array(DAB)).astype(np.float32)


def test_overstain_leaves_no_light_place_and_strong_membranes_do():
    background = picture((HAEMATOXYLIN, DAB), extra=0.9 * np.array(DAB))
    strong = picture((HAEMATOXYLIN, DAB), extra=membranes(1.4))
    found = overstain(background, strong, MPP)
    assert found["overstain_he"] > 0.6
    assert found["overstain_ihc"] < 0.4


def test_strong_membranes_are_no_shade():
    strong = picture((HAEMATOXYLIN, DAB), extra=membranes(1.4))
    found = shade(strong, strong, MPP)
    assert found["shade_ihc"] < 0.2
    assert found["veil_ihc"] < 0.12


def test_eosin_left_in_the_ihc_is_told_from_dab():
    pink = picture((HAEMATOXYLIN, DAB), extra=0.3 * np.array(EOSIN) / np.linalg.norm(EOSIN))
    brown = picture((HAEMATOXYLIN, DAB), extra=membranes(1.0))

    def of(ihc):
        return residual(ihc, ihc, MPP)["residual_eosin_od"]

    assert 0.15 < of(pink) < 0.5
    assert of(brown) < 0.05
    assert math.isnan(of(np.full((64, 64, 3), 255, np.uint8)))


def test_amounts_are_those_of_the_mixture():
    od = 0.2 * np.array(HAEMATOXYLIN) / np.linalg.norm(HAEMATOXYLIN) + 0.5 * np.array(DAB) / np.linalg.norm(DAB)
    ihc = np.broadcast_to(np.rint(255 * 10**-od), (64, 64, 3)).astype(np.uint8)
    found = stain_amounts(
        picture()[:64, :64],
        ihc,
        MPP,
        of_he=Separator(stain_matrix(HAEMATOXYLIN, EOSIN)),
        of_ihc=Separator(stain_matrix(HAEMATOXYLIN, DAB)),
    )
    assert found["h_mean_od"] == pytest.approx(0.2, abs=0.01)
    assert found["dab_mean_od"] == pytest.approx(0.5, abs=0.01)
    assert found["dab_frac"] == 1
    assert found["hscore_px"] == pytest.approx(200)
    assert found["h_mean_od_he"] > 0.05
