"""Learning-rate factors that several papers share; pure arithmetic."""

from __future__ import annotations

import math
from typing import Literal

from hepipe.errors import ConfigError
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

    A run of exactly constant + decay epochs keeps both numbers; one of a single epoch, or less, has no decay.
    """
    total = max(1, math.ceil(at.n_epochs))
    own = max(1, round(total * constant / (constant + decay)))
    return own, total - own


def stepped_decay(at: Progress, *, constant: int, decay: int, step: Literal["epoch_end", "epoch_start"]) -> float:
    """pix2pix's factor, with the published epochs as a share of the run's, stepped at either end of an epoch.

    Raises:
        ConfigError: A run of one epoch that is stepped at its start, where the rate of the last epoch is 0.
    """
    own, fall = share_epochs(at, constant=constant, decay=decay)
    started = 1 if step == "epoch_start" else 0
    if started and own + fall == 1:
        raise ConfigError(
            f"options.lr_step: epoch_start gives the last epoch rate 0, and this run of {at.n_steps} steps has but one "
            f"epoch of {at.steps_per_epoch}, so that nothing would be learnt; train for more than {at.steps_per_epoch} "
            "steps, or set options.lr_step: epoch_end"
        )
    return linear_decay(int(at.epoch) + started, constant=own, decay=fall)
