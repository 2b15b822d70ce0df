import numpy as np
import pytest
from registration_drawing import MPP, as_slides, partner, stain, turn

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform, translation
from hepipe.registration.landmarks import Landmarks, fit_landmarks, read_landmarks
from hepipe.registration.ncc import Comparison, FixedWindows
from hepipe.registration.overview import features, on_top, positions, read_pictures, resample
from hepipe.registration.register import register
from hepipe.registration.start import search_starts
from hepipe.specs.registration import DeeperHistRegSpec, RegistrationSpec, SearchSpec, SimpleItkSpec


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(0, 1, (24, 20)).astype(np.float32)


COARSE = SearchSpec(rotation_step_deg=15.0, flips=False)


def test_the_written_out_gradient_of_the_correlation_is_its_slope(noise):
    rng = np.random.default_rng(1)
    moving = rng.uniform(0, 1, noise.shape).astype(np.float32)
    weight = rng.uniform(0, 1, noise.shape).astype(np.float32)
    windows = FixedWindows(noise, sigma=2.0)
    _, gradient = windows.with_gradient(moving, weight)
    way = rng.normal(0, 1, noise.shape).astype(np.float32)
    step = np.float32(1e-2)
    ahead, behind = (windows.with_gradient(moving + sign * step * way, weight)[0] for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float((gradient * way).sum()), rel=0.02)


def test_a_picture_correlates_fully_with_itself_whatever_its_contrast(noise):
    windows = FixedWindows(noise, sigma=2.0)
    assert windows.correlation(noise * np.float32(0.5)).min() > 0.98


def test_tissue_that_the_other_slide_does_not_show_counts_nothing(section):
    shown = features(stain(section, (0.6, 1.0, 0.5)), mpp=MPP)
    comparison = Comparison(shown, shown, sigma=4.0)
    shape = shown.shape[1:]
    whole = comparison.score(positions(Transform(np.eye(3), 1.0, 1.0), shape=shape))
    away = comparison.score(positions(Transform(translation(1000.0, 0.0), 1.0, 1.0), shape=shape))
    assert whole > 0.4
    assert away == 0.0


def test_resampling_keeps_the_corner_in_place():
    ramp = np.tile(np.arange(40, dtype=np.float32) + 0.5, (40, 1))
    half = resample(ramp, 0.5)
    np.testing.assert_allclose(half[:, 2:-2], np.tile((np.arange(20) + 0.5) * 2, (20, 1))[:, 2:-2], atol=1e-3)


def test_the_search_finds_the_rotation_first(section):
    moved, _ = partner(section, turn(250.0), warp_px=0.0)
    he, ihc = as_slides(section, moved)
    pictures = read_pictures(he, ihc, max_px=224)
    starts = search_starts(
        features(pictures.fixed, mpp=MPP), features(pictures.moving, mpp=MPP), step_deg=10.0, flips=True, keep=3
    )
    assert starts[0].angle_deg == pytest.approx(110.0)
    assert not starts[0].mirrored
    assert len(starts) == 3


def test_a_displacement_on_top_of_a_start_moves_the_fixed_side(section):
    start = Transform(translation(10.0, 0.0), MPP, MPP)
    shift = np.stack([np.full((224, 224), 2.0), np.full((224, 224), -1.0)]).astype(np.float32)
    np.testing.assert_allclose(
        on_top(start, shift, size=(224, 224))(np.array([[100.0, 50.0]])), [[112.0, 49.0]], atol=1e-3
    )


def test_simpleitk_improves_on_the_search_without_any_extra(section, tissue_points):
    moved, truth = partner(section, turn(15.0, scale=1.03), warp_px=3.0)
    slides = as_slides(section, moved)
    spec = RegistrationSpec(chain=("search", "simpleitk"), search=COARSE, simpleitk=SimpleItkSpec(iterations=20))
    one, two = (register(*slides, spec, case_id="case") for _ in range(2))
    assert one.summary["chain"][1]["kept"]
    np.testing.assert_array_equal(one.ihc_from_he.field_um, two.ihc_from_he.field_um)
    assert np.median(np.linalg.norm(one.ihc_from_he(tissue_points) - truth(tissue_points), axis=1)) < 1.5


def test_deeperhistreg_improves_on_the_search_in_its_own_process(section, tissue_points):
    pytest.importorskip("torch")
    if not all(__import__("importlib.util").util.find_spec(name) for name in ("deeperhistreg", "pyvips")):
        pytest.skip("the extra 'register' is not installed")
    moved, truth = partner(section, turn(5.0), warp_px=4.0)
    spec = RegistrationSpec(
        chain=("search", "deeperhistreg"), search=COARSE, deeperhistreg=DeeperHistRegSpec(levels=3, iterations=15)
    )
    result = register(*as_slides(section, moved), spec, case_id="case")
    step = result.summary["chain"][1]
    assert step["kept"]
    assert step["score_after"] > step["score_before"]
    assert np.median(np.linalg.norm(result.ihc_from_he(tissue_points) - truth(tissue_points), axis=1)) < 2.0


@pytest.mark.parametrize(("count", "curved"), [(4, False), (10, False), (40, True)])
def test_the_number_of_landmarks_chooses_the_model(count, curved):
    he = np.random.default_rng(2).uniform(0, 300, (count, 2))
    ihc = (he @ np.array([[0.0, 1.0], [-1.0, 0.0]])) * 0.5 + (20, 400)
    found = fit_landmarks(Landmarks(he, ihc), he_size_px0=(300, 300), he_mpp=1.0, ihc_mpp=2.0, grid_um=8.0)
    assert (found.field_um is not None) == curved
    np.testing.assert_allclose(found(he), ihc, atol=0.3)


def test_mirrored_landmarks_give_a_mirrored_similarity():
    he = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 50.0], [80.0, 90.0]])
    found = fit_landmarks(
        Landmarks(he, he * (-1.0, 1.0) + (200.0, 0.0)), he_size_px0=(99, 99), he_mpp=1.0, ihc_mpp=1.0, grid_um=8.0
    )
    np.testing.assert_allclose(found.affine[:2], [[-1.0, 0.0, 200.0], [0.0, 1.0, 0.0]], atol=1e-9)


def test_landmarks_of_two_files_pair_by_their_id(tmp_path):
    (tmp_path / "he.csv").write_text(",X,Y\n1,10,20\n2,30,40\n3,50,60\n4,70,80\n")
    (tmp_path / "ihc.csv").write_text(",X,Y\n1,11,21\n3,51,61\n4,71,81\n")
    found = read_landmarks("case", f"{tmp_path / 'he.csv'};{tmp_path / 'ihc.csv'}")
    np.testing.assert_array_equal(found.he_px0, [[10, 20], [50, 60], [70, 80]])
    np.testing.assert_array_equal(found.ihc_px0, [[11, 21], [51, 61], [71, 81]])


def test_landmarks_of_one_file_stand_in_four_columns(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("x_he,y_he,x_ihc,y_ihc\n1,2,3,4\n5,6,7,8\n9,10,11,12\n")
    np.testing.assert_array_equal(read_landmarks("case", str(path)).ihc_px0, [[3, 4], [7, 8], [11, 12]])


def test_bad_landmark_files_are_refused_without_their_name(tmp_path):
    path = tmp_path / "Jane_Doe.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(RegistrationError, match="case C1: landmarks: no column x_he") as caught:
        read_landmarks("C1", str(path))
    assert "Jane" not in str(caught.value)
    with pytest.raises(RegistrationError, match="file is missing"):
        read_landmarks("C1", str(tmp_path / "none.csv"))
