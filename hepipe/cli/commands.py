"""Which module holds which commands; none is imported before its command runs beyond its signature."""

from __future__ import annotations

import importlib

import typer

MODULES = (
    "run",
    "slides",
    "synth",
    "registration",
    "warp",
    "review",
    "stains",
    "tiles",
    "imports",
    "curate",
    "store",
    "export",
    "learn",
    "models",
    "cost",
    "cohort",
    "dataset",
    "results",
    "splits",
    "doctor",
)


def register(app: typer.Typer) -> None:
    """Add every command to the app."""
    for name in MODULES:
        importlib.import_module(f"hepipe.cli.{name}").register(app)
