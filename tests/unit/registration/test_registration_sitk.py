import numpy as np
import pytest
import SimpleITK as sitk
from registration_drawing import as_slides, partner, turn

from hepipe.geometry import Transform
from hepipe.registration.overview import features, read_pictures
from hepipe.registration.sitk import refine_simpleitk
from hepipe.registration.transform import jacobian
from hepipe.stores.arrays import transform_digest


@pytest.fixture
def bent(section):
    """Features of both pictures and the true mapping: nearly in place, bent by 4 px."""
    moved, truth = partner(section, turn(1.0, shift=(2.0, -1.0)), warp_px=4.0)
    pictures = read_pictures(*as_slides(section, moved), max_px=1024)
    fixed, moving = (features(one, mpp=pictures.mpp) for one in (pictures.fixed, pictures.moving))
    return fixed, moving, truth, Transform(np.eye(3), pictures.mpp, pictures.mpp)


def median_error(found, truth, points):
    return np.median(np.linalg.norm(found(points) - truth(points), axis=1))


def test_each_deformable_step_is_nearer_to_the_truth_than_the_affine_alone(bent, tissue_points):
    fixed, moving, truth, start = bent
    errors = {
        kind: median_error(
            refine_simpleitk(fixed, moving, start, threads=1, iterations=30, deformable=kind), truth, tissue_points
        )
        for kind in ("none", "bspline", "diffeomorphic")
    }
    before = median_error(start, truth, tissue_points)
    assert errors["none"] < before
    assert errors["bspline"] < 0.75 * errors["none"]
    assert errors["diffeomorphic"] < 0.5 * errors["none"]
    assert errors["diffeomorphic"] < 0.7


def test_without_a_deformable_step_the_result_is_an_affine(bent):
    fixed, moving, _, start = bent
    found = refine_simpleitk(fixed, moving, start, threads=1, iterations=10, deformable="none")
    x, y = np.meshgrid(np.linspace(30, 190, 6), np.linspace(30, 190, 6))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    design = np.column_stack([points, np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(design, found(points), rcond=None)
    np.testing.assert_allclose(design @ solution, found(points), atol=1e-3)


def test_the_diffeomorphic_field_never_folds_though_half_of_the_partner_is_missing(bent):
    fixed, moving, _, start = bent
    half = moving.copy()
    half[:, :, 112:] = 0
    found = refine_simpleitk(fixed, half, start, threads=1, iterations=30, deformable="diffeomorphic")
    assert jacobian(found).min() > 0


@pytest.mark.parametrize("kind", ["bspline", "diffeomorphic"])
def test_the_same_pictures_give_the_same_bytes_on_two_threads(bent, kind):
    fixed, moving, _, start = bent
    one, two = (refine_simpleitk(fixed, moving, start, threads=2, iterations=5, deformable=kind) for _ in range(2))
    assert transform_digest(one) == transform_digest(two)


def test_what_is_no_tissue_does_not_pull(bent, tissue_points):
    fixed, moving, _, start = bent
    # A dark stroke on the glass of the IHC, outside the mask.
    inked = moving.copy()
    inked[0, 5:9, 10:200] = 1.0
    clean, dirty = (
        refine_simpleitk(fixed, one, start, threads=1, iterations=10, deformable="diffeomorphic")
        for one in (moving, inked)
    )
    apart = np.linalg.norm(clean(tissue_points) - dirty(tissue_points), axis=1)
    assert np.median(apart) < 0.3


def test_the_process_s_number_of_threads_is_left_as_it_was(bent):
    fixed, moving, _, start = bent
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    refine_simpleitk(fixed, moving, start, threads=1, iterations=1, deformable="none")
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before
