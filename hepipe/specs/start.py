"""What a run starts from, as a person writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WHOLE = "*"
"""In place of a network's name: whatever the file holds."""
RUN = "run:"
WEIGHTS = "weights:"


def by_network(value: Any) -> Any:
    """`init_from` as network to source: one source alone may hold any of them."""
    if isinstance(value, str):
        return {WHOLE: value} if value else {}
    return {} if value is None else value


def from_words(text: str) -> dict[str, str]:
    """The same from an option: SOURCE, or NETWORK=SOURCE with commas between.

    A path with an equals sign in it is taken as a source when no plain word stands before that sign.
    """
    pieces = text.split(",")
    named = [piece.partition("=") for piece in pieces]
    if all(found and name.isidentifier() for name, found, _ in named):
        return {name: source for name, _, source in named}
    return {WHOLE: text}


def run_of(init_from: Mapping[str, str]) -> str | None:
    """The run of the same config that a run starts from, if it does."""
    named = [source.removeprefix(RUN) for source in init_from.values() if source.startswith(RUN)]
    return named[0] if named else None
