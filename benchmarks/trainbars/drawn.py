"""A data set of drawn tiles to train on: coarse and fine structure, and noise as a scanner leaves it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, write_table
from hepipe.stores.tiles import TileWriter

NOISE = 3.0
"""Standard deviation, grey levels: with it a tile takes about half of its pixels' bytes, as real ones do."""


def draw_tile(random: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H&E, IHC and DAB mask of one tile; brown rings lie around the larger of the dark spots."""
    tone = cv2.resize(random.random((5, 5)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    he = np.float32((226, 170, 204)) - 40 * tone[..., None] * np.float32((0.4, 1.0, 0.6))
    ihc = np.float32((224, 222, 230)) - 20 * tone[..., None]
    mask = np.zeros((side, side), np.uint8)
    for _ in range(side * side // 700):
        centre = tuple(int(value) for value in random.integers(0, side, 2))
        radius = int(random.choice([3, 6]))
        cv2.circle(he, centre, radius, (96, 60, 140), -1)
        cv2.circle(ihc, centre, radius, (120, 130, 176), -1)
        if radius == 6:
            cv2.circle(ihc, centre, radius, (130, 84, 46), 2)
            cv2.circle(mask, centre, radius, 1, 2)
    noisy = [picture + random.normal(0, NOISE, picture.shape) for picture in (he, ihc)]
    he8, ihc8 = (picture.clip(0, 255).astype(np.uint8) for picture in noisy)
    return he8, ihc8, mask > 0


def draw_set(folder: Path, *, tiles: int, side: int, seed: int = 0) -> Path:
    """An index of training tiles, all of one case; its path."""
    random = np.random.default_rng(seed)
    texts = dict.fromkeys(INDEX.names, "")
    numbers = dict.fromkeys(("x_px0", "y_px0", "canvas_x_px0", "canvas_y_px0"), 0)
    known = {"her2_score": "2+", "marker": "HER2", "mpp": 0.5, "tissue_frac": 1.0, "place": "inside", "split": "train"}
    whole = {**texts, **numbers, **known, "fold": None, "measurements": {}, "store": "tiles/c.zarr"}
    made = Provenance(artefact="tiles", subject="c")
    arrays = {"he": 3, "ihc": 3, "dab_mask": 0}
    rows = []
    with TileWriter(folder / "tiles/c.zarr", made, mpp=0.5, tile_px=side, arrays=arrays) as writer:
        for number in range(tiles):
            he, ihc, mask = draw_tile(random, side)
            row = writer.add(he=he, ihc=ihc, dab_mask=mask)
            rows.append({**whole, "tile_id": f"{number:04d}", "row_in_store": row})
        writer.finish()
    index = folder / "index.parquet"
    write_table(rows, index, INDEX, Provenance(artefact="index", subject="drawn"))
    return index
