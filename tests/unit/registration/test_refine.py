import cv2
import numpy as np
import pytest

from hepipe.geometry import Transform, translation
from hepipe.registration.refine import refine_windows
from hepipe.registration.transform import fold_frac
from hepipe.slides.picture import ArraySlide
from hepipe.specs.registration import RefineSpec

MPP = 2.0
SIDE = 640
"""1.28 mm: 80 grid px of 16 µm."""
FAST = RefineSpec(mpp=2.0)


def cells(seed, side=SIDE):
    """Haematoxylin of nuclei of about 8 µm."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros((side, side), np.float32)
    seeds[tuple(rng.integers(0, side, (2, side * side // 45)))] = rng.uniform(0.5, 1.5, side * side // 45)
    return np.clip(cv2.GaussianBlur(seeds, (0, 0), 2.0) * 14, 0, 1.5)


def wave(points):
    """A smooth shift of up to 8 px (16 µm)."""
    x, y = points[:, 0] / SIDE, points[:, 1] / SIDE
    return np.stack([6 * np.sin(5 * y + 1) + 2 * x, 5 * np.cos(6 * x) - 3 * y], axis=1)


def moved(picture, shift=wave):
    """The picture as it looks when each px p of the fixed one lies at p + shift(p)."""
    side = len(picture)
    x, y = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    target = np.stack([x.ravel(), y.ravel()], axis=1)
    origin = target.copy()
    for _ in range(30):
        origin = target - shift(origin)
    maps = (origin - 0.5).astype(np.float32).reshape(side, side, 2)
    return cv2.remap(picture, maps[..., 0], maps[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def slides(he_cells, ihc_cells, tissue):
    rng = np.random.default_rng(3)
    eosin = 0.3 * np.array((0.2159, 0.8012, 0.5581)) * tissue[..., None]
    he = he_cells[..., None] * np.array((0.65, 0.70, 0.29)) + eosin
    ihc = 0.5 * ihc_cells[..., None] * np.array((0.65, 0.70, 0.29))
    pictures = [245 * 10**-od + rng.normal(0, 2, od.shape) for od in (he, ihc)]
    return tuple(
        ArraySlide(np.clip(picture, 0, 254).astype(np.uint8), mpp=MPP, slide_id=f"case-{stain}")
        for picture, stain in zip(pictures, ("he", "ihc"), strict=True)
    )


def blob(left, top, right, bottom):
    tissue = np.zeros((SIDE, SIDE), bool)
    tissue[top:bottom, left:right] = True
    return tissue


def places(mask, step=13):
    rows, columns = np.nonzero(mask)
    return np.stack([columns, rows], axis=1)[::step] + 0.5


def error_px(transform, mask, shift=wave):
    points = places(mask)
    return np.linalg.norm(transform(points) - points - shift(points), axis=1)


START = Transform(np.eye(3), MPP, MPP)
TISSUE = blob(40, 40, 600, 600)


@pytest.fixture(scope="module")
def pair():
    drawn = cells(1) * TISSUE
    return slides(drawn, moved(drawn), TISSUE)


@pytest.fixture(scope="module")
def refined(pair):
    return refine_windows(*pair, START, FAST, section="restained", tissue=TISSUE, tissue_mpp=MPP)


def test_a_smooth_shift_is_found_to_a_fraction_of_a_px(refined):
    inner = blob(70, 70, 570, 570)
    error = error_px(refined.transform, inner)
    assert np.median(error) < 0.05
    assert np.percentile(error, 90) < 0.15
    assert fold_frac(refined.transform) == 0


def test_its_windows_and_its_trust_say_so(refined):
    assert refined.residuals[:, 5].mean() > 0.95
    assert np.nanmedian(np.abs(refined.residuals[:, 2:4])) < 0.1 * MPP
    assert set(refined.residuals[:, 6]) == {2.0}
    assert refined.trust is not None
    assert refined.trust.shape == refined.transform.field_um.shape[1:]
    assert refined.trust[8:72, 8:72].mean() == 1
    assert [level["mpp"] for level in refined.summary["levels"]] == [8.0, 4.0, 2.0, 2.0, 2.0]


def test_the_result_is_the_same_for_any_number_of_workers(pair, refined):
    again = refine_windows(*pair, START, FAST, section="restained", tissue=TISSUE, tissue_mpp=MPP, workers=3)
    np.testing.assert_array_equal(again.transform.field_um, refined.transform.field_um)
    np.testing.assert_array_equal(again.residuals, refined.residuals)


def test_glass_is_neither_measured_nor_trusted():
    tissue = blob(40, 40, 240, 600)
    drawn = cells(2) * tissue
    found = refine_windows(
        *slides(drawn, moved(drawn), tissue), START, FAST, section="restained", tissue=tissue, tissue_mpp=MPP
    )
    assert (found.residuals[:, 0] < 260 * MPP).all()
    assert np.percentile(error_px(found.transform, blob(60, 60, 220, 580)), 90) < 0.2
    assert found.trust[:, 50:].max() == 0
    assert np.isfinite(found.transform.field_um).all()
    assert fold_frac(found.transform) == 0


def test_tissue_with_other_cells_is_rejected_and_not_trusted():
    drawn = cells(1) * TISSUE
    other = blob(340, 40, 640, 640)
    replaced = np.where(other, moved(cells(9)), moved(drawn))
    found = refine_windows(
        *slides(drawn, replaced, TISSUE), START, FAST, section="restained", tissue=TISSUE, tissue_mpp=MPP
    )
    assert np.percentile(error_px(found.transform, blob(70, 70, 300, 570)), 90) < 0.2
    inside = found.residuals[:, 0] > 390 * MPP
    assert found.residuals[inside, 5].mean() < 0.1
    assert found.trust[5:75, 5:37].mean() > 0.95
    assert found.trust[5:75, 60:75].mean() < 0.1


def test_lost_tissue_is_bridged_from_around():
    drawn = cells(1) * TISSUE
    kept = moved((~blob(280, 280, 340, 350)).astype(np.float32)) > 0.5
    found = refine_windows(
        *slides(drawn, moved(drawn) * kept, TISSUE), START, FAST, section="restained", tissue=TISSUE, tissue_mpp=MPP
    )
    assert error_px(found.transform, blob(280, 280, 340, 350)).max() < 0.5


def test_a_start_with_its_own_field_loses_what_it_made_up(pair):
    def wrong(points):
        return wave(points) + 4 * np.stack([np.sin(points[:, 1] / 25), np.cos(points[:, 0] / 25)], axis=1)

    y, x = np.mgrid[0:160, 0:160] * 4 + 2.0
    field = wrong(np.stack([x.ravel(), y.ravel()], axis=1)).T.reshape(2, 160, 160) * MPP
    start = Transform(np.eye(3), MPP, MPP, field, 4 * MPP)
    found = refine_windows(*pair, start, FAST, section="restained", tissue=TISSUE, tissue_mpp=MPP)
    assert np.median(error_px(start, TISSUE)) > 3
    assert np.percentile(error_px(found.transform, blob(70, 70, 570, 570)), 90) < 0.2
    assert fold_frac(found.transform) == 0
    assert [level["mpp"] for level in found.summary["levels"]] == [4.0, 2.0, 2.0, 2.0]


def test_a_stiff_start_60_um_off_is_caught(pair):
    start = Transform(translation(-30.0, 5.0), MPP, MPP)
    found = refine_windows(*pair, start, FAST, section="restained", tissue=TISSUE, tissue_mpp=MPP)
    assert np.percentile(error_px(found.transform, blob(70, 70, 570, 570)), 90) < 0.2


def test_another_section_leaves_the_start_as_it_is_and_says_why(pair):
    other = slides(cells(5) * TISSUE, moved(cells(6)), TISSUE)[1]
    found = refine_windows(pair[0], other, START, FAST, section="restained", tissue=TISSUE, tissue_mpp=MPP)
    assert found.transform is START
    assert "agree with each other" in found.summary["skipped"]
    assert found.summary["levels"] == []


@pytest.mark.parametrize("section", ["restained", "consecutive"])
def test_a_picture_coarser_than_every_level_is_left_alone(section):
    he, ihc = (ArraySlide(np.full((64, 64, 3), 200, np.uint8), mpp=10.0, slide_id=f"case-{s}") for s in ("he", "ihc"))
    start = Transform(np.eye(3), 10.0, 10.0)
    found = refine_windows(
        he, ihc, start, RefineSpec(), section=section, tissue=np.ones((64, 64), bool), tissue_mpp=10.0
    )
    assert found.transform is start
    assert "coarser" in found.summary["skipped"]


def test_no_tissue_leaves_the_start(pair):
    found = refine_windows(*pair, START, FAST, section="restained", tissue=~(TISSUE | True), tissue_mpp=MPP)
    assert found.transform is START
    assert found.summary["skipped"] == "no tissue"
