"""A rate that falls when a loss stops falling."""

from __future__ import annotations

from typing import Any

from torch import nn

from hepipe.models.method import Progress


class Plateau(nn.Module):
    """Factor on a rate, cut whenever the loss has not fallen for some time; torch's ReduceLROnPlateau, resumable.

    Args:
        factor: Of a cut.
        patience: Steps without a fall that are borne.
        cooldown: Steps after a cut that do not count.
        floor: Lowest factor.
        threshold: A loss has fallen when it is below the best by this share.
    """

    def __init__(self, *, factor: float, patience: int, cooldown: int, floor: float, threshold: float = 1e-4) -> None:
        super().__init__()
        self.cut, self.patience, self.cooldown, self.floor, self.threshold = (
            factor,
            patience,
            cooldown,
            floor,
            threshold,
        )
        self.factor = 1.0
        self.best: float | None = None
        self.waited = self.resting = 0
        self.seen = -1

    def watch(self, loss: float, at: Progress) -> None:
        """Take in the loss of a step; of the pieces of one batch, the first piece's."""
        if at.step == self.seen:
            return
        self.seen = at.step
        if self.best is None or loss < self.best * (1 - self.threshold):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.resting > 0:
            self.resting, self.waited = self.resting - 1, 0
        if self.waited > self.patience:
            self.factor = max(self.factor * self.cut, self.floor)
            self.resting, self.waited = self.cooldown, 0

    def get_extra_state(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {name: getattr(self, name) for name in _STATE}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name in _STATE:
            setattr(self, name, state[name])


_STATE = ("factor", "best", "waited", "resting", "seen")
