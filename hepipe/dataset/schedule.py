"""Who computes a dask graph: threads of this process, or a cluster at an address."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dask
from dask.callbacks import Callback

from hepipe.errors import ConfigError
from hepipe.progress import watched

PARTS_AT_ONCE = 256
"""Results that wait for the caller at most, on a few threads: of a few kB to some 100 kB each."""
CONNECT_S = 20


@dataclass(frozen=True)
class Scheduler:
    """Where work is done; no part of its results.

    Attributes:
        workers: Threads of this process; None takes one for each core that it may use.
        address: Of a running dask scheduler, such as tcp://host:8786, in place of threads. Its workers run what they
            are sent and their answers are unpickled, so it must be one's own. They need hepipe and the same files.
    """

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            ConfigError: It names no protocol.
        """
        if self.address is not None and not re.fullmatch(r"[a-z]+://\S+", self.address):
            raise ConfigError(f"scheduler: {self.address!r} is no address; give one as tcp://host:8786")

    def results(self, parts: Sequence[Any], name: str, *, unit: str = "chunk") -> Iterator[Any]:
        """The value of each part, a dask collection with one key, in order; progress on stderr.

        Args:
            parts: Of one graph. A few hundred are computed at once, so that results never pile up.
            name: What is done, for the bar.
            unit: What a part is called there.

        Raises:
            ConfigError: Nothing answers at the address.
        """
        ticks = watched(itertools.repeat(None, len(parts)), name, total=len(parts), unit=unit)
        with contextlib.closing(ticks):
            next(ticks, None)
            if self.address is None:
                yield from self._by_threads(parts, ticks)
            else:
                yield from self._by_cluster(parts, ticks)

    def _by_threads(self, parts: Sequence[Any], ticks: Iterator[None]) -> Iterator[Any]:
        workers = self.workers or len(os.sched_getaffinity(0))
        wanted = {part.key for part in parts}

        def tick(key: Any, *_: object) -> None:
            if key in wanted:
                next(ticks, None)

        for start in range(0, len(parts), PARTS_AT_ONCE):
            with Callback(posttask=tick):
                values = dask.compute(*parts[start : start + PARTS_AT_ONCE], scheduler="threads", num_workers=workers)
            yield from values

    def _by_cluster(self, parts: Sequence[Any], ticks: Iterator[None]) -> Iterator[Any]:
        from distributed import Client, as_completed

        try:
            client = Client(self.address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"scheduler: nothing answers at {self.address} ({type(error).__name__}); start one with "
                "`dask scheduler`, or leave --scheduler out for threads of this machine"
            ) from error
        with client:
            most = max(PARTS_AT_ONCE, 4 * sum(client.nthreads().values()))
            for start in range(0, len(parts), most):
                futures = client.compute(list(parts[start : start + most]))
                for _ in as_completed(futures, loop=client.loop):
                    next(ticks, None)
                yield from client.gather(futures)
