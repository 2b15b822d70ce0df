"""Tile sets of side-by-side pictures: H&E left, IHC right."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from hepipe.errors import ConfigError
from hepipe.importers.files import check_sizes, read_picture, read_size, stamp, tiles_below
from hepipe.importers.pairs import Pair, TileSet
from hepipe.specs.imports import ImportSpec


def open_aligned(root: Path, spec: ImportSpec) -> TileSet:
    """The pairs of a folder of pictures twice as wide as high, in folders train, val, test or in none.

    Raises:
        ConfigError: No files, or one that is no RGB picture of the common size.
    """
    found = tiles_below(root)
    if not found:
        raise ConfigError(f"import: no files in {root}")
    width, height = check_sizes({tile.path: read_size(tile.path) for tile in found}, square=False)
    if width != 2 * height:
        raise ConfigError(f"import: {width} x {height} px; two square tiles side by side expected")
    pairs = [
        Pair(
            split=tile.split or spec.split,
            name=tile.name,
            file_name=tile.path.name,
            read=partial(_halves, tile.path),
            stamp=stamp(tile.path),
        )
        for tile in found
    ]
    return TileSet(tuple(pairs), height, ())


def _halves(path: Path) -> tuple[UInt8[np.ndarray, "h h 3"], UInt8[np.ndarray, "h h 3"]]:
    picture = read_picture(path)
    middle = picture.shape[1] // 2
    return np.ascontiguousarray(picture[:, :middle]), np.ascontiguousarray(picture[:, middle:])
