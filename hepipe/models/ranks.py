"""Sums over the processes of one training; with one process every function returns what it got."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, distributed


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if _several() else 0


def n_ranks() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _several() else 1


def wait_for_all() -> None:
    """Return when every process has come here."""
    if _several():
        distributed.barrier()


@torch.no_grad()
def average_over_ranks(parameters: Sequence[Tensor], n_tiles: int) -> None:
    """Replace each gradient by its mean over the tiles of all processes.

    One all-reduce of gradients times tiles, the tile count and a has-gradient flag a parameter: a gradient stays None
    only where no process has one, so that optimizers skip the same parameters everywhere.
    """
    if n_ranks() == 1 or not parameters:
        return
    like = parameters[0]
    flags = torch.tensor([float(p.grad is not None) for p in parameters], device=like.device)
    gradients = [(torch.zeros_like(p) if p.grad is None else p.grad * n_tiles).flatten().float() for p in parameters]
    flat = torch.cat([*gradients, flags, torch.tensor([float(n_tiles)], device=like.device)])
    distributed.all_reduce(flat)
    has, total = flat[-1 - len(parameters) : -1].tolist(), flat[-1]
    start = 0
    for parameter, anywhere in zip(parameters, has, strict=True):
        part = flat[start : start + parameter.numel()] / total
        start += parameter.numel()
        parameter.grad = part.view_as(parameter).to(parameter.dtype) if anywhere else None


@torch.no_grad()
def mean_over_ranks(value: Float[Tensor, "*shape"], n_tiles: int = 1) -> Float[Tensor, "*shape"]:
    """The mean over processes, weighted by their tiles; for statistics that steer training."""
    if n_ranks() == 1:
        return value
    flat = torch.cat([(value * n_tiles).flatten().float(), torch.tensor([float(n_tiles)], device=value.device)])
    distributed.all_reduce(flat)
    return (flat[:-1] / flat[-1]).view_as(value).to(value.dtype)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
