"""Random numbers of a tile: the same whichever batch, piece of a batch or process the tile is in.

What a method draws from torch's global generator depends on how many tiles a process sees. Times and noise of a
diffusion model are drawn here instead, so that two processes train like one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hepipe.models.method import Progress


def tile_generators(tile_ids: Sequence[str], at: Progress, *, use: str) -> list[torch.Generator]:
    """A generator on the CPU for each tile, by iteration, tile and use.

    Args:
        tile_ids: Of the batch.
        at: Its `seed` names the iteration.
        use: What is drawn, such as `noise`; two uses never share numbers.
    """
    return [torch.Generator().manual_seed(_key(f"{at.seed}/{tile}/{use}")) for tile in tile_ids]


def draw_normal(generators: Sequence[torch.Generator], *, like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Standard normal numbers of the shape and device of `like`, float32, a generator a tile."""
    drawn = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(drawn).to(like.device, non_blocking=True)


def draw_uniform(
    generators: Sequence[torch.Generator], *, like: Float[Tensor, "b ..."], below: float = 1.0
) -> Float[Tensor, "b ..."]:
    """Numbers from 0 to below `below`, of the shape and device of `like`, float32, a generator a tile."""
    drawn = [torch.rand(like.shape[1:], generator=generator) for generator in generators]
    return below * torch.stack(drawn).to(like.device, non_blocking=True)


def draw_whole(generators: Sequence[torch.Generator], *, below: int, device: torch.device) -> Int[Tensor, " b"]:
    """A whole number from 0 to `below` - 1 for each generator."""
    drawn = [torch.randint(below, (), generator=generator) for generator in generators]
    return torch.stack(drawn).to(device)


def shared_generator(at: Progress, *, use: str) -> torch.Generator:
    """A generator on the CPU for what all tiles of an iteration share, the same on every process."""
    return torch.Generator().manual_seed(_key(f"{at.seed}//{use}"))


def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
