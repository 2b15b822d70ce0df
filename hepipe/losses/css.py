"""Contrast and structure similarity (CSS), and the loss that CSSP2P makes of it (Teixeira et al., DGM4MICCAI 2025).

CSS is the contrast-structure factor of SSIM (Wang et al., IEEE TIP 2004) without its luminance factor.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hepipe.losses.precision import full_precision
from hepipe.losses.pyramid import gaussian_line


def shared_range(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """The larger of the two value ranges found in a batch."""
    return torch.maximum(a.max() - a.min(), b.max() - b.min())


def css(
    a: Float[Tensor, "b c h w"],
    b: Float[Tensor, "b c h w"],
    *,
    value_range: float | Tensor,
    k: float = 0.03,
    window: Literal["gaussian", "box"] = "gaussian",
    side: int = 11,
    sigma: float = 1.5,
) -> Float[Tensor, " b"]:
    """CSS of each image, averaged over channels and the whole area (reflected at the border).

    Args:
        a: One batch of images.
        b: The other.
        value_range: L of the constant (k L)^2.
        k: Its factor.
        window: Weights of the local moments.
        side: Of the window, px.
        sigma: Of a Gaussian window, px.
    """
    with full_precision(a):
        a, b = a.float(), b.float()
        line = gaussian_line(side, sigma) if window == "gaussian" else torch.full((side,), 1 / side)
        line = line.to(a.device).expand(a.shape[0] * a.shape[1], 1, -1)

        def local_mean(x: Tensor) -> Tensor:
            # All planes as channels of one image, which a CPU does in half the time of three channels at a time.
            planes = F.pad(x, (side // 2,) * 4, mode="reflect").flatten(0, 1)[None]
            rows = F.conv2d(planes, line[..., None], groups=len(line))
            return F.conv2d(rows, line[:, :, None], groups=len(line))[0].unflatten(0, x.shape[:2])

        mean_a, mean_b = local_mean(a), local_mean(b)
        var_a = (local_mean(a * a) - mean_a**2).clamp(min=0)
        var_b = (local_mean(b * b) - mean_b**2).clamp(min=0)
        covariance = local_mean(a * b) - mean_a * mean_b
        constant = (k * value_range) ** 2
        return ((2 * covariance + constant) / (var_a + var_b + constant)).mean((1, 2, 3))


def css_loss(similarity: Float[Tensor, " b"], *, eps: float = 1e-8) -> Float[Tensor, ""]:
    """-ln((CSS + 1) / 2 + eps) of every image, averaged; the logarithm is of an image's mean."""
    return -torch.log((similarity.float() + 1) / 2 + eps).mean()
