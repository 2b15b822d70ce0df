"""Contrast between patches of an output and of its source.

PatchNCE: Park et al., Contrastive Learning for Unpaired Image-to-Image Translation, ECCV 2020, equations 3 and 4.
Adaptive weights: Li et al., Adaptive Supervised PatchNCE Loss, MICCAI 2023, equations 3 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hepipe.losses.precision import full_precision

DIAGONAL = -10.0
"""Similarity that the positive has among the negatives: next to nothing after the temperature."""


def unit_rows(rows: Float[Tensor, "*s d"], *, shift: Literal["after", "inside"] = "after") -> Float[Tensor, "*s d"]:
    """Rows over their length. `after` adds 1e-7 to the length (CUT), `inside` to each entry before it (ASP)."""
    rows = rows.float()
    if shift == "inside":
        return rows / torch.linalg.vector_norm(rows + 1e-7, dim=-1, keepdim=True)
    return rows / (torch.linalg.vector_norm(rows, dim=-1, keepdim=True) + 1e-7)


def patch_nce(
    query: Float[Tensor, "b p d"],
    key: Float[Tensor, "b p d"],
    *,
    temperature: float = 0.07,
    across_batch: bool = False,
) -> Float[Tensor, "b p"]:
    """Contrastive loss of each output patch; the negatives are the other patches of its image.

    Args:
        query: Unit-length features of p patches of the output.
        key: Features of the same p places in the source. No gradient flows into them.
        temperature: Divides the similarities.
        across_batch: The patches of all images are negatives.

    Returns:
        Loss of every patch, so that callers may weight places before averaging.
    """
    shape = query.shape[:2]
    if across_batch:
        query, key = query.flatten(0, 1)[None], key.flatten(0, 1)[None]
    with full_precision(query):
        similarity = query.float() @ key.detach().float().transpose(1, 2)
    positive = similarity.diagonal(dim1=1, dim2=2)[:, :, None]
    same = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    logits = torch.cat([positive, similarity.masked_fill(same, DIAGONAL)], dim=2) / temperature
    target = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none").reshape(shape)


Schedule = Literal["zero", "linear", "sigmoid", "lambda"]
Lookup = Literal["uniform", "linear", "top", "bell"]


def trust_in_all(schedule: Schedule, *, epoch: int, constant: int, decay: int) -> float:
    """The share of equal weight, 1 at first; the rest goes by similarity.

    Args:
        schedule: How it falls; `lambda` stays at 1 through the epochs at the full learning rate.
        epoch: From 1.
        constant: Epochs at the full learning rate.
        decay: Epochs in which that falls.
    """
    total = constant + decay
    passed = (epoch - 1) / total
    if schedule == "zero":
        return 1.0
    if schedule == "linear":
        return 1 - passed
    if schedule == "sigmoid":
        return 1 / (1 + math.exp(10 * (passed - 0.5)))
    start = constant / total
    if passed < start or decay == 0:
        return 1.0
    slope = 1 / (1 - start)
    return slope - slope * passed


def _top(similarity: Tensor) -> Tensor:
    return (1 - (similarity.clamp(min=0) - 1).square()).clamp(min=0).sqrt()


def _bell(similarity: Tensor) -> Tensor:
    return torch.exp(-((4 * (similarity - 0.5)).square()) / 2) / math.sqrt(2 * math.pi)


LOOKUPS: Mapping[Lookup, Callable[[Tensor], Tensor]] = {
    "uniform": torch.ones_like,
    "linear": lambda similarity: similarity.clamp(min=0),
    "top": _top,
    "bell": _bell,
}


@torch.no_grad()
def adaptive_weights(
    similarity: Float[Tensor, "*s"],
    *,
    lookup: Lookup,
    trust: float,
    over_all: Callable[[Float[Tensor, ""]], Float[Tensor, ""]] = torch.Tensor.detach,
) -> Float[Tensor, "*s"]:
    """Weights of mean 1 over all patches of the call, not image by image.

    Args:
        similarity: Cosine of each patch of the output to its partner in the real IHC.
        lookup: Weight by similarity.
        trust: Of `trust_in_all`.
        over_all: From the mean of this call the one to divide by, where other processes hold patches too.
    """
    weights = trust + (1 - trust) * LOOKUPS[lookup](similarity.float())
    return weights / over_all(weights.mean())
