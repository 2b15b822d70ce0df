import json

import numpy as np
import pytest
from PIL import Image
from registration_drawing import MPP, as_slides, draw_section

from hepipe.errors import StoreError
from hepipe.geometry import Transform, identity, translation
from hepipe.registration.overlays import (
    EDGE,
    EDGE_SCALE,
    STRIP_PX,
    draw_deformation,
    draw_edges,
    draw_residuals,
    warp_picture,
)
from hepipe.registration.overview import read_pictures
from hepipe.registration.pictures import draw_case, draw_details, draw_registration
from hepipe.slides.picture import ArraySlide
from hepipe.status import failed
from hepipe.stores.arrays import Registered, TissueMasks, read_registered, write_registered
from hepipe.stores.provenance import Provenance

SIDE = 224


@pytest.fixture
def pictures():
    density = draw_section(5)
    return read_pictures(*as_slides(density, density), max_px=SIDE)


def bent(gain, side=SIDE):
    """A field that stretches x about the middle by `gain` and shrinks nothing else."""
    field = np.zeros((2, side // 4, side // 4))
    field[0] = gain * ((np.arange(side // 4) + 0.5) * 4 * MPP - side * MPP / 2)[None, :] ** 2 / (side * MPP / 2)
    return Transform(np.eye(3), MPP, MPP, field, 4 * MPP)


def test_edges_lie_on_the_outline_of_the_he_and_not_on_the_shifted_ihc(pictures):
    square = np.full((SIDE, SIDE, 3), 240, np.uint8)
    square[60:160, 60:160] = (190, 120, 170)
    drawn = draw_edges(square, np.full_like(square, 240))
    rows, columns = np.nonzero((drawn == EDGE).all(axis=2))
    inside = (rows > 75) & (rows < 145) & (columns > 75) & (columns < 145)
    assert len(rows) > 200
    assert not inside.any()
    assert (rows.min(), rows.max()) == pytest.approx((60, 159), abs=3 + 2 * SIDE / EDGE_SCALE)


def test_edges_of_glass_alone_are_the_ihc_as_it_is():
    glass = np.full((50, 60, 3), 244, np.uint8)
    ihc = np.full((50, 60, 3), 200, np.uint8)
    np.testing.assert_array_equal(draw_edges(glass, ihc), ihc)


def test_a_warped_picture_is_white_beyond_the_slide():
    dark = np.full((40, 60, 3), 50, np.uint8)
    warped = warp_picture(dark, Transform(translation(30.0, 0.0), 1.0, 1.0), shape=(40, 60))
    assert (warped[:, :29] == 50).all()
    assert (warped[:, 31:] == 255).all()


def test_the_deformation_of_an_affine_is_a_straight_grid_without_colour(pictures):
    turned = Transform(np.array([[0.9, 0.1, 3.0], [-0.1, 0.9, 5.0], [0, 0, 1.0]]), MPP, MPP)
    drawn = draw_deformation(pictures.fixed, turned)
    assert drawn.shape == (SIDE + STRIP_PX, SIDE, 3)
    plain = draw_deformation(pictures.fixed, identity(fixed_mpp=MPP, moving_mpp=MPP))
    np.testing.assert_allclose(drawn[:SIDE].astype(int), plain[:SIDE].astype(int), atol=1)


def test_where_the_ihc_is_larger_the_deformation_is_warm_and_where_smaller_cold(pictures):
    drawn = draw_deformation(pictures.fixed, bent(0.3))[:SIDE].astype(int)
    warmth = drawn[..., 0] - drawn[..., 2]
    plain = draw_deformation(pictures.fixed, identity(fixed_mpp=MPP, moving_mpp=MPP))[:SIDE].astype(int)
    change = warmth - (plain[..., 0] - plain[..., 2])
    middle = slice(SIDE // 3, 2 * SIDE // 3)
    assert change[middle, : SIDE // 3].mean() < -5
    assert change[middle, -SIDE // 3 :].mean() > 5


def windows(count=12):
    at = (np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=2).reshape(-1, 2) + 0.5) * SIDE * MPP / count
    rows = np.zeros((len(at), 7), np.float32)
    rows[:, :2], rows[:, 2], rows[:, 4], rows[:, 5] = at, 2.0, 0.5, 1.0
    return rows


def test_arrows_point_where_the_windows_still_see_a_shift(pictures):
    still, moved = windows(), windows()
    still[:, 2] = 0.0
    moved[:72] = np.nan
    moved[:72, 5] = 0
    moved[:72, :2] = windows()[:72, :2]
    glass = np.full((SIDE, SIDE, 3), 255, np.uint8)
    drawn = draw_residuals(glass, moved, mpp=MPP)[:SIDE]
    inked = (drawn < 128).any(axis=2)
    assert not inked[: SIDE // 2 - 12].any()
    dots = (draw_residuals(glass, still, mpp=MPP)[:SIDE] < 128).any(axis=2)
    assert inked[SIDE // 2 :].sum() > 2 * dots[SIDE // 2 :].sum()


def test_no_window_at_all_is_a_picture_all_the_same(pictures):
    assert draw_residuals(pictures.fixed, np.zeros((0, 7), np.float32), mpp=MPP).shape == (SIDE + STRIP_PX, SIDE, 3)
    nothing = windows()
    nothing[:, 2:5], nothing[:, 5] = np.nan, 0
    assert draw_residuals(pictures.fixed, nothing, mpp=MPP).shape == (SIDE + STRIP_PX, SIDE, 3)


def test_tissue_that_nothing_supports_lies_under_a_veil(pictures):
    trust = np.ones((14, 14), np.uint8)
    trust[:, 7:] = 0
    drawn = draw_residuals(pictures.fixed, windows()[:0], mpp=MPP, trust=trust, grid_um=16 * MPP)[:SIDE].astype(int)
    clear = draw_residuals(pictures.fixed, windows()[:0], mpp=MPP)[:SIDE].astype(int)
    darker = (clear - drawn).mean(axis=2) > 20
    assert not darker[:, : SIDE // 2 - 10].any()
    assert darker[:, SIDE // 2 + 10 :].mean() > 0.2


def test_residuals_are_drawn_only_where_windows_were_measured(pictures):
    still = identity(fixed_mpp=MPP, moving_mpp=MPP)
    assert set(draw_registration(pictures, still, {})) == {"after", "warped", "edges", "deformation"}
    assert "residuals" in draw_registration(pictures, still, {"residuals": windows()})


def test_details_show_both_slides_at_the_same_place_near():
    rgb = np.full((1200, 2400, 3), 240, np.uint8)
    rgb[200:1000, 300:2100] = (190, 120, 170)
    for row in range(220, 980, 60):
        rgb[row : row + 16, 320:2080:60] = (60, 30, 90)
    he = ArraySlide(rgb, mpp=1.0, slide_id="C1-he")
    shifted = ArraySlide(np.roll(rgb, 40, axis=1), mpp=1.0, slide_id="C1-ihc")
    shown = draw_details(he, shifted, Transform(translation(40.0, 0.0), 1.0, 1.0))
    assert len(shown) == 8
    for number in range(1, 5):
        np.testing.assert_array_equal(shown[f"detail{number}_he"], shown[f"detail{number}_warped"])
    coarse = ArraySlide(rgb[::4, ::4], mpp=4.0, slide_id="C1-he")
    assert draw_details(coarse, coarse, identity(fixed_mpp=4.0, moving_mpp=4.0)) == {}


def test_a_failed_pair_is_shown_as_it_was_proposed(tmp_path):
    density = draw_section(5)
    why = failed("registration", "not alike")
    registered = Registered(
        Provenance(artefact="registered", subject="C1", status=why),
        ihc_from_he=None,
        he_from_ihc=None,
        summary={"similarity": 0.1},
        proposed=identity(fixed_mpp=MPP, moving_mpp=MPP),
    )
    tissue = TissueMasks(Provenance(artefact="tissue", subject="C1", status=why), None, 8.0)
    folder = tmp_path / "pictures"
    draw_case(*as_slides(density, density), case_id="C1", registered=registered, tissue=tissue, tiles=[], folder=folder)
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["pictures"] == ["after", "before", "deformation", "edges", "he", "ihc", "warped"]
    assert facts["status"]["reason"] == "not alike"
    with Image.open(folder / "warped.jpg") as warped, Image.open(folder / "he.jpg") as he:
        assert warped.size == he.size


def test_windows_that_found_nothing_are_stored_and_read_back(tmp_path):
    rows = windows()
    rows[:5, 2:5] = np.nan
    still = identity(fixed_mpp=MPP, moving_mpp=MPP)
    made = Provenance(artefact="registered", subject="C1")
    write = {"ihc_from_he": still, "he_from_ihc": still, "summary": {}}
    write_registered(tmp_path / "t.zarr", made, **write, evidence={"residuals": rows})
    np.testing.assert_array_equal(read_registered(tmp_path / "t.zarr").evidence["residuals"], rows)
    rows[0, 0] = np.inf
    write_registered(tmp_path / "t.zarr", made, **write, evidence={"residuals": rows})
    with pytest.raises(StoreError, match="no finite number"):
        read_registered(tmp_path / "t.zarr")
