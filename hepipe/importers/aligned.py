"""Tile sets of side-by-side pictures: H&E left, IHC right, as pix2pix and its kin take them."""

from __future__ import annotations

from pathlib import Path

from hepipe.errors import ConfigError
from hepipe.importers.files import licence_texts, tiles_below
from hepipe.importers.folder import TERMS, facts_by_pattern
from hepipe.importers.pairs import TileSet
from hepipe.importers.tileset import Inputs, Told, pairs_of, tile_set
from hepipe.specs.imports import ImportSpec


def open_aligned(root: Path, spec: ImportSpec, inputs: Inputs | None = None) -> TileSet:
    """The pairs of a folder of pictures twice as wide as high, in folders train, val, test or in none.

    Raises:
        ConfigError: No files, or one that is no RGB picture of the common size.
    """
    told = Told(TERMS, texts=licence_texts(root))
    found = tiles_below(root, skipped=told.skipped)
    if not found:
        raise ConfigError(f"import: no files in {root}")
    facts = facts_by_pattern(found, spec)
    both = [(tile, tile) for tile in found]
    return tile_set(pairs_of(both, [], spec, facts.__getitem__), spec, inputs or Inputs(), told)
