"""The grid of tiles over a slide; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from hepipe.config import TilingSpec
from hepipe.geometry import Box


@dataclass(frozen=True)
class Cell:
    """One place of the grid.

    Attributes:
        column: Counted from the grid's origin.
        row: Counted from the grid's origin.
        box_px0: What a tile here shows; its corner is a whole px, its side need not be.
    """

    column: int
    row: int
    box_px0: Box


def cut_grid(
    size_px0: tuple[int, int], *, level0_mpp: float, spec: TilingSpec, start_um: tuple[float, float] = (0.0, 0.0)
) -> list[Cell]:
    """Cells in reading order; together they cover everything right of and below `start_um`.

    The last column and row may reach over the slide's edge.

    Args:
        size_px0: Width and height of the slide at level 0.
        level0_mpp: µm per px at level 0.
        spec: Resolution, side and overlap of the tiles.
        start_um: The grid's corner, µm from the slide's.
    """
    side_um = spec.tile_px * spec.mpp
    step_um = (spec.tile_px - spec.overlap_px) * spec.mpp
    margin_um = spec.overlap_px * spec.mpp
    side_px0 = side_um / level0_mpp

    def starts(length_px0: int, start: float) -> list[int]:
        left_um = length_px0 * level0_mpp - start - margin_um
        count = max(1, math.ceil(round(left_um / step_um, 9)))
        corners = [round((start + place * step_um) / level0_mpp) for place in range(count)]
        return [corner for corner in corners if corner < length_px0]

    columns = starts(size_px0[0], start_um[0])
    rows = starts(size_px0[1], start_um[1])
    return [
        Cell(column, row, Box(float(x), float(y), side_px0, side_px0))
        for row, y in enumerate(rows)
        for column, x in enumerate(columns)
    ]


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
    table = np.zeros((height + 1, width + 1))
    table[1:, 1:] = tissue.cumsum(0, dtype=np.float64).cumsum(1)

    def area(x: float, y: float) -> float:
        x, y = min(max(x, 0.0), width), min(max(y, 0.0), height)
        left, top = min(int(x), width - 1), min(int(y), height - 1)
        fx, fy = x - left, y - top
        upper = table[top, left] * (1 - fx) + table[top, left + 1] * fx
        lower = table[top + 1, left] * (1 - fx) + table[top + 1, left + 1] * fx
        return float(upper * (1 - fy) + lower * fy)

    shares = []
    for box_px0 in boxes:
        box = box_px0.scaled(level0_mpp / mask_mpp)
        inside = area(box.right, box.bottom) - area(box.x, box.bottom) - area(box.right, box.y) + area(box.x, box.y)
        shares.append(inside / (box.width * box.height))
    return np.clip(np.array(shares, np.float64), 0.0, 1.0)


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
