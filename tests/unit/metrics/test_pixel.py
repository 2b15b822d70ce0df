import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from hepipe.metrics import pixel


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (2, 24, 20, 3), dtype=np.uint8)


def test_psnr_equals_scikit_image(pair):
    assert pixel.psnr(*pair) == pytest.approx(peak_signal_noise_ratio(*pair))


def test_errors_do_not_wrap_around_at_eight_bits():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert pixel.mae(black, white) == pixel.mae(white, black) == 255
    assert pixel.mse(black, white) == 255**2
    assert pixel.psnr(black, white) == 0


def test_identical_tiles_have_an_infinite_psnr(pair):
    assert pixel.psnr(pair[0], pair[0]) == math.inf
