"""L1 at several scales, in the three published forms, which differ in kernel, border, downsampling and weights.

`octave_l1`: Pyramid pix2pix (Liu et al., CVPR workshops 2022). `pooled_l1`: CSSP2P (Teixeira et al., DGM4MICCAI 2025).
`binomial_l1`: ASP (Li et al., MICCAI 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hepipe.losses.precision import full_precision


def gaussian_line(side: int, sigma: float) -> Float[Tensor, " k"]:
    """A Gaussian that sums to 1, made in float64."""
    distance = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-(distance**2) / (2 * sigma**2))
    return (line / line.sum()).float()


def gaussian_kernel(side: int, sigma: float) -> Float[Tensor, "k k"]:
    """A square Gaussian that sums to 1."""
    line = gaussian_line(side, sigma)
    return torch.outer(line, line)


def blur(
    image: Float[Tensor, "b c h w"], kernel: Float[Tensor, "k k"], *, border: Literal["reflect", "zero"]
) -> Float[Tensor, "b c h w"]:
    """Every channel convolved with an odd kernel, at the same side."""
    margin = kernel.shape[0] // 2
    mode = "constant" if border == "zero" else "reflect"
    with full_precision(image):
        # All planes as channels of one image: a third of the time of three channels at a time on a CPU.
        planes = F.pad(image.float(), (margin,) * 4, mode=mode).flatten(0, 1)[None]
        weight = kernel.to(image.device, torch.float32).expand(planes.shape[1], 1, -1, -1)
        return F.conv2d(planes, weight, groups=planes.shape[1])[0].unflatten(0, image.shape[:2])


def octaves(
    image: Float[Tensor, "b c h w"], n: int, *, blurs: int = 4, side: int = 3, sigma: float = 1.0
) -> list[Float[Tensor, "b c _ _"]]:
    """The image and n - 1 octaves below it: blurred four times, then every second pixel, the first kept."""
    kernel = gaussian_kernel(side, sigma)
    levels = [image.float()]
    for _ in range(n - 1):
        level = levels[-1]
        for _ in range(blurs):
            level = blur(level, kernel, border="reflect")
        levels.append(level[:, :, ::2, ::2])
    return levels


def octave_l1(fake: Float[Tensor, "b c h w"], real: Float[Tensor, "b c h w"], n: int) -> Float[Tensor, " n"]:
    """Mean absolute difference at each of n octaves, unweighted; gradients flow through all of them."""
    # Blurring is linear: the octaves of the difference are the differences of the octaves.
    return torch.stack([level.abs().mean() for level in octaves(fake.float() - real.float(), n)])


def pool_scale(
    image: Float[Tensor, "b c h w"], *, blurs: int = 4, side: int = 3, sigma: float = 1.0
) -> Float[Tensor, "b c h2 w2"]:
    """The next scale of `pooled_l1`: blurs with zeros outside, then a 3x3 average of stride 2 that counts the zeros."""
    kernel = gaussian_kernel(side, sigma)
    for _ in range(blurs):
        image = blur(image, kernel, border="zero")
    return F.avg_pool2d(image, 3, stride=2, padding=1)


def pooled_l1(
    fake: Float[Tensor, "b c h w"],
    real: Float[Tensor, "b c h w"],
    *,
    n: int = 4,
    grad: Literal["all", "octave0"] = "all",
) -> Float[Tensor, " n"]:
    """Mean absolute difference at each of n scales, unweighted.

    Args:
        fake: Output.
        real: Target.
        n: Scales, the image itself the first.
        grad: `octave0` builds the scales below the image without gradient, as the released code does; they then only
            add a constant.
    """
    difference = fake.float() - real.float()
    terms = [difference.abs().mean()]
    with torch.set_grad_enabled(grad == "all" and torch.is_grad_enabled()):
        for _ in range(n - 1):
            difference = pool_scale(difference)
            terms.append(difference.abs().mean())
    return torch.stack(terms)


def weighted_mean(terms: Float[Tensor, " n"], weights: Sequence[float]) -> Float[Tensor, ""]:
    """The terms averaged with these weights."""
    factors = torch.tensor(weights, dtype=terms.dtype, device=terms.device)
    return (terms * factors).sum() / factors.sum()


def binomial_levels(image: Float[Tensor, "b c h w"], n_filtered: int = 5) -> list[Float[Tensor, "b c _ _"]]:
    """The image blurred by a 5 x 5 binomial kernel, every second px of that blurred, and so on.

    The last level is every second px of the one before, not blurred. Borders are reflected.
    """
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    kernel = torch.outer(line, line) / 256
    levels: list[Tensor] = []
    level = image.float()
    for _ in range(n_filtered):
        levels.append(blur(level, kernel, border="reflect"))
        level = levels[-1][:, :, ::2, ::2]
    return [*levels, level]


BINOMIAL_WEIGHTS = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Of the levels of `binomial_l1`, the finest first: coarse ones dominate by design (ASP's released code)."""


BINOMIAL_LEAST_PX = 64


def binomial_l1(
    fake: Float[Tensor, "b c h w"], real: Float[Tensor, "b c h w"], *, weights: Sequence[float] = BINOMIAL_WEIGHTS
) -> Float[Tensor, ""]:
    """Mean over the levels of the weighted mean absolute difference: divided by their number, not the sum of weights.

    Sides must be multiples of 32 and at least `BINOMIAL_LEAST_PX`, or the coarsest blur has nothing to reflect.

    Args:
        fake: Output.
        real: Target.
        weights: Of the levels, the finest first; their number is that of the levels.
    """
    levels = binomial_levels(fake.float() - real.float(), len(weights) - 1)
    weighted = [weight * level.abs().mean() for weight, level in zip(weights, levels, strict=True)]
    return torch.stack(weighted).mean()
