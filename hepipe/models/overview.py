"""Every system of the four papers beside what the zoo holds: what `hepipe models` and the docs list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hepipe.errors import ConfigError
from hepipe.models.catalog import Entry, catalog
from hepipe.models.published import Number, System, numbers_of, systems

IN_THE_ZOO = "in the zoo"


@dataclass(frozen=True)
class Listed:
    """One model or system.

    Attributes:
        name: Of its zoo file, there or not.
        system: What the papers make of it; None for one that none of them names.
        entry: What its zoo file states; None without one.
    """

    name: str
    system: System | None
    entry: Entry | None

    @property
    def title(self) -> str:
        """For people."""
        if self.system is not None:
            return self.system.title
        return self.entry.title if self.entry is not None else self.name

    @property
    def status(self) -> str:
        """In the zoo, planned, or why it never will be."""
        if self.entry is not None:
            return IN_THE_ZOO
        if self.system is None or not self.system.is_model:
            return "no model"
        return "planned" if self.system.reproducible else "not reproducible"

    @property
    def family(self) -> str:
        """Kind of model; empty for one that no paper names."""
        return "" if self.system is None else self.system.family

    @property
    def pairing(self) -> str:
        """What its file states, or its paper."""
        if self.entry is not None:
            return self.entry.pairing
        return "none" if self.system is None else self.system.pairing

    @property
    def numbers(self) -> list[Number]:
        """What papers print of it."""
        return numbers_of(self.name)


def listed() -> Mapping[str, Listed]:
    """Every system of the papers, families together, then what the zoo holds beside them."""
    names = dict.fromkeys([*systems(), *catalog()])
    return {name: Listed(name, systems().get(name), catalog().get(name)) for name in names}


def find_listed(name: str) -> Listed:
    """One model or system.

    Raises:
        ConfigError: None of this name.
    """
    try:
        return listed()[name]
    except KeyError:
        raise ConfigError(f"no model {name!r}; there are {', '.join(listed())}") from None


def parts_in_words(entry: Entry, preset: str) -> str:
    """The parts of a preset, for a line of a table; empty for none."""
    said = []
    for part, need in entry.parts_of(preset).items():
        source = f"weights {need.role}" if need.kind == "weights" else "another run"
        marks = [
            word for word, holds in (("may be absent", need.optional), ("training only", need.training_only)) if holds
        ]
        said.append(f"{part} from {source}" + (f" ({', '.join(marks)})" if marks else ""))
    return ", ".join(said)
