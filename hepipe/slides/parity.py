"""Whether a slide's tiles decode to what openslide shows, on a sample of every level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hepipe.errors import SlideError
from hepipe.geometry import GivenMpp
from hepipe.slides.direct import DirectSlide
from hepipe.slides.openslide import OpenSlideSlide
from hepipe.slides.source_tiles import NotDirect, TileGrid

WINDOW_PX = 96
GRID = 5
"""Windows per side of a level."""
RICH, MISSING = 6, 2
"""Tiles that are compared of those with the most bytes, which show colours best, and of those without any."""
STRIP_PX = 3_000_000
"""Px of a level that are compared from its corner where openslide interpolates elsewhere."""
WHOLE_PX = 1e-3
"""How near to a whole px of the level a corner at level 0 must be for openslide not to interpolate (seen: 0.004)."""

Window = tuple[int, int, int, int]
"""Left, top, width, height, px of a level."""


def open_direct(path: Path, *, slide_id: str, mpp: GivenMpp, mpp_tolerance: float, compare: bool = True) -> DirectSlide:
    """A slide file whose tiles are decoded here, to what openslide shows.

    Args:
        path: The file.
        slide_id: As in the protocol.
        mpp: From the slide sheet.
        mpp_tolerance: How much finer than level 0 a read may ask.
        compare: Decode a sample of every level both ways; a slide that was checked before needs none.

    Raises:
        NotDirect: Its tiles are of another kind, or decode to other pixels; says which.
        NotThisFormat: openslide does not know it.
        SlideError: No believable pixel size, samples that are not 8-bit RGB, or damage in the sample.
    """
    slide = DirectSlide(path, slide_id=slide_id, mpp=mpp, mpp_tolerance=mpp_tolerance)
    if not compare:
        return slide
    truth = OpenSlideSlide(path, slide_id=slide_id, mpp=mpp, mpp_tolerance=mpp_tolerance)
    try:
        found = difference(slide, truth)
    except SlideError:
        slide.close()
        raise
    finally:
        truth.close()
    if found:
        slide.close()
        raise NotDirect(found)
    return slide


def difference(slide: DirectSlide, truth: OpenSlideSlide) -> str:
    """Where the two differ, in words without a name; empty where every sample is the same.

    Raises:
        SlideError: Pixels do not decode either way.
    """
    for level, grid in enumerate(slide.grids):
        windows = list(_windows(grid, truth.ratios[level]))
        for window in windows:
            expected = truth.decode(level, *window)
            try:
                found = slide.decode(level, *window)
            except SlideError as error:
                return f"level {level}: {error.reason}"
            if not np.array_equal(found, expected):
                most = int(np.abs(found.astype(np.int16) - expected).max())
                return f"level {level}: its tiles decode to other colours than openslide's, by up to {most} of 255"
            slide.tiles.clear()
    return ""


def _windows(grid: TileGrid, ratio: float) -> Iterator[Window]:
    """Windows on and off the tiles' borders, at the level's edges and on chosen tiles, where openslide is exact."""
    width, height = grid.size
    if not (_is_whole(width, ratio) and _is_whole(height, ratio)):
        # Only reads from the corner show the level as it is.
        yield 0, 0, width, min(height, max(1, STRIP_PX // width))
        yield 0, 0, min(width, max(1, STRIP_PX // height)), height
        return
    side_x, side_y = min(WINDOW_PX, width), min(WINDOW_PX, height)
    for row in range(GRID):
        for column in range(GRID):
            yield (width - side_x) * column // (GRID - 1), (height - side_y) * row // (GRID - 1), side_x, side_y
    by_bytes = np.argsort(grid.counts, kind="stable")
    for number in (*by_bytes[-RICH:], *np.flatnonzero(grid.counts == 0)[:MISSING]):
        row, column = divmod(int(number), grid.columns)
        x, y = column * grid.tile[0], row * grid.tile[1]
        yield x, y, min(grid.tile[0], width - x), min(grid.tile[1], height - y)
        off_x, off_y = min(x + grid.tile[0] // 2, width - side_x), min(y + grid.tile[1] // 2, height - side_y)
        yield off_x, off_y, side_x, side_y


def _is_whole(side: int, ratio: float) -> bool:
    """Whether each px of a level has a whole px of level 0 at its corner, as openslide computes it."""
    places = np.arange(0, side)
    return bool((np.abs(np.rint(places * ratio) / ratio - places) < WHOLE_PX).all())
