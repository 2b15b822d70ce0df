"""Small tile stores, the same for every writer."""

from pathlib import Path

import numpy as np

from hepipe.stores.provenance import Provenance
from hepipe.stores.tiles import TileWriter

MADE = Provenance(artefact="tiles", subject="c1")
SIDE = 32


def tissue(count: int, side: int = SIDE, seed: int = 3) -> np.ndarray:
    """Tiles like a scanner's: smooth, stained, a little noise; each is the same whatever `count` is."""
    y, x = np.mgrid[:side, :side] / side
    tiles = np.empty((count, side, side, 3), np.uint8)
    for row in range(count):
        rng = np.random.default_rng((seed, row))
        wave = np.sin(rng.uniform(2, 9) * y + rng.uniform(2, 9) * x)
        drawn = rng.uniform(60, 200, 3) + 40 * wave[..., None] + rng.normal(0, 3, (side, side, 3))
        tiles[row] = np.clip(drawn, 0, 255)
    return tiles


def fill(writer: TileWriter, count: int) -> None:
    """The tiles that the writer does not hold yet, from the same drawing for every writer."""
    tiles = tissue(count, writer.tile_px)
    for row in range(len(writer.rows), count):
        writer.add({"tile_id": f"c1/{row}"}, he=tiles[row], dab_mask=tiles[row, ..., 0] < 120)


def files(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}
