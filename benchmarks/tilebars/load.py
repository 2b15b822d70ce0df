"""How busy others keep this machine while something is measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bars.child import Ran

QUIET = 0.10
"""Cores that others may use while clocks are compared."""


@dataclass(frozen=True)
class Busy:
    """CPU seconds of all processes since the start of the machine, and the time; None: the system does not tell."""

    cpu_s: float | None
    at_s: float

    @classmethod
    def now(cls) -> Busy:
        """Now; what other guests of the host took counts too."""
        try:
            fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        except OSError:
            return cls(None, time.monotonic())
        user, nice, system, _, _, irq, soft, steal = map(int, fields[:8])
        return cls((user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK"), time.monotonic())


def others(before: Busy, after: Busy, ran: Ran) -> float:
    """Cores that other processes used while a command ran; where the system does not tell, the load that they leave."""
    if before.cpu_s is None or after.cpu_s is None:
        return max(0.0, os.getloadavg()[0] - 1.0)
    return max(0.0, after.cpu_s - before.cpu_s - ran.cpu_s) / max(after.at_s - before.at_s, 1e-9)
