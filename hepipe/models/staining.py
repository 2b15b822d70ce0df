"""Staining by a network as it is, or by the statistics of the single tile, as several released test scripts do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def stain_in_eval_mode(network: nn.Module, tiles: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The network's output with running statistics and without dropout."""
    with _mode(network, train=False):
        output: Tensor = network(tiles)
    return output


def stain_by_own_statistics(
    network: nn.Module, tiles: Float[Tensor, "b 3 h w"], seeds: Int[Tensor, " b"]
) -> Float[Tensor, "b 3 h w"]:
    """The network's output in train mode, tile by tile: the tile's own statistics, dropout drawn from its seed."""
    with _mode(network, train=True):
        return torch.cat([_alone(network, tiles[i : i + 1], int(seed)) for i, seed in enumerate(seeds)])


def _alone(network: nn.Module, tile: Float[Tensor, "1 3 h w"], seed: int) -> Float[Tensor, "1 3 h w"]:
    devices = [tile.device] if tile.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        output: Tensor = network(tile)
    return output


@contextmanager
def _mode(network: nn.Module, *, train: bool) -> Iterator[None]:
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
