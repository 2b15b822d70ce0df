import numpy as np
import pytest

from hepipe.stains.deconvolution import Separator, optical_density, separate
from hepipe.stains.matrices import DAB, HAEMATOXYLIN, stain_matrix

MATRIX = stain_matrix(HAEMATOXYLIN, DAB)


@pytest.fixture
def picture():
    return np.random.default_rng(5).integers(0, 256, (150, 70, 3), dtype=np.uint8)


def test_optical_density_is_base_10_and_0_counts_as_1():
    grey = np.array([[[255, 25, 0]]], np.uint8)
    np.testing.assert_allclose(optical_density(grey)[0, 0], [0, np.log10(255 / 25), np.log10(255)], atol=1e-6)


def test_the_fast_path_equals_an_independent_solve(picture):
    white = (240.0, 245.0, 250.0)
    density = -np.log10(np.maximum(picture, 1) / np.array(white))
    expected = np.linalg.solve(MATRIX.T, density.reshape(-1, 3).T).T.reshape(density.shape)
    got = Separator(MATRIX, white)(picture)
    np.testing.assert_allclose(got, np.moveaxis(np.maximum(expected[..., :2], 0), -1, 0), atol=2e-5)


def test_a_buffer_is_filled_and_given_back(picture):
    buffer = np.full((1, 150, 70), -1, np.float32)
    separator = Separator(MATRIX, stains=(1,))
    assert separator(picture, out=buffer) is buffer
    np.testing.assert_array_equal(buffer[0], Separator(MATRIX)(picture)[1])


def test_negative_amounts_become_0():
    assert separate(np.array([[-0.1, 0.2, 0.0]]), MATRIX).min() == 0
