"""Sums over the processes of one training; with one process every function returns what it got."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from jaxtyping import Float
from torch import Tensor, distributed

LONGEST_WAIT = timedelta(hours=24)
"""Torch gives up after 10 minutes by default (NCCL), and the others wait while rank 0 validates and draws pictures.

A process that died is noticed without it: its connection breaks, and torchrun ends the rest.
"""


@contextmanager
def torchrun_group(device: str) -> Iterator[None]:
    """The process group of torchrun; nothing where this process is the only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


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


def all_agree(yes: bool, device: torch.device) -> bool:
    """Whether every process says yes."""
    if n_ranks() == 1:
        return yes
    said = torch.tensor([float(yes)], device=device)
    distributed.all_reduce(said, op=distributed.ReduceOp.MIN)
    return bool(said.item())


@torch.no_grad()
def sum_over_ranks(parameters: Sequence[Tensor], terms: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """Replace each gradient by its sum over all processes; gives the sum of `terms`.

    Losses are weighted by their share of all processes' tiles before `backward`, so that sums are means over tiles
    whatever the processes' shares. One all-reduce of gradients, terms and a has-gradient flag a parameter: a gradient
    stays None only where no process has one, so that optimizers skip the same parameters everywhere.
    """
    if n_ranks() == 1 or not parameters:
        return terms
    here = [p.grad is not None for p in parameters]
    flags = torch.tensor(here, dtype=torch.float32).to(terms.device, non_blocking=True)
    gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters]
    flat = torch.cat([*gradients, flags, terms.float()])
    del gradients
    distributed.all_reduce(flat)
    *parts, flags, terms = torch.split(flat, [*(p.numel() for p in parameters), len(parameters), len(terms)])
    # Asking the device would stall it, so only where the answer is open.
    anywhere = here if all(here) else [count > 0 for count in flags.tolist()]
    for parameter, part, has in zip(parameters, parts, anywhere, strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype) if has else None
    return terms


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
