"""A command in a process of its own, with the CPU seconds and the peak memory of it and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Ran:
    """How a command went.

    Attributes:
        status: Its exit status, negative for a signal.
        cpu_s: CPU seconds, its children's included.
        wall_s: Seconds by the clock; of a shared machine they say little.
        peak_mb: Largest resident memory of one process of it; Linux counts what this process held when it began it,
            about 200 MB, as a least value.
        last: The last line that it wrote.
    """

    status: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    last: str


def run(command: Sequence[str], *, more: Mapping[str, str] | None = None) -> Ran:
    """Run a command on one thread and wait for it."""
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(
            list(command), stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **ONE_THREAD, **(more or {})}
        )
        # wait4 gives this child's own use; getrusage(RUSAGE_CHILDREN) would keep the peak of all before it.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    return Ran(process.returncode, used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, last)


def command(*words: str | os.PathLike[str], more: Mapping[str, str] | None = None) -> Ran:
    """The command line of this checkout, as a user runs it."""
    return run([sys.executable, "-m", "hepipe", *map(str, words)], more=more)
