"""Identity: the H&E tile itself; what a metric says when nothing has been stained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jaxtyping import Float, Int
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
    """Nothing to choose."""


PRESETS = {"paper": Config(), "small": Config(), "tiny": Config()}


class Identity(nn.Module):
    """Gives back what it gets."""

    def players(self) -> Mapping[str, nn.Module]:
        return {}

    def optimizer(self, player: str) -> Optimizer:
        raise ValueError(f"identity has no player {player!r}")

    def rate(self, player: str, at: Progress) -> float:
        raise ValueError(f"identity has no player {player!r}")

    def averages(self) -> Mapping[str, Average]:
        return {}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        return iter(())

    def fit(self, batches: Iterable[Batch]) -> None:
        """Nothing to learn; the tiles are not read."""

    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to not in ("ihc", "he"):
            raise ValueError(f"to is {to!r}; identity knows ihc and he only")
        return tiles.clone()


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """The identity; mypy checks here that it keeps the contract."""
    return Identity()
