"""Losses on classes: the focal loss of Lin et al., ICCV 2017, with a weight for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def focal(
    logits: Float[Tensor, "b classes"],
    labels: Int[Tensor, " b"],
    *,
    weights: Sequence[float],
    gamma: float = 2.0,
) -> Float[Tensor, " b"]:
    """Cross entropy of each sample, less where it is right already: w (1 - p)^gamma (-ln p).

    Args:
        logits: Of each class.
        labels: The true class.
        weights: Of each class; the mean over samples is not divided by their sum.
        gamma: How much less; 0 is plain cross entropy.
    """
    entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    own = torch.tensor(weights, device=logits.device)[labels]
    return own * (1 - torch.exp(-entropy)) ** gamma * entropy
