"""Types of options that commands share, and what every command does around its work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

InPath = Annotated[Path, typer.Option(exists=True, help="An existing file or folder.")]
OutPath = Annotated[Path, typer.Option(help="Written whole or not at all.")]
SpecJson = Annotated[str, typer.Option(help="The stage's config section as JSON; {} for its defaults.")]
