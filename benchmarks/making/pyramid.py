"""A tiled JPEG pyramid written block by block: no level is ever held, and empty glass is encoded once and shared."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

import cv2
import imagecodecs
import numpy as np
from jaxtyping import UInt8

TILE_PX = 256
BLOCK_PX = 1024
"""Side of the blocks that are asked for, px at level 0."""

Draw = Callable[[int, int, int], UInt8[np.ndarray, "h w 3"] | None]
"""From left, top and side in px at level 0 to pixels; None is empty glass."""

_SHORT, _LONG, _RATIONAL, _LONG8 = 3, 4, 5, 16
_FORMATS = {_SHORT: "H", _LONG: "I", _RATIONAL: "II", _LONG8: "Q"}


class StreamedPyramid:
    """A generic BigTIFF: level 0 first, each further page half as large until one tile holds it.

    The layout is that of `hepipe.synth.pyramid`; blocks come depth first, so that every level is made on the way.
    """

    def __init__(self, path: Path, size: tuple[int, int], *, mpp: float, quality: int, glass: list[np.ndarray]) -> None:
        """Open the file.

        Args:
            path: To write.
            size: Width and height of level 0, multiples of `TILE_PX`.
            mpp: µm per px of level 0.
            quality: JPEG quality, 1 to 100.
            glass: Tiles of empty glass, taken in turn; further levels show them halved.
        """
        if size[0] % TILE_PX or size[1] % TILE_PX:
            raise ValueError(f"{path.name}: {size[0]} x {size[1]} px are no whole tiles of {TILE_PX} px")
        self.sizes = [size]
        while max(self.sizes[-1]) > TILE_PX:
            width, height = self.sizes[-1]
            self.sizes.append((max(1, width // 2), max(1, height // 2)))
        self.mpp, self.quality = mpp, quality
        self._file: IO[bytes] = path.open("wb")
        self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        self._glass: list[np.ndarray] = []
        self._tiles: list[np.ndarray] = []
        for width, height in self.sizes:
            rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)
            turn = (np.arange(rows)[:, None] * 5 + np.arange(columns)[None] * 3) % len(glass)
            self._tiles.append(np.array([self._append(tile) for tile in glass], np.uint64)[turn])
            self._glass.append(glass[0])
            glass = [_halved(_square([glass[(k + step) % len(glass)] for step in range(4)])) for k in range(2)]

    def __enter__(self) -> StreamedPyramid:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        self._file.close()

    def fill(self, draw: Draw) -> None:
        """Draw everything."""
        self._visit(draw, len(self.sizes) - 1, 0, 0)

    def _visit(self, draw: Draw, level: int, row: int, column: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """One tile of a level with all that lies below it; its pixels, or None for glass."""
        side = TILE_PX << level
        x, y = column * side, row * side
        if x >= self.sizes[0][0] or y >= self.sizes[0][1]:
            return None
        if side <= BLOCK_PX:
            return self._block(draw(x, y, side), level, x, y)
        parts = [
            self._visit(draw, level - 1, 2 * row + down, 2 * column + right) for down in (0, 1) for right in (0, 1)
        ]
        if all(part is None for part in parts):
            return None
        pixels = _halved(_square([self._glass[level - 1] if part is None else part for part in parts]))
        self._tiles[level][row, column] = self._append(pixels)
        return pixels

    def _block(
        self, pixels: UInt8[np.ndarray, "h w 3"] | None, top_level: int, x: int, y: int
    ) -> UInt8[np.ndarray, "h w 3"] | None:
        if pixels is None:
            return None
        for level in range(top_level + 1):
            if level:
                pixels = _halved(pixels)
            table = self._tiles[level]
            row0, column0 = (y >> level) // TILE_PX, (x >> level) // TILE_PX
            for row in range(row0, min(row0 + len(pixels) // TILE_PX, len(table))):
                for column in range(column0, min(column0 + len(pixels) // TILE_PX, table.shape[1])):
                    top, left = (row - row0) * TILE_PX, (column - column0) * TILE_PX
                    table[row, column] = self._append(pixels[top : top + TILE_PX, left : left + TILE_PX])
        return pixels

    def _append(self, pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
        encoded = imagecodecs.jpeg8_encode(
            np.ascontiguousarray(pixels),
            level=self.quality,
            colorspace="rgb",
            outcolorspace="ycbcr",
            subsampling="420",
        )
        start = self._file.tell()
        self._file.write(encoded)
        if len(encoded) % 2:
            self._file.write(b"\0")
        return start, len(encoded)

    def _finish(self) -> None:
        """Write the page of every level and enter the first into the header."""
        link = 8
        for level, ((width, height), table) in enumerate(zip(self.sizes, self._tiles, strict=True)):
            offsets, counts = (table[..., k].ravel().tolist() for k in (0, 1))
            resolution = (round(1e4 / (self.mpp * 2**level) * 1000), 1000)
            tags: list[tuple[int, int, list[int]]] = [
                (254, _LONG, [1 if level else 0]),
                (256, _LONG, [width]),
                (257, _LONG, [height]),
                (258, _SHORT, [8, 8, 8]),
                (259, _SHORT, [7]),  # JPEG, whole streams: no shared tables
                (262, _SHORT, [6]),  # YCbCr
                (277, _SHORT, [3]),
                (282, _RATIONAL, list(resolution)),
                (283, _RATIONAL, list(resolution)),
                (284, _SHORT, [1]),
                (296, _SHORT, [3]),  # per cm
                (322, _LONG, [TILE_PX]),
                (323, _LONG, [TILE_PX]),
                (324, _LONG8, offsets),
                (325, _LONG, counts),
                (530, _SHORT, [2, 2]),
            ]
            link = self._page(tags, link)

    def _page(self, tags: list[tuple[int, int, list[int]]], link: int) -> int:
        """Append a page, point `link` at it; where the next page's address goes."""
        entries = []
        for tag, kind, values in tags:
            letters = _FORMATS[kind]
            body = struct.pack(f"<{len(values)}{letters[0]}", *values)
            if len(body) > 8:
                self._file.write(b"\0" * (-self._file.tell() % 8))
                at = self._file.tell()
                self._file.write(body)
                body = struct.pack("<Q", at)
            entries.append(struct.pack("<HHQ", tag, kind, len(values) // len(letters)) + body.ljust(8, b"\0"))
        self._file.write(b"\0" * (-self._file.tell() % 8))
        here = self._file.tell()
        self._file.write(struct.pack("<Q", len(entries)) + b"".join(entries))
        next_link = self._file.tell()
        self._file.write(struct.pack("<Q", 0))
        end = self._file.tell()
        self._file.seek(link)
        self._file.write(struct.pack("<Q", here))
        self._file.seek(end)
        return next_link


def _square(tiles: list[np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    """Four tiles as one picture."""
    return np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)])


def _halved(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    height, width = pixels.shape[:2]
    return np.asarray(cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
