"""Staining by a network as it is, or by the statistics of the single tile, as several released test scripts do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def stain_in_eval_mode(network: nn.Module, tiles: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The network's output with running statistics and without dropout."""
    with in_mode(network, train=False):
        output: Tensor = network(tiles)
    return output


def stain_by_own_statistics(
    network: nn.Module, tiles: Float[Tensor, "b 3 h w"], seeds: Int[Tensor, " b"]
) -> Float[Tensor, "b 3 h w"]:
    """The network's output in train mode, tile by tile: the tile's own statistics, dropout drawn from its seed."""
    with in_mode(network, train=True):
        return torch.cat([_alone(network, tiles[i : i + 1], int(seed)) for i, seed in enumerate(seeds)])


VERSIONS: tuple[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]], ...] = (
    (lambda x: x, lambda x: x),
    *(((lambda x, k=k: torch.rot90(x, k, (-2, -1))), (lambda x, k=k: torch.rot90(x, -k, (-2, -1)))) for k in (1, 2, 3)),
    (lambda x: x.flip(-1), lambda x: x.flip(-1)),
    (lambda x: x.flip(-2), lambda x: x.flip(-2)),
    (lambda x: x.transpose(-2, -1), lambda x: x.transpose(-2, -1)),
)
"""Seven of the eight ways to lay a tile, each with its way back; BCIstainer's order, without the other transpose."""


def mean_of_versions(stained: Callable[[Tensor], Tensor], tiles: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Test-time augmentation: the mean of the seven versions, each stained and laid back."""
    return torch.stack([back(stained(there(tiles))) for there, back in VERSIONS]).mean(0)


def whole_levels_down(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Pictures in [-1, 1] cut down to the 8-bit level below, as by a cast that truncates; rounding keeps them."""
    return ((pictures.clamp(-1, 1) + 1) / 2 * 255).floor() / 127.5 - 1


def _alone(network: nn.Module, tile: Float[Tensor, "1 3 h w"], seed: int) -> Float[Tensor, "1 3 h w"]:
    devices = [tile.device] if tile.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        output: Tensor = network(tile)
    return output


@contextmanager
def in_mode(network: nn.Module, *, train: bool) -> Iterator[None]:
    """Train or eval mode for a while, with running statistics left as they are."""
    was_training = network.training
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network.train(train)
    for norm in norms:
        norm.track_running_stats = not train
    try:
        yield
    finally:
        network.train(was_training)
        for norm in norms:
            norm.track_running_stats = True
