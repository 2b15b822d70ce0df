"""Big slides made of real tissue, for the bars of tiles: a mosaic, and a canvas that is nearly all empty.

    python benchmarks/tilebars/mosaic.py OUT.tif --data FOLDER [--side-px 40960] [--stain he|ihc] [--seed 1]
    python benchmarks/tilebars/mosaic.py OUT.tif --data FOLDER --sparse 100000x200000

OUT.tif is a BigTIFF pyramid of 256-px JPEG tiles (Q80, 4:2:0) at 0.25 µm per px. Pieces of 512 px of a public slide in
FOLDER, turned and mirrored, fill outlined areas of tissue (`--tissue`, 0.38 of the mosaic); the rest is its glass.
Every tile of the mosaic has bytes of its own. With --sparse 0.5 % is tissue and all empty tiles share the bytes of one.
Sides are rounded up to whole tiles. Equal arguments give equal bytes; memory does not grow with the size.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import openslide
from jaxtyping import Bool, UInt8

sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a file, it finds only what lies beside it
from making.pyramid import BLOCK_PX, TILE_PX, StreamedPyramid

Pixels = UInt8[np.ndarray, "h w 3"]

SOURCES = {"he": "wsi-aperio-cmu1-small/CMU-1-Small-Region.svs", "ihc": "wsi-crc15-ihc-pyramid/CRC-AI-15_X40_IHC.tif"}
MPP = 0.25
QUALITY = 80
CELL_PX = 64
"""Px per cell of the mask that says where tissue is."""
PIECES, PIECE_PX = 16, 512
"""How many are taken from the slide: small enough to hold hardly any glass."""
BLOB_PX = 2500
"""Rough size of the areas of tissue (standard deviation of the blur that draws them)."""


class Material:
    """Tissue and glass of a real slide.

    Attributes:
        tissue: Pieces of `PIECE_PX`.
        tile: Of glass, `TILE_PX`.
        glass: The same over `BLOCK_PX`, mirrored so that no edge shows.
    """

    def __init__(self, path: Path) -> None:
        """Read the slide."""
        with openslide.OpenSlide(path) as slide:
            whole = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
        spread = np.ptp(cv2.resize(whole, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA), axis=2)
        colour = np.minimum(spread, 40).astype(np.float32)  # how much of it is tissue, not how strong
        self.tissue = [whole[y : y + PIECE_PX, x : x + PIECE_PX] for x, y in _best(colour, PIECE_PX // 16, PIECES)]
        ((x, y),) = _best(-colour, TILE_PX // 16, 1)
        self.tile = np.ascontiguousarray(whole[y : y + TILE_PX, x : x + TILE_PX])
        pair = np.concatenate([self.tile, self.tile[:, ::-1]], axis=1)
        turns = BLOCK_PX // TILE_PX // 2
        self.glass = np.tile(np.concatenate([pair, pair[::-1]]), (turns, turns, 1))

    def block(self, column: int, row: int, seed: int) -> Pixels:
        """The tissue of one block of `BLOCK_PX`."""
        rng = np.random.default_rng([seed, column, row])
        out = np.empty((BLOCK_PX, BLOCK_PX, 3), np.uint8)
        for y in range(0, BLOCK_PX, PIECE_PX):
            for x in range(0, BLOCK_PX, PIECE_PX):
                piece = np.rot90(self.tissue[rng.integers(len(self.tissue))], rng.integers(4))
                out[y : y + PIECE_PX, x : x + PIECE_PX] = piece[:, ::-1] if rng.integers(2) else piece
        return out


def make(
    path: Path,
    data: Path,
    *,
    size: tuple[int, int] = (40_960, 40_960),
    stain: str = "he",
    tissue: float = 0.38,
    sparse: bool = False,
    seed: int = 1,
) -> None:
    """Write the slide.

    Args:
        path: Of the file.
        data: Folder of the public slides.
        size: Width and height, px; rounded up to whole tiles.
        stain: Whose tissue.
        tissue: Share of the canvas.
        sparse: Whether empty tiles share their bytes.
        seed: Of where the tissue lies and which it is.
    """
    material = Material(data / SOURCES[stain])
    width, height = (-(-side // TILE_PX) * TILE_PX for side in size)
    mask = outlines((width, height), tissue, seed)

    def draw(x: int, y: int, side: int) -> Pixels | None:
        cells = mask[y // CELL_PX : (y + side) // CELL_PX, x // CELL_PX : (x + side) // CELL_PX]
        if not cells.any():
            return None if sparse else material.glass[:side, :side]
        cells = np.pad(cells, [(0, side // CELL_PX - n) for n in cells.shape])
        inside = _enlarged(cells)
        return np.where(inside[..., None], material.block(x // side, y // side, seed)[:side, :side], material.glass)

    beside = path.with_name(f".{path.name}.part")
    with StreamedPyramid(beside, (width, height), mpp=MPP, quality=QUALITY, glass=[material.tile]) as pyramid:
        pyramid.fill(draw)
    beside.replace(path)


def outlines(size: tuple[int, int], share: float, seed: int) -> Bool[np.ndarray, "h w"]:
    """Where tissue is, in cells of `CELL_PX`: blobs on a share of the canvas that keep clear of its edge."""
    columns, rows = (-(-side // CELL_PX) for side in size)
    coarse = max(1, max(columns, rows) // 1024)
    small = (-(-rows // coarse), -(-columns // coarse))
    noise = np.random.default_rng(seed).normal(size=small).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), max(1.0, BLOB_PX / CELL_PX / coarse), borderType=cv2.BORDER_REFLECT)
    rim = max(1, min(small) // 40)
    field[:rim], field[-rim:], field[:, :rim], field[:, -rim:] = (field.min(),) * 4
    high = cv2.resize(field, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.asarray(high > np.quantile(high, 1 - share))


def _enlarged(cells: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "sh sw"]:
    return cells.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)


def _best(spread: np.ndarray, side: int, count: int) -> list[tuple[int, int]]:
    """Corners, px of the slide, of the most coloured windows of `side` cells that overlap by at most half."""
    sums = cv2.boxFilter(spread.astype(np.float32), -1, (side, side), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    sums = sums[: spread.shape[0] - side + 1, : spread.shape[1] - side + 1].copy()
    found = []
    for _ in range(count):
        y, x = np.unravel_index(int(sums.argmax()), sums.shape)
        if not np.isfinite(sums[y, x]):
            break
        found.append((16 * int(x), 16 * int(y)))
        half = side // 2
        sums[max(0, y - half) : y + half, max(0, x - half) : x + half] = -np.inf
    return found


def _window(whole: Pixels, x: int, y: int, side: int) -> Pixels:
    return whole[y : y + side, x : x + side]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public slides")
    parser.add_argument("--side-px", type=int, default=40_960)
    parser.add_argument("--sparse", metavar="WIDTHxHEIGHT")
    parser.add_argument("--stain", choices=tuple(SOURCES), default="he")
    parser.add_argument("--tissue", type=float, help="share of the canvas; 0.38, with --sparse 0.005")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    width, height = map(int, given.sparse.split("x")) if given.sparse else (given.side_px,) * 2
    share = given.tissue if given.tissue is not None else 0.005 if given.sparse else 0.38
    make(
        given.out,
        given.data,
        size=(width, height),
        stain=given.stain,
        tissue=share,
        sparse=bool(given.sparse),
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
