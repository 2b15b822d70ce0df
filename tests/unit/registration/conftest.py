import numpy as np
import pytest
from registration_drawing import draw_section


@pytest.fixture
def section():
    return draw_section(5)


@pytest.fixture
def tissue_points(section):
    rows, columns = np.nonzero(section > 0.2)
    return np.stack([columns, rows], axis=1)[::37] + 0.5
