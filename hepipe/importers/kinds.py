"""Every kind of import by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hepipe.importers.aligned import open_aligned
from hepipe.importers.bci import open_bci
from hepipe.importers.folder import open_folders
from hepipe.importers.her2match import open_her2match
from hepipe.importers.ihc4bc import open_ihc4bc
from hepipe.importers.mist import open_mist
from hepipe.importers.pairs import TileSet
from hepipe.importers.tileset import Inputs
from hepipe.specs.imports import ImportSpec, Kind

KINDS: Mapping[Kind, Callable[[Path, ImportSpec, Inputs], TileSet]] = {
    "bci": open_bci,
    "bci-clean": open_bci,
    "mist": open_mist,
    "her2match": open_her2match,
    "ihc4bc": open_ihc4bc,
    "folder": open_folders,
    "aligned": open_aligned,
}


def open_set(root: Path, spec: ImportSpec, inputs: Inputs) -> TileSet:
    """A tile set of any kind; raises as its kind does."""
    return KINDS[spec.kind](root, spec, inputs)
