import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from hepipe.metrics import ssim


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(5)
    ramp = np.add.outer(np.arange(180), np.arange(184))[..., None] * np.array([0.4, 0.5, 0.6])
    real = np.clip(ramp + rng.normal(0, 8, (180, 184, 3)), 0, 255).astype(np.uint8)
    fake = np.clip(real * 0.9 + rng.normal(0, 12, real.shape), 0, 255).astype(np.uint8)
    return fake, real


def as_torch(tile):
    return torch.from_numpy(tile.astype(np.float64) / 255).permute(2, 0, 1)[None]


def test_ssim_equals_torchmetrics_in_double(pair):
    fake, real = map(as_torch, pair)
    expected = structural_similarity_index_measure(fake, real, data_range=1.0)
    assert ssim.ssim(*pair) == pytest.approx(float(expected), abs=1e-7)


def test_multi_scale_ssim_equals_torchmetrics_in_double(pair):
    fake, real = map(as_torch, pair)
    expected = multiscale_structural_similarity_index_measure(fake, real, data_range=1.0)
    assert ssim.msssim(*pair) == pytest.approx(float(expected), abs=1e-7)


def test_ssim_sk7_equals_scikit_image_by_default(pair):
    expected = structural_similarity(*pair, channel_axis=2)
    assert ssim.ssim_sk7(*pair) == pytest.approx(expected, abs=1e-10)


def test_the_shared_pass_gives_what_the_single_functions_give(pair):
    both = ssim.similarities(*pair)
    assert both == ssim.Similarities(ssim.ssim(*pair), ssim.css(*pair), ssim.msssim(*pair))


@pytest.mark.parametrize("metric", [ssim.ssim, ssim.ssim_sk7, ssim.msssim, ssim.css, ssim.css_u5])
def test_a_tile_is_like_itself(pair, metric):
    assert metric(pair[1], pair[1]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("metric", [ssim.ssim, ssim.ssim_sk7, ssim.msssim, ssim.css, ssim.css_u5])
def test_more_noise_is_less_alike(pair, metric):
    real = pair[1]
    noise = np.random.default_rng(0).normal(0, 1, real.shape)
    values = [metric(np.clip(real + sd * noise, 0, 255).astype(np.uint8), real) for sd in (4, 16, 40)]
    assert values == sorted(values, reverse=True)


def test_flat_tiles_have_a_value():
    grey, white = np.full((32, 32, 3), 128, np.uint8), np.full((32, 32, 3), 255, np.uint8)
    assert 0 < ssim.ssim(grey, white) < 1
    assert ssim.css(grey, white) == pytest.approx(1)


def test_multi_scale_ssim_of_a_small_tile_is_undefined():
    tile = np.zeros((175, 200, 3), np.uint8)
    assert math.isnan(ssim.msssim(tile, tile))


def test_a_tile_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match="at least 6 px expected, found 5 x 5"):
        ssim.ssim(np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5, 3), np.uint8))
