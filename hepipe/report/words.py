"""Amounts in words that fit a cell; number and unit stay on one line."""

from __future__ import annotations

SPACE = "\N{NO-BREAK SPACE}"


def time_in_words(seconds: int | float | None) -> str:
    """`12 s`, `3.4 min`, `5.6 h`; a dash for what is not known."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f}{SPACE}s" if seconds >= 10 else f"{seconds:.2g}{SPACE}s"
    return f"{seconds / 60:.1f}{SPACE}min" if seconds < 5400 else f"{seconds / 3600:.1f}{SPACE}h"


def disk_in_words(size: int | float | None) -> str:
    """`12 kB`, `3.4 MB`, `5.6 GB`; a dash for what is not known."""
    if size is None:
        return "–"
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= least:
            return f"{size / least:.1f}{SPACE}{unit}"
    return f"{size / 1e3:.0f}{SPACE}kB"
