import numpy as np
import pytest

from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, angle_deg, stain_matrix


def test_rows_have_unit_length_and_the_third_is_at_right_angles():
    for second in (EOSIN, DAB):
        matrix = stain_matrix(HAEMATOXYLIN, second)
        np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1)
        np.testing.assert_allclose(matrix[:2] @ matrix[2], 0, atol=1e-12)


def test_parallel_vectors_are_refused():
    with pytest.raises(ValueError, match="parallel"):
        stain_matrix(DAB, (0.54, 1.14, 1.56))


def test_a_right_angle_is_90_degrees():
    assert angle_deg((1.0, 0.0, 0.0), (0.0, 2.0, 0.0)) == pytest.approx(90)
