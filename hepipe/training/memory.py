"""When a training does not fit into memory: what would help this model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hepipe.errors import HepipeError
from hepipe.models.catalog import Entry
from hepipe.models.resolved import ResolvedRun, misfit, zoo_module

_CPU_WORDS = ("not enough memory", "DefaultCPUAllocator", "Cannot allocate memory", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_WORDS)


@contextmanager
def proposing_what_helps(run: ResolvedRun, entry: Entry, *, batch_norm: bool, n_ranks: int) -> Iterator[None]:
    """Turn the end of memory into an error that proposes what helps this model.

    Raises:
        HepipeError: In place of torch's.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise HepipeError(out_of_memory(run, entry, batch_norm=batch_norm, n_ranks=n_ranks)) from error


def out_of_memory(run: ResolvedRun, entry: Entry, *, batch_norm: bool, n_ranks: int) -> str:
    """What happened, and the changes that would save memory here, the one that changes least of the method first."""
    spec = run.training
    proposals = [*_smaller_crop(run, entry), *_savers(run.config), *_pieces(run, batch_norm=batch_norm, ranks=n_ranks)]
    each = f" on each of {n_ranks} processes" if n_ranks > 1 else ""
    happened = (
        f"run {run.name}: out of memory on {spec.device} with {-(-spec.batch_size // n_ranks)} tiles of {spec.crop_px} "
        f"px{each}, accumulation {spec.accumulation}, {spec.precision}"
    )
    if not proposals:
        return f"{happened}; nothing here can be made smaller: it needs a device with more memory"
    return f"{happened}. What saves memory for {run.model}: " + "; or ".join(proposals)


def _smaller_crop(run: ResolvedRun, entry: Entry) -> list[str]:
    """The largest crop of at most three quarters of the side, or the next smaller one that the model takes."""
    from hepipe.training.watch import CHOICES

    crop_px = run.training.crop_px
    choice = CHOICES.get(run.training.select.metric)
    least = 1 if choice is None else choice.min_side_px
    for most in (crop_px * 3 // 4, crop_px - 1):
        side = entry.largest(most, run.preset)
        if side >= least and not _misfit(run, side):
            return [f"training.crop_px: {side}"]
    return []


def _misfit(run: ResolvedRun, crop_px: int) -> bool:
    """Whether the model itself refuses a crop."""
    config = zoo_module(run.model).Config.model_validate(dict(run.config))
    return bool(misfit(run.model, config, run.training.model_copy(update={"crop_px": crop_px})))


def _savers(config: Mapping[str, Any]) -> list[str]:
    """Options of the model that make graphs again instead of keeping them, where they are not on yet."""
    found = []
    if config.get("recompute") is False:
        found.append("options.recompute: true, the same result in more time")
    levels = config.get("recompute_levels")
    if levels is not None and levels < (most := len(config["multipliers"])):
        found.append(f"options.recompute_levels: {levels + 1} or up to {most}, the same result in more time")
    return found


def _pieces(run: ResolvedRun, *, batch_norm: bool, ranks: int) -> list[str]:
    spec = run.training
    here = spec.batch_size // ranks
    more = min(2 * spec.accumulation, here)
    if more <= spec.accumulation:
        return []
    means = "which changes the result: its batch norm then sees a piece at a time" if batch_norm else "the same batch"
    also = " together with options.recompute, for graphs of all pieces are kept otherwise"
    held = run.config.get("recompute") is False
    return [f"training.accumulation: {more}{also if held else ''}, {means}"]
