"""Other programs on the same slides, each in its own interpreter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bars.child import Ran, run
from bars.rivals import import_error, version_in

HERE = Path(__file__).parents[1] / "rivals"
MAKE = "make one with rivals/make_env.sh"
SCRIPTS = {"hs2p": "hs2p_run.py", "vips": "vips_warp.py"}
PACKAGES = {"hs2p": "hs2p", "vips": "pyvips"}
ONE_THREAD = {"VIPS_CONCURRENCY": "1"}


@dataclass(frozen=True)
class Rival:
    """A program and how it is run here.

    Attributes:
        name: Of `SCRIPTS`.
        python: Its interpreter.
        about: Its version, or why it does not run.
        works: Whether it can be imported.
    """

    name: str
    python: Path
    about: str
    works: bool

    @classmethod
    def of(cls, name: str, python: str | None) -> Rival:
        """One by its interpreter; None: nobody gave one."""
        if python is None:
            return cls(name, Path(), f"not measured: no interpreter given; {MAKE}", False)
        if not Path(python).exists():
            return cls(name, Path(python), f"does not run: no such interpreter; {MAKE}", False)
        last = import_error(python, f"import {'pyvips, ' if name == 'hs2p' else ''}{PACKAGES[name]}")
        version = version_in(python, PACKAGES[name])
        if last is not None:
            return cls(name, Path(python), f"version {version} does not run: {last[:160]}", False)
        return cls(name, Path(python), f"{PACKAGES[name]} {version}, pyvips {version_in(python, 'pyvips')}", True)

    def run(self, *words: str | Path) -> tuple[Ran, dict[str, Any]]:
        """Its script with these words on one thread, and what it said; that is empty when it failed."""
        ran = run([str(self.python), str(HERE / SCRIPTS[self.name]), *map(str, words)], more=ONE_THREAD)
        return ran, said(ran)


def rivals_of(given: list[str]) -> dict[str, Rival]:
    """All rivals by name, from NAME=PYTHON."""
    pythons = dict(text.split("=", 1) for text in given if "=" in text)
    odd = [text for text in given if text.partition("=")[0] not in SCRIPTS or "=" not in text]
    if odd:
        raise SystemExit(f"--rival {odd[0]}: NAME=PYTHON expected, NAME one of {', '.join(SCRIPTS)}")
    return {name: Rival.of(name, pythons.get(name)) for name in SCRIPTS}


def said(ran: Ran) -> dict[str, Any]:
    """The JSON of a child's last line; empty when it failed."""
    if ran.status != 0:
        return {}
    found = json.loads(ran.last)
    assert isinstance(found, dict)
    return found
