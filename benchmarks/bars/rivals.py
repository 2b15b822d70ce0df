"""Other programs on the same pairs, each in its own interpreter."""

from __future__ import annotations

import csv
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bars.child import Ran, run
from bars.pairs import Pair

HERE = Path(__file__).parents[1] / "rivals"
PACKAGES = {"deeperhistreg": "deeperhistreg", "valis": "valis-wsi"}
IMPORTS = {"deeperhistreg": "import deeperhistreg", "valis": "from valis import registration"}
reached_cpu = 0.45
"""Ours may take at most this share of a rival's CPU seconds."""


@dataclass(frozen=True)
class Rival:
    """A program and how it is run here.

    Attributes:
        name: deeperhistreg or valis.
        python: Its interpreter.
        works: Whether it can be imported.
        about: Its version and mode, or why it does not run.
        options: Given to its script.
    """

    name: str
    python: Path
    works: bool
    about: str
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Rival:
        """From NAME=PYTHON."""
        name, _, python = text.partition("=")
        if name not in PACKAGES or not python:
            raise SystemExit(f"--rival {text}: NAME=PYTHON expected, NAME one of {', '.join(PACKAGES)}")
        if not Path(python).exists():
            return cls(name, Path(python), False, "does not run: no such interpreter; see rivals/make_env.sh")
        version = version_in(python, PACKAGES[name])
        last = import_error(python, IMPORTS[name])
        if last is None:
            return cls(name, Path(python), True, f"version {version}, its defaults")
        if name == "valis" and ("Failed to load weights" in last or "urlopen" in last or "URLError" in last):
            about = f"version {version}, --offline: VGG and RANSAC, for its default weights cannot be fetched here"
            return cls(name, Path(python), True, about, ("--offline",))
        return cls(name, Path(python), False, f"version {version} does not run: {last[:160]}")

    def move(self, pair: Pair, work: Path) -> tuple[np.ndarray | None, Ran, str]:
        """A pair's H&E points on its IHC picture, what it took, and what went wrong."""
        points, out = work / "points.csv", work / "moved.csv"
        out.unlink(missing_ok=True)
        with points.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["x", "y"])
            writer.writerows(pair.he_px.tolist())
        script = str(HERE / f"{self.name}_run.py")
        ran = run([str(self.python), script, str(pair.he), str(pair.ihc), str(points), str(out), *self.options])
        if ran.status != 0 or not out.exists():
            return None, ran, f"exit {ran.status}: {ran.last[:120]}; "
        with out.open(newline="") as file:
            return np.array([[float(row["x"]), float(row["y"])] for row in csv.DictReader(file)]), ran, ""


def import_error(python: str, statement: str) -> str | None:
    """The last line of what an interpreter says about an import that fails; None: it works."""
    done = subprocess.run([python, "-c", statement], capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else lines[-1] if lines else f"exit {done.returncode}"


def version_in(python: str, package: str) -> str:
    """The version of a package that an interpreter has, or `unknown`."""
    statement = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python, "-c", statement], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
