"""A command in a process of its own, with the CPU seconds and the peak memory of it and its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

# The signals are those that a Python ignores and subprocess gives back to what it starts. wait4 gives this child's own
# use; getrusage(RUSAGE_CHILDREN) would keep the peak of all before it.
_LAUNCHER = """
import os, signal, sys, time
report = int(sys.argv[1])
os.set_inheritable(report, False)
began = time.monotonic()
try:
    started = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
except OSError as error:
    os.write(report, b'{"errno": %d}' % error.errno)
    sys.exit()
_, status, used = os.wait4(started, 0)
numbers = (os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss)
os.write(report, b'{"status": %d, "cpu_s": %f, "wall_s": %f, "peak_kb": %d}' % numbers)
"""
"""Starts the command from a process of about 10 MB: Linux counts what the starting process holds as the command's."""


@dataclass(frozen=True)
class Ran:
    """How a command went.

    Attributes:
        status: Its exit status, negative for a signal.
        cpu_s: CPU seconds, its children's included.
        wall_s: Seconds by the clock; of a shared machine they say little.
        peak_mb: Largest resident memory of one process of it; 10 MB where it is less.
        last: The last line that it wrote.
    """

    status: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    last: str


def run(command: Sequence[str], *, more: Mapping[str, str] | None = None) -> Ran:
    """Run a command on one thread and wait for it; OSError where it cannot be started."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as report:
        launched = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(report.fileno()), *command],
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD, **(more or {})},
            pass_fds=[report.fileno()],
            check=False,
        )
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        report.seek(0)
        written = report.read()
    last = lines[-1] if lines else ""
    if not written:
        raise OSError(f"{command[0]}: its launcher ended with {launched.returncode}: {last}")
    used = json.loads(written)
    if "errno" in used:
        raise OSError(used["errno"], os.strerror(used["errno"]), command[0])
    return Ran(used["status"], used["cpu_s"], used["wall_s"], used["peak_kb"] / 1024, last)


def command(*words: str | os.PathLike[str], more: Mapping[str, str] | None = None) -> Ran:
    """The command line of this checkout, as a user runs it."""
    return run([sys.executable, "-m", "hepipe", *map(str, words)], more=more)
