"""The scanner's own JPEGs as tiles, where the grid falls on them: no decoding, no loss, a tenth of the bytes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from hepipe.geometry import Box
from hepipe.slides.color import SRGB
from hepipe.slides.direct import DirectSlide
from hepipe.slides.reader import Slide
from hepipe.slides.source_tiles import TileGrid
from hepipe.stores.codecs import Passthrough

ROUNDING_PX = 1e-6


@dataclass(frozen=True)
class Passed:
    """A slide whose tiles can be stored as its scanner wrote them.

    Attributes:
        codec: How the store reads them.
        slide: Theirs.
        level: The level that has the tiles' resolution.
        tile_px: Side of a tile of the store.
    """

    codec: Passthrough
    slide: DirectSlide
    level: int
    tile_px: int

    def chunk(self, box_px0: Box) -> bytes:
        """A tile's JPEGs in one chunk; any thread.

        Raises:
            PixelError: The file ends before them.
        """
        grid, down = self.slide.grids[self.level], self.slide.downsamples[self.level]
        x, y = round(box_px0.x / down), round(box_px0.y / down)
        across, deep = grid.tile
        jpegs = [
            self.slide.source_tile(self.level, row * grid.columns + column)
            if row < grid.rows and column < grid.columns
            else b""
            for row in range(y // deep, (y + self.tile_px) // deep)
            for column in range(x // across, (x + self.tile_px) // across)
        ]
        inside = (min(self.tile_px, grid.size[1] - y), min(self.tile_px, grid.size[0] - x))
        return self.codec.pack(jpegs, shape=(self.tile_px, self.tile_px), inside=inside)


def pass_through(slide: Slide, boxes_px0: Sequence[Box], *, mpp: float, tile_px: int) -> Passed | str:
    """How the tiles of a slide can be stored as they are, or why they cannot.

    Args:
        slide: As it was opened.
        boxes_px0: Of the tiles.
        mpp: Their resolution.
        tile_px: Their side.
    """
    if not isinstance(slide, DirectSlide):
        return f"the slide is read with {slide.reader}, not tile by tile"
    if slide.color == SRGB:
        return "its colours are converted to sRGB"
    side_px0 = tile_px * mpp / slide.mpp
    levels = [
        level for level, down in enumerate(slide.downsamples) if abs(side_px0 / down - tile_px) <= ROUNDING_PX * tile_px
    ]
    if not levels:
        known = ", ".join(f"{slide.mpp * down:.6g}" for down in slide.downsamples)
        return f"no level has {mpp:g} µm per px; there are {known}"
    if slide.from_level0 and levels[0]:
        return "its tiles are to be made of level 0"
    grid, down = slide.grids[levels[0]], slide.downsamples[levels[0]]
    if grid.codec != "jpeg":
        return "its tiles are JPEG 2000"
    if tile_px % grid.tile[0] or tile_px % grid.tile[1]:
        return f"tiles of {tile_px} px are not whole JPEGs of {grid.tile[0]} x {grid.tile[1]} px"
    if not all(_falls_on(grid, box.x / down, box.y / down) for box in boxes_px0):
        return f"the grid does not fall on the JPEGs of {grid.tile[0]} x {grid.tile[1]} px"
    codec = Passthrough(
        grid.tile, base64.b64encode(grid.tables or b"").decode(), "RGB" if grid.color == "rgb" else "YCBCR"
    )
    return Passed(codec, slide, levels[0], tile_px)


def _falls_on(grid: TileGrid, x: float, y: float) -> bool:
    return min(x, y) >= 0 and all(
        abs(place / side - round(place / side)) <= ROUNDING_PX for place, side in zip((x, y), grid.tile, strict=True)
    )
