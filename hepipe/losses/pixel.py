"""Differences of two pictures, pixel by pixel, means over all elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Pixel = Literal["mae", "mse", "smooth_mae", "charbonnier"]


def charbonnier(a: Float[Tensor, "..."], b: Float[Tensor, "..."], *, eps: float = 1e-6) -> Float[Tensor, ""]:
    """The absolute difference, rounded off within about `eps` (Charbonnier et al., ICIP 1994)."""
    return torch.sqrt((a - b).square() + eps**2).mean()


def shrunk(picture: Float[Tensor, "b c h w"], *, side: Sequence[int]) -> Float[Tensor, "b c h2 w2"]:
    """A picture at fewer pixels: bilinear between four neighbours, corners aligned; no blur."""
    return F.interpolate(picture, size=tuple(side), mode="bilinear", align_corners=True)


PIXEL: Mapping[Pixel, Callable[[Tensor, Tensor], Tensor]] = {
    "mae": lambda a, b: F.l1_loss(a.float(), b.float()),
    "mse": lambda a, b: F.mse_loss(a.float(), b.float()),
    "smooth_mae": lambda a, b: F.smooth_l1_loss(a.float(), b.float()),
    "charbonnier": lambda a, b: charbonnier(a.float(), b.float()),
}
