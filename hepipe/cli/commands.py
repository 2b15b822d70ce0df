"""Which module holds which commands; none is imported before its command runs beyond its signature."""

from __future__ import annotations

import importlib
import importlib.util

import typer

MODULES = ("run", "slides", "synth", "registration", "tiles", "learn", "results", "doctor")


def register(app: typer.Typer) -> None:
    """Add every command to the app."""
    for name in MODULES:
        place = f"hepipe.cli.{name}"
        if importlib.util.find_spec(place) is not None:
            importlib.import_module(place).register(app)
