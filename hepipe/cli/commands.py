"""Which module holds which commands; none is imported before its command runs beyond its signature."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add every command to the app."""
    from hepipe.cli import data, doctor, learn, results, slides, synth

    for module in (slides, synth, data, learn, results, doctor):
        module.register(app)
