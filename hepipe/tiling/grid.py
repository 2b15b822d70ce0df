"""The grid of tiles over a slide; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from hepipe.geometry import Box
from hepipe.specs.tiling import TilingSpec

Place = Literal["inside", "outside"]
STRIP_ROWS = 512


@dataclass(frozen=True)
class Cell:
    """One place of the grid.

    Attributes:
        column: Counted from the grid's origin.
        row: Counted from the grid's origin.
        box_px0: What a tile here shows; its corner is a whole px, its side need not be.
        region: Class of region that most of its tissue is in; empty for none.
        place: outside: beside the tumour regions, kept for tests alone.
    """

    column: int
    row: int
    box_px0: Box
    region: str = ""
    place: Place = "inside"


def cut_grid(
    size_px0: tuple[int, int],
    *,
    level0_mpp: float,
    spec: TilingSpec,
    start_um: tuple[float, float] = (0.0, 0.0),
    origin_px0: tuple[int, int] = (0, 0),
) -> list[Cell]:
    """Cells in reading order; together they cover everything right of and below `start_um`.

    Those at the edges may reach over the slide's.

    Args:
        size_px0: Width and height of the slide at level 0.
        level0_mpp: µm per px at level 0.
        spec: Resolution, side and overlap of the tiles.
        start_um: The grid's corner, µm from the canvas'.
        origin_px0: Where the slide, and what its boxes count from, lies on the canvas; columns and rows count from the
            canvas, and those that show nothing of the slide are left out.
    """
    side_um = spec.tile_px * spec.mpp
    step_um = (spec.tile_px - spec.overlap_px) * spec.mpp
    margin_um = spec.overlap_px * spec.mpp
    side_px0 = side_um / level0_mpp

    def starts(length_px0: int, start: float, offset_px0: int) -> list[tuple[int, int]]:
        left_um = (offset_px0 + length_px0) * level0_mpp - start - margin_um
        count = max(1, math.ceil(round(left_um / step_um, 9)))
        corners = ((place, round((start + place * step_um) / level0_mpp) - offset_px0) for place in range(count))
        return [(place, corner) for place, corner in corners if -side_px0 < corner < length_px0]

    columns = starts(size_px0[0], start_um[0], origin_px0[0])
    rows = starts(size_px0[1], start_um[1], origin_px0[1])
    return [Cell(column, row, Box(float(x), float(y), side_px0, side_px0)) for row, y in rows for column, x in columns]


def tissue_start_um(tissue: Bool[np.ndarray, "h w"], mpp: float) -> tuple[float, float]:
    """The left upper corner of the tissue's bounding box, µm; (0, 0) without tissue."""
    if not tissue.any():
        return 0.0, 0.0
    return float(tissue.any(0).argmax() * mpp), float(tissue.any(1).argmax() * mpp)


def tissue_fracs(
    boxes: list[Box], tissue: Bool[np.ndarray, "h w"], *, level0_mpp: float, mask_mpp: float
) -> Float64[np.ndarray, " n"]:
    """The share of each box (px0) that is tissue, exact for fractions of mask px; outside the mask is no tissue."""
    height, width = tissue.shape
    scale = level0_mpp / mask_mpp
    corners = np.array([[box.x, box.y, box.right, box.bottom] for box in boxes], np.float64).reshape(-1, 4) * scale
    left, top, right, bottom = corners.T
    edges = np.minimum(np.clip(np.concatenate([top, bottom]), 0.0, height).astype(np.int64), height - 1)
    needed = np.unique(np.concatenate([edges, edges + 1]))
    table = _sums_above(tissue, needed)

    def area(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = np.clip(x, 0.0, width), np.clip(y, 0.0, height)
        column, row = (np.minimum(at.astype(np.int64), side - 1) for at, side in ((x, width), (y, height)))
        fx, fy = x - column, y - row
        place = np.searchsorted(needed, row)
        upper = table[place, column] * (1 - fx) + table[place, column + 1] * fx
        lower = table[place + 1, column] * (1 - fx) + table[place + 1, column + 1] * fx
        below: np.ndarray = upper * (1 - fy) + lower * fy
        return below

    inside = area(right, bottom) - area(left, bottom) - area(right, top) + area(left, top)
    shares: np.ndarray = np.clip(inside / ((right - left) * (bottom - top)), 0.0, 1.0)
    return shares


def _sums_above(tissue: Bool[np.ndarray, "h w"], rows: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, "n w1"]:
    """At each of ascending rows, the tissue px above it and left of each column: an integral image's rows.

    The whole of it would be four times the mask of a slide; a grid asks for few rows.
    """
    sums = np.zeros((len(rows), tissue.shape[1] + 1), np.int32)
    above = np.zeros(tissue.shape[1] + 1, np.int32)
    for top in range(0, len(tissue), STRIP_ROWS):
        strip = np.ascontiguousarray(tissue[top : top + STRIP_ROWS]).view(np.uint8)
        here = cv2.integral(strip, sdepth=cv2.CV_32S)
        first, after = np.searchsorted(rows, (top + 1, top + len(strip) + 1))
        sums[first:after] = above + here[rows[first:after] - top]
        above += here[-1]
    return sums


def sample_windows(
    tissue: Bool[np.ndarray, "h w"], *, mask_mpp: float, level0_mpp: float, side_um: float, count: int
) -> list[Box]:
    """At most `count` windows (px0) spread evenly over the tissue, the same every time; none without tissue.

    Windows that are at least half tissue come first; where there are none, those with the most.
    """
    height_um, width_um = (n * mask_mpp for n in tissue.shape)
    boxes = [
        Box(x * side_um / level0_mpp, y * side_um / level0_mpp, side_um / level0_mpp, side_um / level0_mpp)
        for y in range(math.ceil(height_um / side_um))
        for x in range(math.ceil(width_um / side_um))
    ]
    shares = tissue_fracs(boxes, tissue, level0_mpp=level0_mpp, mask_mpp=mask_mpp)
    places = np.flatnonzero(shares >= 0.5)
    if not len(places):
        places = np.sort(np.argsort(-shares, kind="stable")[:count])
        places = places[shares[places] > 0]
    if len(places) > count:
        places = places[np.linspace(0, len(places) - 1, count).astype(np.int64)]
    return [boxes[place] for place in places]
