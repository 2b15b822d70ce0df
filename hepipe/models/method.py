"""The model contract: what the loop asks of a virtual-staining model, and the few types they share.

The contract is a Protocol, satisfied by shape and checked by mypy at each model's `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from hepipe.dataset.batch import Batch

# Not `Self`: the shape checker decorates methods one by one, where beartype cannot resolve it.
_Same = TypeVar("_Same")
_Frozen = TypeVar("_Frozen", bound="Frozen")


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        step: Iterations done; 0 in the first.
        n_steps: Iterations in all.
        steps_per_epoch: Iterations in which every training tile is seen once.
        seed: Of this iteration, the same on every process; what is drawn for a tile is keyed by it (`models/draws.py`).
    """

    step: int
    n_steps: int
    steps_per_epoch: int
    seed: int = 0

    @property
    def epoch(self) -> float:
        """Passes over the training tiles done; a schedule by epoch takes `int(at.epoch)`."""
        return self.step / self.steps_per_epoch

    @property
    def n_epochs(self) -> float:
        """Passes in all."""
        return self.n_steps / self.steps_per_epoch


@dataclass(frozen=True)
class Turn:
    """One update of one player.

    Attributes:
        player: Whose parameters step.
        loss: A mean over tiles.
        logs: Terms of the loss by name, for the history.
        clip: Largest gradient norm, or None.
    """

    player: str
    loss: Float[Tensor, ""]
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    clip: float | None = None


@dataclass(frozen=True)
class Average:
    """An exponential average: after each step of `player`, `into` moves towards `of` by 1 - decay."""

    player: str
    of: nn.Module
    into: nn.Module
    decay: Callable[[Progress], float]


@dataclass(frozen=True)
class Part:
    """Another run's finished model or a weights file.

    Attributes:
        state: Tensors by name.
        config: The run's model config; empty for a weights file.
        sha256: Of the file.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    sha256: str


@runtime_checkable
class Method(Protocol):
    """A virtual-staining model that the loop can train.

    Whatever changes in training is a parameter, a buffer, or in `get_extra_state` (pools, queues, an adaptive p).
    Extra state is in checkpoints only: the finished model omits it, as pools hold images made from patients' tiles,
    and loads without it.
    """

    def players(self) -> Mapping[str, nn.Module]:
        """Parts that take turns, by name, each with one optimizer.

        Networks stepped together are one player; no parameter belongs to two, every trainable one belongs to one.
        """

    def optimizer(self, player: str) -> Optimizer:
        """A fresh optimizer for one player, as the paper sets it."""

    def rate(self, player: str, at: Progress) -> float:
        """Factor on the player's base learning rates, asked before each of its steps."""

    def averages(self) -> Mapping[str, Average]:
        """Exponential averages by name; the method owns `into`, so it is saved. Empty for none."""

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        """The updates of one iteration, in order; the loop steps each before it asks for the next.

        Code after a `yield` runs after that step, once per micro-batch, so it may only do what bears repeating.
        Which turns come depends on `at` and the config, never on data. No `with` stays open across a `yield`. No
        turn uses a graph through weights that have stepped since. Random numbers come from torch's global generator.
        """

    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        """Virtual tiles in [-1, 1].

        `to` is ihc or he; a model of several markers takes a marker of its config instead and refuses ihc. A seed a
        tile: same tile and seed, same picture, alone or in a batch.
        """

    # every nn.Module has these
    def to(self: _Same, device: torch.device) -> _Same: ...  # noqa: D102
    def train(self: _Same, mode: bool = True) -> _Same: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object: ...  # noqa: D102


@runtime_checkable
class Fits(Protocol):
    """A method without players, such as Reinhard: the loop calls `fit` once; what it learns is a buffer."""

    def fit(self, batches: Iterable[Batch]) -> None:
        """Learn from the training tiles, seen once."""


@runtime_checkable
class DifferentiatesTwice(Protocol):
    """A method with a penalty on a gradient, such as R1: a compiled network gives first derivatives only."""

    def differentiated_twice(self) -> Collection[nn.Module]:
        """The networks that such a penalty goes through; they are never compiled."""


class Frozen(nn.Module):
    """A part that never trains: no gradient, always in eval mode, moved by `to`, absent from the state dict.

    It is saved by reference: the run's config holds its hash.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        # In a list, so that nn.Module neither registers nor saves it.
        self._hidden = [module.eval()]

    @property
    def module(self) -> nn.Module:
        """The part itself."""
        return self._hidden[0]

    def forward(self, *inputs: Tensor) -> Any:
        """The part's output; gradients flow to the inputs."""
        return self.module(*inputs)

    def _apply(self: _Frozen, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Frozen:
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def train(self: _Frozen, mode: bool = True) -> _Frozen:
        """Stay in eval mode."""
        return self
