"""Types of options that commands share, and what every command does around its work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

InPath = Annotated[Path, typer.Option(exists=True, help="An existing file or folder.")]
OutPath = Annotated[Path, typer.Option(help="Written whole or not at all.")]
SpecJson = Annotated[str, typer.Option(help="The stage's config section as JSON; {} for its defaults.")]

SlidePath = Annotated[Path, typer.Option(help="A slide file; opened as it was when it was checked, if it was.")]
Checked = Annotated[Path | None, typer.Option(exists=True, help="The case's record from `check`.")]
MppHe = Annotated[str, typer.Option(help="µm per px of the H&E slide, or unknown; without --checked.")]
MppIhc = Annotated[str, typer.Option(help="µm per px of the IHC slide, or unknown; without --checked.")]
TransformPath = Annotated[Path, typer.Option(help="The folder that `register` has written.")]
Registered = Annotated[Path | None, typer.Option(exists=True, help="The registration so far: it proposes partners.")]
Stain = Literal["he", "ihc"]
