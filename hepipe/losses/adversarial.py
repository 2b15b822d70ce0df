"""Adversarial terms on a map of logits, means over all its elements.

Sources: vanilla, Goodfellow et al., NeurIPS 2014 (cross entropy, non-saturating); lsgan, Mao et al., ICCV 2017;
wgangp, Gulrajani et al., NeurIPS 2017 (its gradient penalty is separate). A generator's term is `_real` on its fake; a
discriminator's loss is half the sum of `_fake` and `_real`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Gan = Literal["vanilla", "lsgan", "wgangp"]


def vanilla_real(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Cross entropy of the logits with 1."""
    return F.softplus(-logits.float()).mean()


def vanilla_fake(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Cross entropy of the logits with 0."""
    return F.softplus(logits.float()).mean()


def lsgan_real(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Squared distance of the logits from 1."""
    return (logits.float() - 1).square().mean()


def lsgan_fake(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Squared distance of the logits from 0."""
    return logits.float().square().mean()


def wgan_real(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Falls as the logits rise."""
    return -logits.float().mean()


def wgan_fake(logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Rises with the logits."""
    return logits.float().mean()


def smoothed_lsgan(
    maps: Sequence[Float[Tensor, "b 1 _ _"]], smoothing: Sequence[Float[Tensor, "b 1 _ _"]], *, real: bool
) -> Float[Tensor, ""]:
    """Squared distance of maps of several scales from smoothed targets, mean over each map, then over scales.

    Args:
        maps: Logits.
        smoothing: How far each element's target is from 1 (of a real picture) or 0, towards the other.
        real: Which of both.
    """
    targets = [1 - u if real else u for u in smoothing]
    return torch.stack([(a.float() - b).square().mean() for a, b in zip(maps, targets, strict=True)]).mean()


class Sides(NamedTuple):
    """Both terms of one objective."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]


ADVERSARIAL: Mapping[Gan, Sides] = {
    "vanilla": Sides(vanilla_real, vanilla_fake),
    "lsgan": Sides(lsgan_real, lsgan_fake),
    "wgangp": Sides(wgan_real, wgan_fake),
}
