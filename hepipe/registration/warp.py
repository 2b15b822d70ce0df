"""A moving slide seen from the fixed one: one box at a time, with one interpolation."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from hepipe.errors import SlideError
from hepipe.geometry import Box, Transform, apply_affine
from hepipe.slides.reader import Slide

BLOCK_PX = 1024
"""Side of the blocks that a request is served in: bounds the coordinates held at once."""
MAX_SOURCE_PX = 6_000_000
"""Most source px read for one block; a block that needs more (strong local stretching) is split."""
MAX_SOURCE_SIDE_PX = 32_000
"""Longest side of a block's source: OpenCV's remapping counts in 16 bits."""


def read_warped(
    moving: Slide,
    moving_from_fixed: Transform,
    box_fixed_px0: Box,
    *,
    mpp: float,
    size: tuple[int, int],
    mpp_tolerance: float = 0.01,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """The moving slide's pixels that belong to a box of the fixed one, and which px of the result lie on that slide.

    The source is read at a whole multiple of level 0 (an exact area mean) closest to one px of the result, on whole
    source px, so that the bilinear one below is the only interpolation. A px lies on the slide when its centre does,
    up to the slide's very edge; elsewhere, and beyond the transform's field, is white. Where the slide's size is no
    whole multiple, the rest of a source px at its right and bottom edge takes the colour of its neighbour.

    Both directions: the IHC slide in the H&E frame through `ihc_from_he`, and the reverse through `he_from_ihc`.

    Args:
        moving: The slide whose pixels are shown.
        moving_from_fixed: Its place for each point of the fixed slide.
        box_fixed_px0: What to show, px0 of the fixed slide; may reach over the edge.
        mpp: µm per px of the result.
        size: Width and height of the result, px.
        mpp_tolerance: How much finer than the slide's level 0 `mpp` may be.

    Raises:
        SlideError: `mpp` is finer than the moving slide's level 0, or its pixels do not decode.
    """
    if mpp < moving.mpp * (1 - mpp_tolerance):
        raise SlideError(
            moving.slide_id, f"{mpp:g} µm per px asked for, level 0 has {moving.mpp:g}; ask for a coarser mpp"
        )
    width, height = size
    picture = np.full((height, width, 3), 255, np.uint8)
    valid = np.zeros((height, width), bool)
    columns = box_fixed_px0.x + (np.arange(width) + 0.5) * (box_fixed_px0.width / width)
    rows = box_fixed_px0.y + (np.arange(height) + 0.5) * (box_fixed_px0.height / height)
    source = _Source(moving, _shrink(moving_from_fixed, box_fixed_px0, size))
    waiting = [
        (left, top, min(left + BLOCK_PX, width), min(top + BLOCK_PX, height))
        for top in range(0, height, BLOCK_PX)
        for left in range(0, width, BLOCK_PX)
    ]
    while waiting:
        left, top, right, bottom = block = waiting.pop()
        if _misses(moving_from_fixed, columns[left:right], rows[top:bottom], moving.size_px0):
            continue
        at, corner, covered = positions(moving_from_fixed, columns[left:right], rows[top:bottom])
        on_slide = source.holds(at, corner) & covered
        if not on_slide.any():
            continue
        reach = source.reach(at, corner, on_slide)
        if _is_too_large(reach) and (right - left > 1 or bottom - top > 1):
            waiting += _halves(*block)
            continue
        picture[top:bottom, left:right] = source.look(at, corner, on_slide, reach)
        valid[top:bottom, left:right] = on_slide
    return picture, valid


def positions(
    transform: Transform, columns: Float[np.ndarray, " w"], rows: Float[np.ndarray, " h"]
) -> tuple[Float32[np.ndarray, "2 h w"], Float[np.ndarray, " 2"], Bool[np.ndarray, "h w"]]:
    """Where the points of a rectangular raster lie on the moving slide, and which of them the field covers.

    What `Transform.trace` says for each point, to about 0.001 px: numbers count from a corner near the block, so that
    32 bits are enough, and the field, whose axes are the raster's, is interpolated along one axis after the other.

    Args:
        transform: From the fixed slide to the moving one.
        columns: x of the raster, px0 of the fixed slide, ascending.
        rows: y of the raster.

    Returns:
        x and y, px0 of the moving slide from the corner on; the corner (x, y); and the points on the field.
    """
    a = transform.affine
    middle = np.array([columns[len(columns) // 2], rows[len(rows) // 2]])
    corner = np.asarray(a[:2, :2] @ middle + a[:2, 2], np.float64)
    by_column = a[:2, :1] * (columns - middle[0])
    by_row = a[:2, 1:2] * (rows - middle[1])
    at = np.empty((2, len(rows), len(columns)), np.float32)
    if transform.field_um is None:
        for axis in range(2):
            np.add.outer(by_row[axis].astype(np.float32), by_column[axis].astype(np.float32), out=at[axis])
        return at, corner, np.ones(at.shape[1:], bool)
    scale = transform.fixed_mpp / transform.grid_um
    height, width = transform.field_um.shape[1:]
    left, share_x, inside_x = _neighbours(columns * scale, width)
    top, share_y, inside_y = _neighbours(rows * scale, height)
    nodes = transform.field_um[:, top[0] : top[-1] + 2, left[0] : left[-1] + 2] / transform.moving_mpp
    mean = nodes.mean(axis=(1, 2), dtype=np.float64)
    corner += mean
    nodes = (nodes - mean[:, None, None]).astype(np.float32)
    # Rows of nodes at every column, then the rows between each two of them: small pieces that stay in the cache.
    left, top = left - left[0], top - top[0]
    right = np.minimum(left + 1, nodes.shape[2] - 1)
    lines = nodes[:, :, left] + (nodes[:, :, right] - nodes[:, :, left]) * share_x.astype(np.float32)
    lines += by_column[:, None].astype(np.float32)
    share = share_y.astype(np.float32)
    starts = np.flatnonzero(np.diff(top, prepend=-1))
    for start, stop in zip(starts, (*starts[1:], len(rows)), strict=True):
        upper, lower = top[start], min(top[start] + 1, lines.shape[1] - 1)
        for axis in range(2):
            part = at[axis, start:stop]
            np.multiply.outer(share[start:stop], lines[axis, lower] - lines[axis, upper], out=part)
            part += lines[axis, upper]
            part += by_row[axis, start:stop, None].astype(np.float32)
    return at, corner, np.logical_and.outer(inside_y, inside_x)


def _misses(transform: Transform, columns: np.ndarray, rows: np.ndarray, size_px0: tuple[int, int]) -> bool:
    """Whether a raster lies wholly beside the moving slide: told from its corners and the largest displacement."""
    corners = np.array([(x, y) for x in (columns[0], columns[-1]) for y in (rows[0], rows[-1])])
    moved = apply_affine(transform.affine, corners)
    low = high = np.zeros(2)
    if transform.field_um is not None:
        scale = transform.fixed_mpp / transform.grid_um
        spans = [
            _neighbours(axis[[0, -1]] * scale, count)[0]
            for axis, count in zip((rows, columns), transform.field_um.shape[1:], strict=True)
        ]
        nodes = transform.field_um[:, spans[0][0] : spans[0][1] + 2, spans[1][0] : spans[1][1] + 2]
        low, high = nodes.min(axis=(1, 2)) / transform.moving_mpp, nodes.max(axis=(1, 2)) / transform.moving_mpp
    first, last = moved.min(axis=0) + low - 1, moved.max(axis=0) + high + 1
    return bool((last < 0).any() or (first > size_px0).any())


def _neighbours(place: Float[np.ndarray, " n"], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For places along an axis of a field: the node before, the share of the one after, and which lie on the field."""
    clipped = np.clip(place - 0.5, 0, count - 1)
    before = np.minimum(clipped.astype(np.int64), max(count - 2, 0))
    return before, clipped - before, (place >= 0) & (place <= count)


def _shrink(transform: Transform, box: Box, size: tuple[int, int]) -> int:
    """Px of the moving slide per px of the result, as the nearest whole number.

    By the affine part and not by the stated resolutions: these may be unknown, and sections swell. What remains for
    the bilinear step is between 0.67 and 1.5.
    """
    area = abs(float(np.linalg.det(transform.affine[:2, :2])))
    step = math.sqrt(area * (box.width / size[0]) * (box.height / size[1]))
    if not math.isfinite(step):
        raise ValueError(f"a transform of which one px is {step} px of the moving slide")
    return max(1, round(step))


class _Source:
    """A slide shrunk by a whole number: whole source px only, the outermost repeated beyond the edge."""

    def __init__(self, slide: Slide, shrink: int) -> None:
        # A slide smaller than one source px is read as it is.
        self.shrink = max(1, min(shrink, *slide.size_px0))
        self.slide = slide
        self.size = tuple(side // self.shrink for side in slide.size_px0)

    def holds(self, at: Float32[np.ndarray, "2 h w"], corner: Float[np.ndarray, " 2"]) -> Bool[np.ndarray, "h w"]:
        """Positions on the slide; those that are not finite are not."""
        inside = np.ones(at.shape[1:], bool)
        for axis, side in enumerate(self.slide.size_px0):
            # The tolerance is that of the positions: the last px of an identity must not depend on rounding.
            low, high = -corner[axis] - 1e-3, side - corner[axis] + 1e-3
            smallest, largest = at[axis].min(), at[axis].max()
            if not (smallest >= low and largest <= high):
                inside &= (at[axis] >= np.float32(low)) & (at[axis] <= np.float32(high))
        return inside

    def look(
        self,
        at: Float32[np.ndarray, "2 h w"],
        corner: Float[np.ndarray, " 2"],
        wanted: Bool[np.ndarray, "h w"],
        reach: tuple[int, int, int, int],
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The slide at the wanted positions, bilinear, from the source px that they reach; white elsewhere."""
        x0, y0, x1, y1 = reach
        step = self.shrink
        pixels = self.slide.read(
            Box(float(x0 * step), float(y0 * step), float((x1 - x0) * step), float((y1 - y0) * step)),
            mpp=self.slide.mpp * step,
            size=(x1 - x0, y1 - y0),
        )
        if pixels.min() == 255:
            return np.full((*wanted.shape, 3), 255, np.uint8)
        # From level 0 to px of the source, and half a px from a px's corner to its centre.
        x, y = (
            at[axis] * np.float32(1 / step) + np.float32(corner[axis] / step - low - 0.5)
            for axis, low in enumerate((x0, y0))
        )
        beside = None if wanted.all() else ~wanted
        if beside is not None:
            # Whatever a wild transform says of px that are white in the end: OpenCV takes no nan.
            x[beside] = y[beside] = 0
        seen: np.ndarray = cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if beside is not None:
            seen[beside] = 255
        return seen

    def reach(self, at: np.ndarray, corner: np.ndarray, wanted: np.ndarray) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the source px that the wanted positions touch."""
        low, high = [], []
        for axis, count in enumerate(self.size):
            places = at[axis] if wanted.all() else at[axis][wanted]
            smallest, largest = (float(value) + corner[axis] for value in (places.min(), places.max()))
            first = min(max(math.floor(smallest / self.shrink - 0.5 - 1e-3), 0), count - 1)
            low.append(first)
            high.append(min(max(math.floor(largest / self.shrink - 0.5 + 1e-3) + 2, first + 1), count))
        return low[0], low[1], high[0], high[1]


def _is_too_large(reach: tuple[int, int, int, int]) -> bool:
    """Whether a source rectangle is more than one read may hold."""
    width, height = reach[2] - reach[0], reach[3] - reach[1]
    return width * height > MAX_SOURCE_PX or max(width, height) > MAX_SOURCE_SIDE_PX


def _halves(left: int, top: int, right: int, bottom: int) -> list[tuple[int, int, int, int]]:
    if right - left >= bottom - top:
        middle = math.ceil((left + right) / 2)
        return [(left, top, middle, bottom), (middle, top, right, bottom)]
    middle = math.ceil((top + bottom) / 2)
    return [(left, top, right, middle), (left, middle, right, bottom)]
