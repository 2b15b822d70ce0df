"""The IHC section's amounts in the H&E's frame: kept on disk while the H&E is drawn, then pulled through the truth."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from jaxtyping import UInt8
from making.pyramid import BLOCK_PX
from making.truth import Inverse

from hepipe.synth.noise import Field, ramp

AMOUNT = 110.0
"""Grey values per unit of amount."""
TISSUE_UM = 16.0
"""Grid of the maps of tissue and of its loss."""


@dataclass(frozen=True)
class Amounts:
    """What a block of a section holds.

    Attributes:
        haematoxylin: On the H&E.
        eosin: On the H&E.
        ihc: Bytes, `AMOUNT` per unit: haematoxylin, what eosin would stain, DAB in optical density.
    """

    haematoxylin: Field
    eosin: Field
    ihc: UInt8[np.ndarray, "h w 3"]


def as_bytes(amount: Field, *, out: np.ndarray) -> None:
    """Write amounts as bytes."""
    out[:] = np.clip(amount * np.float32(AMOUNT) + np.float32(0.5), 0, 255)


class Layers:
    """Blocks of IHC amounts: put once each, read anywhere; a temporary file holds them, memory a few."""

    def __init__(self, folder: Path, *, held: int = 40) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `close`)
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._recent: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._held = held

    def put(self, x: int, y: int, amounts: UInt8[np.ndarray, "h w 3"]) -> None:
        """Keep a block whose corner lies at x, y."""
        self._places[x // BLOCK_PX, y // BLOCK_PX] = (self._file.tell(), len(amounts))
        self._file.write(np.ascontiguousarray(amounts).data)

    def read(self, x0: int, y0: int, x1: int, y1: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """A rectangle, px; None when none of its blocks has tissue."""
        blocks = self._blocks(x0, y0, x1, y1)
        if not blocks:
            return None
        out = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        for block in blocks:
            pixels = self._block(block)
            left, top = block[0] * BLOCK_PX, block[1] * BLOCK_PX
            ax, ay = max(x0, left), max(y0, top)
            bx, by = min(x1, left + len(pixels)), min(y1, top + len(pixels))
            if bx > ax and by > ay:
                out[ay - y0 : by - y0, ax - x0 : bx - x0] = pixels[ay - top : by - top, ax - left : bx - left]
        return out if out.any() else None

    def pull(self, inverse: Inverse, x: int, y: int, side: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """A square of the IHC's frame, by one bicubic interpolation; None for glass."""
        border = np.linspace(0, side, 5)
        corners = np.stack([part.ravel() for part in np.meshgrid(x + border, y + border)], axis=1)
        about = inverse.points(corners)  # few points tell empty glass, which most of a slide is
        (ax, ay), (bx, by) = about.min(axis=0).astype(int) - 64, about.max(axis=0).astype(int) + 64
        if not self._blocks(ax, ay, bx, by):
            return None
        map_x, map_y = inverse.grid(x, y, side)
        x0, y0 = max(int(map_x.min()) - 4, 0), max(int(map_y.min()) - 4, 0)
        x1, y1 = int(map_x.max()) + 5, int(map_y.max()) + 5
        if x1 <= x0 or y1 <= y0:
            return None
        source = self.read(x0, y0, x1, y1)
        if source is None:
            return None
        # cv2 counts from px centres
        map_x, map_y = (map_x - x0 - 0.5).astype(np.float32), (map_y - y0 - 0.5).astype(np.float32)
        moved = cv2.remap(source, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(moved) if moved.any() else None

    def _blocks(self, x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int]]:
        """The blocks with tissue in a rectangle."""
        rows, columns = range(y0 // BLOCK_PX, -(-y1 // BLOCK_PX)), range(x0 // BLOCK_PX, -(-x1 // BLOCK_PX))
        return [(column, row) for row in rows for column in columns if (column, row) in self._places]

    def _block(self, block: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        if block not in self._recent:
            place, side = self._places[block]
            self._file.seek(place)
            self._recent[block] = np.frombuffer(self._file.read(side * side * 3), np.uint8).reshape(side, side, 3)
            if len(self._recent) > self._held:
                self._recent.popitem(last=False)
        self._recent.move_to_end(block)
        return self._recent[block]

    def close(self) -> None:
        """Drop the file."""
        self._file.close()


def without(amounts: UInt8[np.ndarray, "h w 3"], lost: Field, x: int, y: int, *, mpp: float) -> np.ndarray:
    """Amounts of a block with the lost places (positive in `lost`, µm, on the grid of `TISSUE_UM`) cleared softly."""
    side = len(amounts)
    cell = mpp / TISSUE_UM
    place = np.array([[cell, 0, (x + 0.5) * cell - 0.5], [0, cell, (y + 0.5) * cell - 0.5]])
    fine = cv2.warpAffine(
        lost, place, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    if float(fine.max()) < -6:
        return amounts
    return np.asarray(amounts * (1 - ramp(fine, 8.0))[..., None] + np.float32(0.5), np.uint8)
