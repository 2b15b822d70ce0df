"""The command `hepipe`: one command per rule of the workflow, and a few for people."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from hepipe import __version__
from hepipe.errors import HepipeError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.splitlines()[0]
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; a HepipeError is one line on stderr and exit status 2, never a traceback."""
    from hepipe.cli import commands

    commands.register(app)
    try:
        app()
    except HepipeError as error:
        if os.environ.get("HEPIPE_TRACEBACK"):
            traceback.print_exc()
        typer.echo(f"hepipe: {error}", err=True)
        sys.exit(2)
