"""An opened tile set and its way into the store that tiles of slides take too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hepipe.errors import ConfigError
from hepipe.importers.files import captured, read_scores
from hepipe.parallel import in_order
from hepipe.progress import watched
from hepipe.specs.dataset import Split
from hepipe.specs.imports import ImportSpec
from hepipe.stains.estimate import pooled
from hepipe.stores.tiles import TileWriter
from hepipe.tiling.cut import DabMask, Encoded, Measure, encoded, finish_tile

WHOLE = {"outside_frac_he": 0.0, "outside_frac_ihc": 0.0}
"""A tile from a file has pixels everywhere; a grid over a slide may reach over its edge."""

Pixels = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pair:
    """One pair of tiles.

    Attributes:
        split: Where the set puts it.
        name: Of the file, with folders below the split, without suffix.
        file_name: Of the (H&E) file, where patterns look for score and case.
        read: Decodes H&E and IHC.
        stamp: Sizes and times of the files: an import is gone on with while they are the same.
    """

    split: Split
    name: str
    file_name: str
    read: Callable[[], Pixels]
    stamp: tuple[int, ...] = ()

    @property
    def tile_id(self) -> str:
        """As the tile table has it."""
        return f"{self.split}/{self.name}"


@dataclass(frozen=True)
class TileSet:
    """An opened tile set: pairs in a fixed order, the side of its tiles, names that had no partner."""

    pairs: tuple[Pair, ...]
    tile_px: int
    dropped: tuple[str, ...]


def sample_pixels(tiles: TileSet, count: int) -> Pixels:
    """Pixels of at most `count` pairs spread over the set, one array per stain, for stain vectors."""
    places = np.linspace(0, len(tiles.pairs) - 1, min(count, len(tiles.pairs))).astype(np.int64)
    read = [tiles.pairs[place].read() for place in places]
    return pooled([he for he, _ in read]), pooled([ihc for _, ihc in read])


def import_tiles(
    tiles: TileSet,
    spec: ImportSpec,
    *,
    measures: Sequence[Measure],
    dab_mask: DabMask,
    store: TileWriter,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Tiles into the store and their rows of the tile table, by split and name; those that it holds are not read.

    Raises:
        ConfigError: A pattern of `spec` does not fit the names, or two tiles get the same id.
    """
    pairs = sorted(tiles.pairs, key=lambda pair: pair.tile_id)
    ids = [pair.tile_id for pair in pairs]
    if len(set(ids)) != len(ids):
        twice = sorted({tile_id for tile_id in ids if ids.count(tile_id) > 1})
        raise ConfigError(f"import: the same name in folder {spec.split} and outside of it: {', '.join(twice[:20])}")
    scores = read_scores([pair.file_name for pair in pairs], spec.score_pattern)
    cases = captured([pair.file_name for pair in pairs], spec.case_pattern, "case_pattern")
    begun = len(store.rows)

    def read(pair: Pair) -> tuple[Encoded, float]:
        tile = finish_tile(*pair.read(), spec.mpp, measures, dab_mask, WHOLE)
        return encoded(tile, store), max(tile.measurements["white_frac_he"], tile.measurements["white_frac_ihc"])

    # OpenCV's own threads would only compete with ours.
    cv2.setNumThreads(1)
    done = in_order(read, pairs[begun:], workers=max(1, workers), name="import")
    for pair, (tile, glass) in zip(
        pairs[begun:], watched(done, "tiles", total=len(pairs), unit="tile", start=begun), strict=True
    ):
        store.append(
            {
                "tile_id": pair.tile_id,
                "case_id": cases[pair.file_name],
                "patient_id": cases[pair.file_name],
                "slide_id": None,
                "batch": None,
                "x_px0": None,
                "y_px0": None,
                "canvas_x_px0": None,
                "canvas_y_px0": None,
                "mpp": spec.mpp,
                "her2_score": scores[pair.file_name],
                "score_level": "none" if scores[pair.file_name] is None else "slide",
                "marker": spec.marker,
                "section": spec.section,
                "source_split": pair.split,
                "source_set": spec.kind,
                "source_name": pair.name,
                "warped_stain": "none",
                "tissue_frac": 1.0 - glass,
                "region": "",
                "place": "inside",
                **tile.columns,
            },
            tile.chunks,
        )
    return store.rows
