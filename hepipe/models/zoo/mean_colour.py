"""Mean colour: every tile becomes the training IHC's mean colour; the least that a metric of colour must reward.

Preset `shift` keeps the H&E's structure and only adds the difference of the two mean colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from hepipe.dataset.batch import Batch
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.specs.base import Spec

PAIRING = "both"
NEEDS: dict[str, tuple[str, ...]] = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 1}}
STREAMS: dict[str, tuple[str, int]] = {}
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": 0, "batch_size": None, "steps": 0}}


class Config(Spec):
    """What becomes of a tile."""

    keep_structure: bool = Field(False, description="Add the difference of the mean colours instead of replacing.")


PRESETS = {
    "paper": Config(),
    "shift": Config(keep_structure=True),
    "small": Config(),
    "tiny": Config(),
}


class MeanColour(nn.Module):
    """Two mean colours."""

    he: Tensor
    ihc: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("he", torch.zeros(3))
        self.register_buffer("ihc", torch.zeros(3))

    def players(self) -> Mapping[str, nn.Module]:
        return {}

    def optimizer(self, player: str) -> Optimizer:
        raise ValueError(f"mean_colour has no player {player!r}")

    def rate(self, player: str, at: Progress) -> float:
        raise ValueError(f"mean_colour has no player {player!r}")

    def averages(self) -> Mapping[str, Average]:
        return {}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        return iter(())

    @torch.no_grad()
    def fit(self, batches: Iterable[Batch]) -> None:
        he, ihc, n_tiles = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
        for batch in batches:
            he += batch.he.double().mean(dim=(2, 3)).sum(dim=0).cpu()
            ihc += batch.ihc.double().mean(dim=(2, 3)).sum(dim=0).cpu()
            n_tiles += len(batch)
        self.he.copy_(he / n_tiles)
        self.ihc.copy_(ihc / n_tiles)

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to not in ("ihc", "he"):
            raise ValueError(f"to is {to!r}; mean_colour knows ihc and he only")
        source, target = (self.he, self.ihc) if to == "ihc" else (self.ihc, self.he)
        if self.config.keep_structure:
            return (tiles + (target - source)[:, None, None]).clamp(-1, 1)
        return target[:, None, None].expand_as(tiles).clone()


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """Mean colours still to be learnt; mypy checks here that it keeps the contract."""
    return MeanColour(config)
