"""Structural similarity as a loss (Wang et al., IEEE TIP 2004), over the places where the whole window fits."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hepipe.losses.precision import full_precision
from hepipe.losses.pyramid import gaussian_line


def ssim(
    a: Float[Tensor, "b c h w"],
    b: Float[Tensor, "b c h w"],
    *,
    value_range: float = 1.0,
    side: int = 9,
    sigma: float = 2.375,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Float[Tensor, " b"]:
    """SSIM of each image, mean over channels and places; 1 for equal images.

    Args:
        a: One batch of images.
        b: The other.
        value_range: Between the least and the greatest possible value.
        side: Of the Gaussian window, px; the images are at least as large. 9 and 2.375 are BCIstainer's.
        sigma: Of the window, px.
        k1: Factor of the luminance constant (k1 range)^2.
        k2: Factor of the contrast constant.
    """
    channels = a.shape[1]
    with full_precision(a):
        line = gaussian_line(side, sigma).to(a.device).expand(channels, 1, 1, side)

        def mean(x: Tensor) -> Tensor:
            return F.conv2d(F.conv2d(x, line, groups=channels), line.transpose(2, 3), groups=channels)

        a, b = a.float(), b.float()
        mean_a, mean_b = mean(a), mean(b)
        variance_a, variance_b = mean(a * a) - mean_a.square(), mean(b * b) - mean_b.square()
        covariance = mean(a * b) - mean_a * mean_b
        c1, c2 = (k1 * value_range) ** 2, (k2 * value_range) ** 2
        luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
        structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
        return (luminance * structure).mean((1, 2, 3))
