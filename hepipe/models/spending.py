"""Measuring what a training or prediction takes, while it runs."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hepipe.errors import StoreError
from hepipe.stores.costs import Cost, Session, read_cost, write_cost

SAY_EVERY_S = 20.0
"""Seconds between two writings; what a killed process had spent since the last one is lost to the account."""


class Spending:
    """The account of one process: tell it of every unit, and close it when what was made is in its place."""

    def __init__(self, path: Path | None, cost: Cost, device: torch.device) -> None:
        """An account that begins now; without a path nothing is written, as in all processes but the first."""
        self.path = path
        self.cost = cost
        self._device = device
        self._units = 0
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._said = self._wall

    def add(self, units: int = 1) -> None:
        """Count units that are done."""
        self._units += units
        if time.monotonic() - self._said >= SAY_EVERY_S:
            self.say()

    def close(self, made: Path) -> None:
        """Write the account with the size of what was made."""
        self.say(made=made)

    def say(self, *, made: Path | None = None) -> None:
        """Write the account as it stands; with what was made it is finished."""
        self._said = time.monotonic()
        if self.path is None:
            return
        session = Session(
            units=self._units,
            wall_s=self._said - self._wall,
            cpu_s=time.process_time() - self._cpu,
            memory_mb=_peak_memory_mb(),
            device_mb=_peak_device_mb(self._device),
            ended=made is not None,
        )
        sessions = (*self.cost.sessions, session)
        disk_bytes = None if made is None else size_of(made)
        write_cost(self.path, self.cost.model_copy(update={"sessions": sessions, "disk_bytes": disk_bytes}))


@contextmanager
def spending(path: Path | None, cost: Cost, *, device: torch.device) -> Iterator[Spending]:
    """An account of what happens inside, which says what was spent when it fails.

    Args:
        path: Where the account lies, or None. One of the same key that is not finished is gone on with.
        cost: What is known before, without sessions.
        device: That computes.
    """
    if path is not None:
        try:
            before = read_cost(path)
        except StoreError:
            before = cost
        if before.key == cost.key and not before.finished:
            cost = cost.model_copy(update={"sessions": before.sessions, "expected": before.expected})
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    account = Spending(path, cost, device)
    try:
        yield account
    except BaseException:
        account.say()
        raise


def machine_name(device: torch.device) -> str:
    """Kind of GPU or CPU, never a host's name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(named, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 for what is not there."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _peak_device_mb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_reserved(device) / 1e6 if device.type == "cuda" else None
