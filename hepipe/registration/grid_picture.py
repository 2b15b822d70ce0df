"""The tissue of a pair on the H&E slide: its outline, what was taken out, regions and tiles, with a legend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.stores.arrays import TissueMasks
from hepipe.tissue.outlines import COLORS
from hepipe.tissue.regions import REGIONS

Color = tuple[int, int, int]
KEPT: Color = (30, 160, 60)
"""Of a kept tile of no class; one of a class has the class' colour."""
DROPPED: Color = (225, 40, 40)
OUTSIDE: Color = (255, 170, 0)
INK: Color = (40, 40, 40)
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Tile:
    """A square of the grid on the H&E slide.

    Attributes:
        x_px0: Left edge.
        y_px0: Top edge.
        side_um: Its side.
        keep: Whether it passed every filter.
        region: Class of region; empty for none.
        place: inside, or outside of the tumour regions.
    """

    x_px0: int
    y_px0: int
    side_um: float
    keep: bool
    region: str = ""
    place: str = "inside"

    @property
    def look(self) -> tuple[str, Color]:
        """What the legend calls it, and its colour."""
        if not self.keep:
            return "tiles dropped", DROPPED
        if self.place == "outside":
            return "tiles beside the tumour, for tests", OUTSIDE
        if not self.region:
            return "tiles kept", KEPT
        return f"tiles kept, {self.region}", COLORS[self.region]


def draw_grid(
    rgb: UInt8[np.ndarray, "h w 3"],
    tissue: TissueMasks,
    tiles: Sequence[Tile],
    *,
    mpp: float,
    level0_mpp: float,
    taken_out: Bool[np.ndarray, "th tw"] | None = None,
) -> UInt8[np.ndarray, "lh w 3"]:
    """The H&E's picture with everything on it, and below it a legend with the numbers of tiles.

    Args:
        rgb: The whole slide.
        tissue: Of the pair.
        tiles: Of its grid.
        mpp: Of the picture.
        level0_mpp: Of the slide's level 0.
        taken_out: Tissue of pieces that the other slide has not, as a mask of the tissue's size.
    """
    assert tissue.tissue is not None
    drawn = rgb.copy()
    line = max(1, round(max(rgb.shape[:2]) / 700))
    grow = tissue.mpp / mpp
    if taken_out is not None:
        veil = _on_picture(taken_out, rgb.shape[:2], 1 / grow)
        drawn[veil] = (drawn[veil] * 0.5 + np.array(COLORS["taken_out"]) * 0.5).astype(np.uint8)
    _outline(drawn, tissue.tissue, grow, COLORS["tissue"], line)
    _draw_tiles(drawn, tiles, px_from_px0=level0_mpp / mpp, px_from_um=1 / mpp)
    present = [] if tissue.regions is None else [n for n in np.unique(tissue.regions).tolist() if n]
    for number in present:
        assert tissue.regions is not None
        _outline(drawn, tissue.regions == number, grow, COLORS[REGIONS[number - 1]], 2 * line)
    areas = [("tissue of both slides", COLORS["tissue"])]
    if taken_out is not None and taken_out.any():
        areas.append(("pieces taken out", COLORS["taken_out"]))
    areas += [(f"region {REGIONS[number - 1]}", COLORS[REGIONS[number - 1]]) for number in present]
    counts = Counter(tile.look for tile in tiles)
    rows = [*areas, *((f"{name}: {count}", color) for (name, color), count in sorted(counts.items()))]
    return _with_legend(drawn, rows)


def _draw_tiles(
    drawn: UInt8[np.ndarray, "h w 3"], tiles: Sequence[Tile], *, px_from_px0: float, px_from_um: float
) -> None:
    """A tint in each kept tile, an edge around each, and a stroke through those that were dropped."""
    tint = drawn.copy()
    corners = []
    for tile in tiles:
        left, top = round(tile.x_px0 * px_from_px0), round(tile.y_px0 * px_from_px0)
        side = max(1, round(tile.side_um * px_from_um))
        corners.append((left, top, left + side - 1, top + side - 1))
        if tile.keep:
            cv2.rectangle(tint, corners[-1][:2], corners[-1][2:], tile.look[1], thickness=-1)
    cv2.addWeighted(drawn, 0.8, tint, 0.2, 0, dst=drawn)
    for tile, (left, top, right, bottom) in zip(tiles, corners, strict=True):
        cv2.rectangle(drawn, (left, top), (right, bottom), tile.look[1], thickness=1)
        if not tile.keep:
            cv2.line(drawn, (left, bottom), (right, top), tile.look[1], 1, cv2.LINE_AA)


def _on_picture(mask: Bool[np.ndarray, "mh mw"], shape: Sequence[int], shrink: float) -> Bool[np.ndarray, "h w"]:
    rows, columns = (
        np.minimum(((np.arange(side) + 0.5) * shrink).astype(np.int64), limit - 1)
        for side, limit in zip(shape, mask.shape, strict=True)
    )
    found: np.ndarray = mask[np.ix_(rows, columns)]
    return found


def _outline(
    drawn: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "mh mw"], grow: float, color: Color, line: int
) -> None:
    rims, _ = cv2.findContours(np.ascontiguousarray(mask, np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = [np.rint((rim + 0.5) * grow).astype(np.int32) for rim in rims]
    cv2.polylines(drawn, lines, isClosed=True, color=color, thickness=line, lineType=cv2.LINE_AA)


def _with_legend(drawn: UInt8[np.ndarray, "h w 3"], rows: Sequence[tuple[str, Color]]) -> UInt8[np.ndarray, "lh w 3"]:
    """The picture above a white strip with a swatch and a word for each row, as many in a line as fit."""
    size = max(0.4, max(drawn.shape[:2]) / 2200)
    height = round(34 * size)
    placed = list(_laid_out(rows, drawn.shape[1], size, height))
    strip = np.full(((placed[-1][1] + 1) * height + height // 2, drawn.shape[1], 3), 255, np.uint8)
    for (left, row), (text, color) in zip(placed, rows, strict=True):
        top = row * height + height // 3
        cv2.rectangle(strip, (left, top), (left + height // 2, top + height // 2), color, thickness=-1)
        at = (left + height * 3 // 4, top + height // 2)
        cv2.putText(strip, text, at, FONT, size, INK, max(1, round(size * 1.5)), cv2.LINE_AA)
    return np.concatenate([drawn, strip])


def _laid_out(rows: Sequence[tuple[str, Color]], width: int, size: float, height: int) -> Iterator[tuple[int, int]]:
    """Left edge and line of each row of the legend."""
    left, line = height // 4, 0
    for text, _ in rows:
        (wide, _), _ = cv2.getTextSize(text, FONT, size, max(1, round(size * 1.5)))
        wide += height * 3 // 2
        if left + wide > width and left > height // 4:
            left, line = height // 4, line + 1
        yield left, line
        left += wide
