"""Projection heads of patch contrast (Park et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class PatchHeads(nn.Module):
    """A two-layer perceptron for each tapped map, on sampled places.

    Args:
        channels: Of each map.
        width: Of the hidden layer and the output.
    """

    def __init__(self, channels: Sequence[int], *, width: int = 256) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width)) for inputs in channels
        )

    def forward(
        self, maps: Sequence[Float[Tensor, "b _ _ _"]], places: Sequence[Int[Tensor, " _"]]
    ) -> list[Float[Tensor, "b _ d"]]:
        """Projections at the places of each map, not normalised."""
        return [
            head(at_places(features, chosen)) for head, features, chosen in zip(self.mlps, maps, places, strict=True)
        ]


def at_places(features: Float[Tensor, "b c h w"], places: Int[Tensor, " p"]) -> Float[Tensor, "b p c"]:
    """The features at flat places (row * w + column), the same for every picture of a batch."""
    return features.flatten(2)[:, :, places].transpose(1, 2)


def draw_places(
    maps: Sequence[Float[Tensor, "b _ _ _"]], n: int, generator: torch.Generator | None = None
) -> list[Int[Tensor, " _"]]:
    """At most n flat places of each map, without repetition; drawn on the CPU, from torch's global generator if none.

    The same numbers on a GPU as on a CPU, and the same on every process that gives a generator of the same seed.
    """
    sizes = [(features.shape[2] * features.shape[3], features.device) for features in maps]
    return [torch.randperm(size, generator=generator)[:n].to(device) for size, device in sizes]


def head_name(released: str) -> str:
    """Our name of a tensor of the authors' heads, `mlp_<tap>.<layer>.<leaf>`."""
    return "mlps." + released.removeprefix("mlp_") if released.startswith("mlp_") else released
