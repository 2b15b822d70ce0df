"""A whole slide's tissue as tiles: against hs2p, and on two threads against one."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bars.child import Ran, run
from bars.table import Table
from tilebars.load import QUIET, Busy, others
from tilebars.rivals import Rival, said

OURS = str(Path(__file__).with_name("ours.py"))
MAX_RATIO, MAX_PEAK_MB = 0.55, 200.0
MAX_CPU, MIN_GAIN, TRIES = 1.15, 1.6, 5
WITHIN = 0.1
"""How much less tissue we may keep than the rival, as a share of its tiles."""


@dataclass(frozen=True)
class Cut:
    """How a slide was cut.

    Attributes:
        ran: The process.
        tiles: Kept.
        size: Bytes of their pixels as stored.
        others: Cores that other processes used meanwhile.
        reader: Which of ours.
    """

    ran: Ran
    tiles: int
    size: int
    others: float = 0.0
    reader: str = ""

    @property
    def ms(self) -> float:
        """CPU milliseconds per tile."""
        return 1e3 * self.ran.cpu_s / max(1, self.tiles)

    def __str__(self) -> str:
        """As a row says it."""
        return (
            f"{self.ran.cpu_s:.1f} CPU s, {self.tiles} tiles, {self.ms:.1f} ms each, {self.size / 1e6:.0f} MB, "
            f"peak {self.ran.peak_mb:.0f} MB"
        )


def ours(command: str, *words: str | Path, out: Path, options: dict[str, Any] | None = None) -> Cut | str:
    """One of our commands in a process of its own; what it said where it failed. What it writes is removed."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in (options or {}).items()]
    before = Busy.now()
    ran = run([sys.executable, OURS, command, *map(str, words), str(out), *given])
    busy = others(before, Busy.now(), ran)
    shutil.rmtree(out, ignore_errors=True)
    found = said(ran)
    return cut_of(ran, found, busy) if found else f"exit {ran.status}: {ran.last[:160]}"


def cut_of(ran: Ran, found: dict[str, Any], busy: float = 0.0) -> Cut:
    """From what a command said."""
    return Cut(ran, found["tiles"], found["bytes"], busy, found.get("reader", ""))


def measure(table: Table, slide: Path, rival: Rival, work: Path, *, rounds: int = 2) -> Cut | None:
    """Mask, grid, cut and JPEG 90 of one stain, in turn with hs2p, the better round of each; ours."""
    name = "mask + grid + cut + JPEG 90 store, whole slide"
    mine, theirs = [], []
    for _ in range(rounds):
        found = ours("cut", slide, out=work / "ours.zarr")
        if isinstance(found, str):
            table.add(name, found, "a store", False)
            return None
        mine.append(found)
        if rival.works:
            out = work / "hs2p"
            ran, said_it = rival.run(slide, out)
            shutil.rmtree(out, ignore_errors=True)
            if not said_it:
                table.add(f"{name}, {rival.name}", f"exit {ran.status}: {ran.last[:160]}")
                break
            theirs.append(cut_of(ran, said_it))
    best = min(mine, key=lambda one: one.ran.cpu_s)
    table.add(
        f"{name}, ours ({best.reader})", str(best), f"peak ≤ {MAX_PEAK_MB:.0f} MB", best.ran.peak_mb <= MAX_PEAK_MB
    )
    bar = f"CPU ≤ {MAX_RATIO} ×"
    if not theirs:
        table.add(f"{name}, ours : hs2p", rival.about if not rival.works else "no figure", bar)
        return best
    other = min(theirs, key=lambda one: one.ran.cpu_s)
    table.add(f"{name}, hs2p ({rival.about})", str(other))
    table.add(f"{name}, ours : hs2p", *against(best, other))
    return best


def against(mine: Cut, theirs: Cut) -> tuple[str, str, bool]:
    """Our share of the rival's CPU, whole and per tile; the larger of the two counts, as masks differ a little."""
    whole, each = mine.ran.cpu_s / theirs.ran.cpu_s, mine.ms / theirs.ms
    text = f"CPU {whole:.2f}, per tile {each:.2f}; bytes {mine.size / theirs.size:.2f}; peak {_peaks(mine, theirs)}"
    enough = mine.tiles >= (1 - WITHIN) * theirs.tiles
    return text, f"CPU ≤ {MAX_RATIO} ×", max(whole, each) <= MAX_RATIO and enough


def _peaks(mine: Cut, theirs: Cut) -> str:
    return f"{mine.ran.peak_mb:.0f} : {theirs.ran.peak_mb:.0f} MB"


def measure_threads(table: Table, slide: Path, work: Path, *, codec: str = "jpeg") -> None:
    """The same on one thread and on two, in turn."""
    name = f"two threads : one, whole slide, {codec}"
    pairs = []
    for _ in range(TRIES):
        one, two = (ours("cut", slide, out=work / "t.zarr", options={"workers": n, "codec": codec}) for n in (1, 2))
        if isinstance(one, str) or isinstance(two, str):
            table.add(name, one if isinstance(one, str) else str(two), "two stores", False)
            return
        pairs.append((one, two))
    table.add(name, *threads(pairs, cores=len(os.sched_getaffinity(0))))


def threads(pairs: list[tuple[Cut, Cut]], *, cores: int) -> tuple[str, str, bool | None]:
    """What two threads cost and gain: CPU from the least of each, the gain from the best pair of a quiet moment."""
    cpu = min(two.ran.cpu_s for _, two in pairs) / min(one.ran.cpu_s for one, _ in pairs)
    bar = f"CPU ≤ {MAX_CPU} ×, wall ≥ {MIN_GAIN} × in the best of {TRIES}"
    busiest = [max(one.others, two.others) for one, two in pairs]
    if cores < 2 or min(busiest) > QUIET:
        why = "one core" if cores < 2 else f"others used {min(busiest):.1f} cores or more"
        return f"CPU {cpu:.2f} ×, wall not measured ({why})", bar, None if cpu <= MAX_CPU else False
    quiet = [pair for pair, busy in zip(pairs, busiest, strict=True) if busy <= QUIET]
    gain = max(one.ran.wall_s / two.ran.wall_s for one, two in quiet)
    text = f"CPU {cpu:.2f} ×, wall {gain:.2f} × in the best of {len(quiet)} quiet tries"
    return text, bar, cpu <= MAX_CPU and gain >= MIN_GAIN
