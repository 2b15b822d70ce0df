"""What both slides of a pair share, as one 8-bit plane per slide that is read tile by tile when asked for.

For restained sections this is haematoxylin by the slide's own stain vectors; for consecutive ones, where nuclei are
different cells, the total optical density.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hepipe.geometry import Box
from hepipe.slides.reader import Slide
from hepipe.specs.stains import StainsSpec
from hepipe.stains.deconvolution import Separator, density_table
from hepipe.stains.estimate import Stain, estimate, pooled, white_point
from hepipe.stains.matrices import stain_matrix
from hepipe.tissue.otsu import white_point as glass_point

TILE_PX = 512
CODES_PER_OD = 160.0
"""Of the planes: 0 to 1.6 OD in 8 bits, four times finer than the noise of a scan and a quarter of float32's memory."""
SAMPLES = 24
SAMPLE_PX = 256
SAMPLE_MPP = 1.0
OVERVIEW_PX = 1024

Density = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w"]]


class Plane:
    """One slide's density at a whole multiple of level 0, kept in tiles; safe to share between threads.

    Attributes:
        slide: Where it comes from.
        step: Px of level 0 per px of the plane.
        mpp: µm per px of the plane.
    """

    def __init__(self, slide: Slide, density: Density, *, step: int, cache_bytes: int) -> None:
        self.slide = slide
        self.step = step
        self.mpp = slide.mpp * step
        self._density = density
        self._tiles: OrderedDict[tuple[int, int], UInt8[np.ndarray, "h w"]] = OrderedDict()
        self._most = max(1, cache_bytes // TILE_PX**2)
        self._lock = threading.Lock()
        self._reading: dict[tuple[int, int], threading.Event] = {}

    def crop(
        self, left: int, top: int, width: int, height: int, used: Sequence[tuple[int, int]] | None = None
    ) -> UInt8[np.ndarray, "h w"]:
        """A rectangle in px of the plane; 0 beyond the slide.

        Args:
            left: Its first column.
            top: Its first row.
            width: Columns.
            height: Rows.
            used: Tiles (column, row) that the caller will look at, the others stay 0; None for all.
        """
        made = np.zeros((height, width), np.uint8)
        if used is None:
            used = [
                (column, row)
                for row in range(top // TILE_PX, -(-(top + height) // TILE_PX))
                for column in range(left // TILE_PX, -(-(left + width) // TILE_PX))
            ]
        for column, row in used:
            x, y = column * TILE_PX - left, row * TILE_PX - top
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + TILE_PX, width), min(y + TILE_PX, height)
            if x0 < x1 and y0 < y1 and self._exists(column, row):
                made[y0:y1, x0:x1] = self._tile(column, row)[y0 - y : y1 - y, x0 - x : x1 - x]
        return made

    def _exists(self, column: int, row: int) -> bool:
        side = TILE_PX * self.step
        return 0 <= column * side < self.slide.size_px0[0] and 0 <= row * side < self.slide.size_px0[1]

    def _tile(self, column: int, row: int) -> UInt8[np.ndarray, "h w"]:
        """One tile, decoded once however many threads ask for it."""
        key = (column, row)
        while True:
            with self._lock:
                if key in self._tiles:
                    self._tiles.move_to_end(key)
                    return self._tiles[key]
                waiting = self._reading.get(key)
                if waiting is None:
                    self._reading[key] = threading.Event()
                    break
            waiting.wait()
        try:
            side = TILE_PX * self.step
            box = Box(column * side, row * side, side, side)
            tile = self._density(self.slide.read(box, mpp=self.mpp, size=(TILE_PX, TILE_PX)))
            with self._lock:
                self._tiles[key] = tile
                while len(self._tiles) > self._most:
                    self._tiles.popitem(last=False)
            return tile
        finally:
            with self._lock:
                self._reading.pop(key).set()


def total_density(slide: Slide) -> Density:
    """Mean optical density of the three channels against the slide's own glass."""
    rgb, _ = slide.overview(max_px=OVERVIEW_PX)
    table = density_table(tuple(glass_point(rgb)))

    def density(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        mean = cv2.transform(cv2.LUT(rgb, table), np.full((1, 3), 1 / 3, np.float32))
        coded: np.ndarray = cv2.convertScaleAbs(np.maximum(mean, 0), alpha=CODES_PER_OD)
        return coded

    return density


def stain_density(
    slide: Slide, places_px0: Float[np.ndarray, "n 2"], *, stain: Stain, spec: StainsSpec
) -> tuple[Density, dict[str, object]]:
    """How haematoxylin is taken from a slide, by vectors estimated at some places of its tissue; and what was found.

    Args:
        slide: The slide.
        places_px0: Px of tissue; windows at SAMPLES of them, evenly spread over the list, are looked at.
        stain: Which slide it is.
        spec: Which method.
    """
    step = max(1, round(SAMPLE_MPP / slide.mpp))
    side = SAMPLE_PX * step
    chosen = places_px0[np.linspace(0, len(places_px0) - 1, min(SAMPLES, len(places_px0))).astype(int)]
    windows = [
        slide.read(
            Box(round(x - side / 2), round(y - side / 2), side, side),
            mpp=slide.mpp * step,
            size=(SAMPLE_PX, SAMPLE_PX),
        )
        for x, y in chosen
    ]
    pixels = pooled(windows)
    # Pure white is what readers put beyond the slide's edge.
    white = white_point(pixels[(pixels < 255).any(axis=1)])
    found = estimate(pixels, stain=stain, spec=spec, white=white)
    separator = Separator(stain_matrix(found.first, found.second), found.white, stains=(0,))

    def density(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        coded: np.ndarray = cv2.convertScaleAbs(separator(rgb)[0], alpha=CODES_PER_OD)
        return coded

    record: dict[str, object] = {
        "haematoxylin": list(found.first),
        "second": list(found.second),
        "method": found.method,
    }
    return density, record


def touched(
    x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"], seen: Bool[np.ndarray, "h w"], *, reach: int = 1
) -> list[tuple[int, int]]:
    """Tiles (column, row), row by row, that hold the given positions (px of a plane) or px up to `reach` away."""
    found: set[tuple[int, int]] = set()
    columns = np.stack([np.floor_divide(x[seen] + d, TILE_PX) for d in (-reach, reach)]).astype(np.int64)
    rows = np.stack([np.floor_divide(y[seen] + d, TILE_PX) for d in (-reach, reach)]).astype(np.int64)
    for column in columns:
        for row in rows:
            pairs = np.unique(np.stack([column, row], axis=1), axis=0)
            found.update((int(c), int(r)) for c, r in pairs)
    return sorted(found, key=lambda place: (place[1], place[0]))
