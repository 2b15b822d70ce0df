"""Structural similarity as a loss (Wang et al., IEEE TIP 2004), over the places where the whole window fits."""

from __future__ import annotations

import torch
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
        line = gaussian_line(side, sigma).to(a.device).expand(4 * channels, 1, 1, side)

        a, b = a.float(), b.float()
        # All windows' means in one pass: half the time of one after the other on a CPU. Of the variances, only
        # their sum is needed.
        moments = torch.cat([a, b, a * a + b * b, a * b], 1)
        moments = F.conv2d(moments, line, groups=4 * channels)
        moments = F.conv2d(moments, line.transpose(2, 3), groups=4 * channels)
        mean_a, mean_b, mean_squares, mean_ab = moments.chunk(4, 1)
        product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
        c1, c2 = (k1 * value_range) ** 2, (k2 * value_range) ** 2
        luminance = (2 * product + c1) / (squares + c1)
        structure = (2 * (mean_ab - product) + c2) / (mean_squares - squares + c2)
        return (luminance * structure).mean((1, 2, 3))
