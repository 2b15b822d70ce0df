"""Learning-rate factors that several papers share; pure arithmetic."""

from __future__ import annotations

import math

from hepipe.models.method import Progress


def linear_decay(steps: int, *, constant: int, decay: int) -> float:
    """Factor after some scheduler steps: 1 at first, then linear to 1 / (decay + 1) in the last epoch.

    pix2pix's rule (Isola et al., CVPR 2017). Stepped at the end of every epoch, epoch e (counted from 0) runs after e
    steps; stepped at its start, as their current code does, after e + 1, so the last epoch has rate 0.

    Args:
        steps: Scheduler steps taken.
        constant: Epochs at the full rate.
        decay: Epochs of decay.
    """
    return 1.0 - max(0, steps + 1 - constant) / (decay + 1)


def warmup_cosine(epoch: float, *, warmup: int, epochs: int) -> float:
    """Factor at a fractional epoch: linear from 0 to 1 over the warm-up, then half a cosine to 0 at the end."""
    if epoch < warmup:
        return epoch / warmup
    return (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2


def share_epochs(at: Progress, *, constant: int, decay: int) -> tuple[int, int]:
    """A published (constant, decay) stretched to the epochs of this run, at the same share.

    A run of exactly constant + decay epochs keeps both numbers.
    """
    total = max(1, math.ceil(at.n_epochs))
    own = round(total * constant / (constant + decay))
    return own, total - own
