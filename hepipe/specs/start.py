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


def in_words(sources: Mapping[str, str]) -> str:
    """The way back."""
    if WHOLE in sources:
        return sources[WHOLE]
    return ",".join(f"{network}={source}" for network, source in sources.items())


def runs_of(init_from: Mapping[str, str]) -> list[str]:
    """The runs of the same config that a run starts from."""
    return [source.removeprefix(RUN) for source in init_from.values() if source.startswith(RUN)]


def with_runs(value: Any, renamed: Mapping[str, str]) -> Any:
    """`init_from` as a config has it, its runs under other names."""
    if isinstance(value, Mapping):
        return {network: with_runs(source, renamed) for network, source in value.items()}
    if not isinstance(value, str) or not value.startswith(RUN):
        return value
    run = value.removeprefix(RUN)
    return RUN + renamed.get(run, run)
