"""Pixel map: three 1 x 1 convolutions under L1, the best that colour alone can do.

A virtual stainer that does not beat it has not learnt from morphology.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from hepipe.dataset.batch import Batch
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.specs.base import Spec

PAIRING = "paired"
NEEDS: dict[str, tuple[str, ...]] = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 1}}
STREAMS: dict[str, tuple[str, int]] = {}
NOT_RELEASED = "it is a baseline of ours, which nobody has published"
# Ours, so nothing is published.
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": None, "batch_size": None, "steps": None}}


class Config(Spec):
    """Hyperparameters of the colour map."""

    width: int = Field(64, gt=0, description="Hidden channels.")
    learning_rate: float = Field(2e-3, gt=0)


PRESETS = {"paper": Config(), "small": Config(width=32), "tiny": Config(width=8)}


class PixelMap(nn.Module):
    """A function of one pixel's colour."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.map = nn.Sequential(
            nn.Conv2d(3, config.width, 1),
            nn.ReLU(),
            nn.Conv2d(config.width, config.width, 1),
            nn.ReLU(),
            nn.Conv2d(config.width, 3, 1),
            nn.Tanh(),
        )

    def players(self) -> Mapping[str, nn.Module]:
        return {"map": self.map}

    def optimizer(self, player: str) -> Optimizer:
        return Adam(self.map.parameters(), lr=self.config.learning_rate)

    def rate(self, player: str, at: Progress) -> float:
        # Constant, then falling to 0 over the second half, so that the end does not hang on the last batches.
        return min(1.0, 2 * (1 - at.step / at.n_steps))

    def averages(self) -> Mapping[str, Average]:
        return {}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        yield Turn("map", F.l1_loss(self.map(batch.he).float(), batch.ihc))

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; pixel_map stains H&E as ihc only")
        return self.map(tiles)


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh colour map; mypy checks here that it keeps the contract."""
    return PixelMap(config)
