"""Polygons and px: what rings go around, how often, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from hepipe.errors import SlideError

MAX_CROSSINGS = 10_000_000
"""Rows of the map that the edges of one outline cross, together: a million for a whole section outlined px by px."""
SAMPLES = 256
"""Of the longer side of a ring, at which it is looked for crossings: a loop below 1/250 of the outline is a speck."""

Ring = Float[np.ndarray, "_ 2"]
Polygon = tuple[Ring, ...]
"""An outer ring and its holes, px0, in any order: what an odd number of rings goes around is inside."""


@dataclass(frozen=True)
class Crossing:
    """A ring that crosses itself.

    Attributes:
        twice_frac: Share of all that it goes around that it goes around an even number of times: inside for whoever
            drew over a line again, a hole for most programs.
        area: Of what it goes around an odd number of times, in the ring's own unit squared.
    """

    twice_frac: float
    area: float


def fill(rings: Sequence[Ring], shape: tuple[int, int], slide_id: str) -> Bool[np.ndarray, "h w"]:
    """Px whose centres an odd number of rings goes around: each edge turns all px to its right over.

    Raises:
        SlideError: So many edges back and forth that it cannot be a drawing.
    """
    row, column, _ = _crossed(rings, shape, slide_id)
    height, width = shape
    turned = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(turned.ravel(), row * (width + 1) + column, 1)
    filled: np.ndarray = np.bitwise_xor.accumulate(turned, axis=1)[:, :-1].astype(bool)
    return filled


def winding(ring: Ring, shape: tuple[int, int], slide_id: str) -> Int[np.ndarray, "h w"]:
    """How often a ring goes around each px's centre, negative where it does so the other way; raises as `fill`."""
    row, column, way = _crossed([ring], shape, slide_id)
    height, width = shape
    turned = np.zeros((height, width + 1), np.int32)
    np.add.at(turned.ravel(), row * (width + 1) + column, way)
    wound: np.ndarray = np.cumsum(turned, axis=1)[:, :-1]
    return wound


def crossing(ring: Ring, slide_id: str) -> Crossing | None:
    """How a ring crosses itself; None where it does not, or by no more than a speck. Raises as `fill`."""
    low = ring.min(0)
    extent = ring.max(0) - low
    longest = float(extent.max())
    if not longest > 0:
        return None
    scale = SAMPLES / longest
    height, width = (max(1, int(np.ceil(side * scale))) for side in extent[::-1])
    wound = winding((ring - low) * scale, (height, width), slide_id)
    if wound.max(initial=0) - wound.min(initial=0) <= 1:
        return None
    around = int((wound != 0).sum())
    odd = int((wound & 1).sum())
    return Crossing((around - odd) / around, odd / scale**2)


def area(polygon: Polygon) -> float:
    """Of the outer ring without its holes; which ring is the outer one its size tells."""
    sizes = []
    for ring in polygon:
        x, y = (ring - ring[0]).T
        sizes.append(abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2)
    return max(sizes) - (sum(sizes) - max(sizes))


def _crossed(rings: Sequence[Ring], shape: tuple[int, int], slide_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each edge and row of px whose centres it crosses: the row, the first px to its right, and 1 down or -1 up."""
    height, width = shape
    start = np.concatenate(rings)
    stop = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    first = np.clip(np.ceil(np.minimum(start[:, 1], stop[:, 1]) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(start[:, 1], stop[:, 1]) - 0.5), 0, height).astype(np.int64)
    counts = last - first
    total = int(counts.sum())
    if total > MAX_CROSSINGS:
        raise SlideError(slide_id, "regions: an outline of endless turns back and forth; draw it again in QuPath")
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (stop[edge, 0] - start[edge, 0]) / (stop[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    return row, column, np.where(stop[edge, 1] > start[edge, 1], 1, -1)
