"""How far a long job is: a bar with its rate for people, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

from tqdm import tqdm

LINE_EVERY_S = 30.0

Item = TypeVar("Item")


def watched(items: Iterable[Item], name: str, *, total: int, unit: str, start: int = 0) -> Generator[Item, None, None]:
    """The items unchanged, while stderr says how many went by, how many a second and how long it will take.

    A terminal shows a bar. A log gets a line every half minute and, when there was one, a last line: a short job
    leaves none.

    Args:
        items: Those that are left to do.
        name: What is done.
        total: Items in all, those done before included.
        unit: What an item is called, in the singular.
        start: Items that an earlier run has done.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, name, total, initial=start, unit=unit, dynamic_ncols=True)
        return
    began = said = time.monotonic()
    done = start
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - said >= LINE_EVERY_S or (done == total and said > began):
            said = now
            rate = (done - start) / max(now - began, 1e-9)
            minutes, seconds = divmod(round((total - done) / rate), 60)
            sys.stderr.write(f"{name}: {done} of {total} {unit}s, {rate:.1f} a second, {minutes}:{seconds:02d} to go\n")
            sys.stderr.flush()
