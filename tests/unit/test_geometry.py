import numpy as np
import pytest

from hepipe.geometry import Box, Transform, apply_affine, identity, sample_field, scaling, translation

POINTS = np.array([[0.0, 0.0], [3.0, 1.0], [10.0, 20.0]])


def test_a_box_scales_with_its_frame():
    assert Box(2, 4, 6, 8).scaled(0.5) == Box(1.0, 2.0, 3.0, 4.0)
    assert (Box(2, 4, 6, 8).right, Box(2, 4, 6, 8).bottom) == (8, 12)


def test_matrices_multiply_from_right_to_left():
    np.testing.assert_allclose(
        apply_affine(translation(1.0, 2.0) @ scaling(2.0, 3.0), POINTS), POINTS * [2, 3] + [1, 2]
    )


def test_identity_of_two_resolutions_keeps_micrometres():
    moved = identity(fixed_mpp=0.5, moving_mpp=0.25)(POINTS)
    np.testing.assert_allclose(moved * 0.25, POINTS * 0.5)


def test_a_field_is_sampled_between_pixel_centres():
    field = np.zeros((2, 2, 3))
    field[0] = [[0, 10, 20], [0, 10, 20]]
    values, inside = sample_field(field, np.array([[0.5, 0.5], [1.0, 0.5], [2.5, 1.5], [3.0, 2.0]]))
    np.testing.assert_allclose(values[:, 0], [0, 5, 20, 20])
    assert inside.all()


def test_a_field_is_zero_outside():
    values, inside = sample_field(np.ones((2, 2, 2)), np.array([[-0.1, 1.0], [2.1, 1.0], [1.0, 1.0]]))
    assert values[:, 0].tolist() == [0, 0, 1]
    assert inside.tolist() == [False, False, True]


def test_a_field_of_one_pixel_is_constant():
    values, _ = sample_field(np.full((2, 1, 1), 4.0), np.array([[0.1, 0.9]]))
    assert values.tolist() == [[4.0, 4.0]]


def test_a_transform_adds_its_field_in_pixels_of_the_moving_slide():
    transform = Transform(scaling(2.0), fixed_mpp=0.5, moving_mpp=0.25, field_um=np.full((2, 4, 4), 1.0), grid_um=10.0)
    np.testing.assert_allclose(transform(POINTS), POINTS * 2 + 4)


def test_points_beyond_the_field_follow_the_affine_alone():
    transform = Transform(scaling(2.0), fixed_mpp=1.0, moving_mpp=1.0, field_um=np.ones((2, 2, 2)), grid_um=4.0)
    moved, inside = transform.trace(np.array([[1.0, 1.0], [9.0, 1.0]]))
    np.testing.assert_allclose(moved, [[3, 3], [18, 2]])
    assert inside.tolist() == [True, False]


def test_an_affine_covers_every_point():
    assert identity(fixed_mpp=1.0, moving_mpp=1.0).trace(POINTS)[1].all()


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_scaling_there_and_back_is_nothing(factor: float):
    np.testing.assert_allclose(apply_affine(scaling(1 / factor) @ scaling(factor), POINTS), POINTS)
