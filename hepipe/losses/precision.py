"""Losses are float32, whatever precision the networks ran in."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast, for products inside a loss; inputs are still to be made float32.

    Blurs and moments are differences of nearly equal numbers, which bfloat16's 8 bits cannot hold.
    """
    return torch.autocast(like.device.type, enabled=False)
