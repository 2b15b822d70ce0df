"""A slide in the other one's frame as a file: every level in one pass, in memory that no slide's size changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.geometry import Box, Transform
from hepipe.parallel import in_order
from hepipe.progress import watched
from hepipe.registration.warp import read_warped
from hepipe.slides.reader import Slide
from hepipe.slides.writer import TILE_PX, PyramidForm, PyramidWriter, encode_tile, whole_file

BLOCK_LEVELS = 3
"""A block is one tile of the third level, so 4 x 4 tiles of the first: 1024 px."""
BLOCK_PX = TILE_PX << (BLOCK_LEVELS - 1)


@dataclass(frozen=True)
class Warped:
    """What was written.

    Attributes:
        size: Width and height of level 0, px.
        mpp: µm per px of level 0.
        levels: How many.
        shown_frac: Share of level 0 that lies on the moving slide; the rest is white.
    """

    size: tuple[int, int]
    mpp: float
    levels: int
    shown_frac: float


@dataclass(frozen=True)
class _Block:
    """A square of level 0 and what it becomes in the levels above; `None` stands for white.

    Attributes:
        tiles: (level, column, row, encoded).
        rest: The block in the first level that it does not fill a tile of; float, so that no level adds its rounding.
        shown_px: Px of level 0 on the moving slide.
    """

    tiles: list[tuple[int, int, int, bytes | None]]
    rest: Float32[np.ndarray, "h w 3"] | None
    shown_px: int


def warp_slide(
    moving: Slide,
    moving_from_fixed: Transform,
    path: Path,
    *,
    fixed_size_px0: tuple[int, int],
    mpp: float,
    form: PyramidForm,
    has_mpp: bool = True,
    workers: int = 1,
) -> Warped:
    """Write the moving slide as the fixed one lies, as a pyramid; the file appears when it is whole.

    Each level is the area mean of level 0 as it was before compression. The same bytes for any number of workers.

    Args:
        moving: The slide whose pixels are shown.
        moving_from_fixed: Its place for each point of the fixed slide.
        path: The TIFF to write.
        fixed_size_px0: Width and height of the fixed slide.
        mpp: µm per px of the result's level 0.
        form: Layout and compression.
        has_mpp: Whether µm are known; otherwise the file states no pixel size.
        workers: Threads.

    Raises:
        SlideError: `mpp` is finer than the moving slide, or its pixels do not decode.
    """
    step = mpp / moving_from_fixed.fixed_mpp
    size = (max(1, math.ceil(fixed_size_px0[0] / step - 1e-6)), max(1, math.ceil(fixed_size_px0[1] / step - 1e-6)))
    shown_px = 0

    def make(place: tuple[int, int]) -> _Block:
        left, top = place[0] * BLOCK_PX, place[1] * BLOCK_PX
        width, height = min(BLOCK_PX, size[0] - left), min(BLOCK_PX, size[1] - top)
        box = Box(left * step, top * step, width * step, height * step)
        pixels, valid = read_warped(moving, moving_from_fixed, box, mpp=mpp, size=(width, height))
        shown = int(np.count_nonzero(valid))
        return _reduce(pixels, place, levels=len(writer.sizes), form=form, shown_px=shown)

    with (
        whole_file(path) as file,
        PyramidWriter(file, size, mpp=mpp if has_mpp else None, form=form, icc=moving.icc_profile()) as writer,
    ):
        places = list(_z_order(-(-size[0] // BLOCK_PX), -(-size[1] // BLOCK_PX)))
        upper = _UpperLevels(writer)
        # OpenCV's own threads would only compete with ours.
        cv2.setNumThreads(1)
        blocks = in_order(make, places, workers=workers, name="warp")
        for place, block in zip(places, watched(blocks, "warp", total=len(places), unit="block"), strict=True):
            for level, column, row, data in block.tiles:
                writer.put(level, column, row, data)
            if len(writer.sizes) > BLOCK_LEVELS:
                upper.add(BLOCK_LEVELS, *place, block.rest)
            shown_px += block.shown_px
    return Warped(size, mpp, len(writer.sizes), shown_px / (size[0] * size[1]))


def _reduce(
    pixels: UInt8[np.ndarray, "h w 3"], place: tuple[int, int], *, levels: int, form: PyramidForm, shown_px: int
) -> _Block:
    """A block's tiles in the levels that it fills, and what is left for the next."""
    white = not shown_px or bool(pixels.min() == 255)
    height, width = pixels.shape[:2]
    mean: np.ndarray | None = None if white else pixels
    tiles: list[tuple[int, int, int, bytes | None]] = []
    for level in range(min(levels, BLOCK_LEVELS)):
        across = BLOCK_PX >> level
        for top in range(0, height, TILE_PX):
            for left in range(0, width, TILE_PX):
                column, row = (place[0] * across + left) // TILE_PX, (place[1] * across + top) // TILE_PX
                part = None if mean is None else mean[top : top + TILE_PX, left : left + TILE_PX]
                tiles.append((level, column, row, _encoded(part, form)))
        if mean is not None:
            mean = _halved(mean)
        height, width = height // 2, width // 2
    return _Block(tiles, mean, shown_px)


class _UpperLevels:
    """The levels above the blocks, a tile made as soon as its four parts are there.

    Blocks come in the order of a quad tree, so at most a few tiles of each level are under way.
    """

    def __init__(self, writer: PyramidWriter) -> None:
        self._writer = writer
        self._waiting: dict[tuple[int, int, int], _Parts] = {}

    def add(self, level: int, column: int, row: int, part: Float32[np.ndarray, "h w 3"] | None) -> None:
        """Take the part of tile (column // 2, row // 2) of a level that a tile of the level below has become."""
        if level >= len(self._writer.sizes):
            return
        width, height = self._writer.sizes[level]
        below = self._writer.sizes[level - 1]
        here = (column // 2, row // 2)
        size = tuple(min(TILE_PX, side - TILE_PX * at) for side, at in zip((width, height), here, strict=True))
        if min(size) <= 0:
            # The odd last px of the level below, which this one leaves out.
            return
        key = (level, *here)
        tile = self._waiting.setdefault(key, _Parts(size=(size[0], size[1])))
        tile.take((column % 2, row % 2), part)
        expected = math.prod(min(2, -(-side // TILE_PX) - 2 * at) for side, at in zip(below, here, strict=True))
        if tile.count == expected:
            del self._waiting[key]
            self._writer.put(level, *here, _encoded(tile.canvas, self._writer.form))
            self.add(level + 1, *here, None if tile.canvas is None else _halved(tile.canvas))


@dataclass
class _Parts:
    """A tile under way."""

    size: tuple[int, int]
    canvas: np.ndarray | None = field(default=None)
    count: int = 0

    def take(self, quarter: tuple[int, int], part: np.ndarray | None) -> None:
        self.count += 1
        if part is None or 0 in part.shape:
            return
        if self.canvas is None:
            self.canvas = np.full((self.size[1], self.size[0], 3), 255, np.float32)
        left, top = (TILE_PX // 2 * at for at in quarter)
        self.canvas[top : top + part.shape[0], left : left + part.shape[1]] = part


def _encoded(part: np.ndarray | None, form: PyramidForm) -> bytes | None:
    """A tile for the file; None where it is pure white."""
    if part is None or part.min() >= 254.5:
        return None
    return encode_tile(part if part.dtype == np.uint8 else np.rint(part).astype(np.uint8), form)


def _halved(pixels: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    """The mean of every 2 x 2 px; an odd last row or column is left out."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    if min(height, width) == 0:
        return np.empty((height, width, 3), np.float32)
    even = pixels[: 2 * height, : 2 * width].astype(np.float32)
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))


def _z_order(columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """Every cell of a grid, the four of each quad tree's node one after the other."""

    def visit(column: int, row: int, side: int) -> Iterator[tuple[int, int]]:
        if column >= columns or row >= rows:
            return
        if side == 1:
            yield column, row
            return
        half = side // 2
        for down in (0, half):
            for across in (0, half):
                yield from visit(column + across, row + down, half)

    yield from visit(0, 0, 1 << max(columns - 1, rows - 1).bit_length())
