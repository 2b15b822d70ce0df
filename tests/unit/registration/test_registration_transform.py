import math

import numpy as np
import pytest

from hepipe.geometry import Transform, identity, scaling, translation
from hepipe.registration.transform import compose, fold_frac, from_mapping, implausible, invert, jacobian, scales

SIZE = (400, 300)


def wave(points):
    """A smooth warp of up to 6 px, with a turn."""
    x, y = points[:, 0], points[:, 1]
    moved = np.stack([x + 6 * np.sin(y / 60), y + 5 * np.cos(x / 70)], axis=1)
    turn = np.array([[math.cos(0.2), -math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]])
    return moved @ turn.T + (30, -10)


@pytest.fixture
def warped():
    turn = np.array([[math.cos(0.2), -math.sin(0.2), 30], [math.sin(0.2), math.cos(0.2), -10], [0, 0, 1]])
    return from_mapping(wave, turn, fixed_size_px0=SIZE, fixed_mpp=0.5, moving_mpp=0.5, grid_um=4.0)


def test_a_mapping_becomes_a_field_that_repeats_it(warped):
    points = np.random.default_rng(0).uniform((10, 10), (390, 290), (200, 2))
    np.testing.assert_allclose(warped(points), wave(points), atol=0.05)


def test_the_inverse_undoes_the_transform(warped):
    inverse = invert(warped, a_size_px0=SIZE, b_size_px0=(450, 420))
    points = np.random.default_rng(1).uniform((40, 40), (360, 260), (200, 2))
    np.testing.assert_allclose(inverse.transform(warped(points)), points, atol=0.1)
    assert inverse.residual_um[1] < 0.02


def test_the_residual_of_an_inverse_is_what_its_points_between_nodes_show():
    def ripple(points):
        return points + 3 * np.sin(points[:, ::-1] / 6)

    forward = from_mapping(ripple, np.eye(3), fixed_size_px0=SIZE, fixed_mpp=0.5, moving_mpp=0.5, grid_um=4.0)
    inverse = invert(forward, a_size_px0=SIZE, b_size_px0=SIZE)
    points = np.random.default_rng(3).uniform((20, 20), (380, 280), (4000, 2))
    seen = np.median(np.linalg.norm(forward(inverse.transform(points)) - points, axis=1)) * 0.5
    assert seen > 0.02
    assert 0.5 * seen < inverse.residual_um[0] < 3 * seen


def test_the_inverse_of_an_affine_is_exact_and_keeps_the_resolutions_apart():
    forward = Transform(translation(5.0, 7.0) @ scaling(0.5), 0.25, 0.5)
    inverse = invert(forward, a_size_px0=SIZE, b_size_px0=(200, 150)).transform
    assert (inverse.fixed_mpp, inverse.moving_mpp) == (0.5, 0.25)
    np.testing.assert_allclose(inverse(forward(np.array([[3.0, 9.0]]))), [[3.0, 9.0]])


def test_composing_equals_applying_one_after_the_other(warped):
    shift = Transform(translation(-12.5, 4.0), 0.5, 1.0)
    both = compose(shift, warped, a_size_px0=SIZE)
    points = np.random.default_rng(2).uniform((10, 10), (390, 290), (100, 2))
    np.testing.assert_allclose(both(points), shift(warped(points)), atol=1e-3)
    assert both.moving_mpp == 1.0


def test_composing_affines_stays_affine():
    both = compose(Transform(scaling(2.0), 1.0, 0.5), Transform(translation(3.0, 0.0), 1.0, 1.0), a_size_px0=SIZE)
    assert both.field_um is None
    np.testing.assert_allclose(both(np.array([[1.0, 1.0]])), [[8.0, 2.0]])


def test_the_jacobian_of_the_physical_identity_is_one_whatever_the_resolutions():
    assert jacobian(identity(fixed_mpp=0.25, moving_mpp=0.5)) == pytest.approx(1.0)


def test_a_mirrored_transform_does_not_count_as_folded():
    assert fold_frac(Transform(np.diag([-1.0, 1.0, 1.0]), 1.0, 1.0, np.zeros((2, 8, 8)), 4.0)) == 0


def test_a_field_that_runs_backwards_counts_as_folded():
    field = np.zeros((2, 8, 8))
    field[0] = -8.0 * np.arange(8)
    assert fold_frac(Transform(np.eye(3), 1.0, 1.0, field, 4.0)) == 1.0
    assert "folded" in implausible(Transform(np.eye(3), 1.0, 1.0, field, 4.0))


def test_a_section_three_times_as_large_is_implausible():
    assert implausible(identity(fixed_mpp=0.5, moving_mpp=0.25)) == ""
    assert "scales by 3.00" in implausible(Transform(scaling(3.0), 1.0, 1.0))
    assert scales(Transform(scaling(3.0), 1.0, 0.5)) == pytest.approx((1.5, 1.5))


def test_values_that_are_not_finite_are_implausible():
    assert "not finite" in implausible(Transform(np.eye(3), 1.0, 1.0, np.full((2, 4, 4), np.nan), 4.0))
