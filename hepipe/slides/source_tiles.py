"""The compressed tiles of a TIFF's levels, as the scanner wrote them: where they lie, and what they decode to."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8

JPEG = 7
JPEG_2000 = {33003: "ycbcr", 33005: "rgb", 34712: "rgb"}
"""Compression tags to colour space: two of Aperio's, and the registered one."""
PHOTOMETRIC = {2: "rgb", 6: "ycbcr"}
BROKEN = (OSError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, struct.error)
"""What tifffile raises at damaged bytes."""
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""What ends a scan: no stuffed byte, fill byte or restart."""
LIBJPEG = {"rgb": 2, "ycbcr": 3}
"""The colour spaces' numbers in libjpeg."""
MAX_TILE_PX = 2048 * 2048
MAX_BYTES_PER_PX = 8
"""A compressed tile of more bytes is no tile."""

_CHROMA = np.arange(256) - 128.0
RED_OF_CR = np.floor(1.402 * _CHROMA + 0.5).astype(np.int32)
BLUE_OF_CB = np.where(_CHROMA == -125, -222, np.floor(1.772 * _CHROMA + 0.5)).astype(np.int32)
GREEN_OF_CB = np.rint(-0.34414 * (1 << 16) * _CHROMA).astype(np.int32)
GREEN_OF_CR = np.rint(-0.71414 * (1 << 16) * _CHROMA).astype(np.int32)
"""To be added to luma, the greens shifted by 16 bits."""

Color = Literal["rgb", "ycbcr"]


class NotDirect(Exception):
    """Why the tiles of a file are not decoded here, in words that name no file."""


class BrokenTile(Exception):
    """Why one tile does not decode."""


@dataclass(frozen=True)
class TileGrid:
    """The tiles of one level.

    Attributes:
        size: Width and height of the level, px.
        tile: Width and height of a tile, px; those at the right and bottom edge reach beyond the level.
        codec: How a tile is compressed.
        color: What the compressed samples are.
        tables: Quantisation and Huffman tables that the JPEG tiles share, a JPEG stream of its own; None for none.
        offsets: Byte in the file, of every tile, row by row.
        counts: Bytes; 0 for a tile that the file does not hold.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    codec: Literal["jpeg", "jpeg2000"]
    color: Color
    tables: bytes | None
    offsets: np.ndarray
    counts: np.ndarray

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.size[0] // self.tile[0])

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return -(-self.size[1] // self.tile[1])

    def read(self, file: int, number: int) -> bytes:
        """The bytes of a tile as they stand in the file; none for a tile that it does not hold.

        Args:
            file: Descriptor.
            number: Of the tile, row by row.

        Raises:
            BrokenTile: Fewer bytes than the file says.
        """
        count = int(self.counts[number])
        if not 0 <= count <= MAX_BYTES_PER_PX * self.tile[0] * self.tile[1]:
            raise BrokenTile(f"{count} bytes")
        try:
            data = os.pread(file, count, int(self.offsets[number]))
        except OSError as error:
            raise BrokenTile(os.strerror(error.errno or 0)) from error
        if len(data) != count:
            raise BrokenTile(f"{len(data)} of {count} bytes")
        return data

    def standalone(self, data: bytes) -> bytes:
        """A JPEG tile with the shared tables in it, which any JPEG decoder opens; the scan stays as it is.

        The colour space is not in it: a decoder that guesses takes RGB for YCbCr.
        """
        if not self.tables or not data:
            return data
        return data[:2] + self.tables[2:-2] + data[2:]

    def decode(self, data: bytes, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """The pixels of a tile into an array of the tile's size: what the bytes say of theirs is never allocated.

        Raises:
            BrokenTile: They do not decode, or to another size.
        """
        try:
            if self.codec == "jpeg":
                _look_for_damage(data)
                stored = LIBJPEG[self.color]  # never left to the decoder, which goes by markers that Aperio leaves out
                imagecodecs.jpeg8_decode(
                    data, tables=self.tables, colorspace=stored, outcolorspace=LIBJPEG["rgb"], out=out
                )
                return
            _look_at_size(data, self.tile)
            imagecodecs.jpeg2k_decode(data, out=out)
        except (RuntimeError, ValueError, TypeError, struct.error) as error:
            raise BrokenTile(str(error)) from error
        if self.color == "ycbcr":
            out[:] = _rgb_from_ycbcr(out)


def may_be_cut_short(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether the last px is what a JPEG decoder fills up with when the bytes end too early; the codec is silent."""
    red, green, blue = pixels[-1, -1].tolist()
    return bool(red == green == blue == 128)


def read_grids(path: Path, level_sizes: Sequence[tuple[int, int]]) -> tuple[TileGrid, ...]:
    """The tiles of every level that a reader found.

    Raises:
        NotDirect: A level has no tiles of a kind that is decoded here.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if page.is_tiled]
            return tuple(_grid(pages, size, level) for level, size in enumerate(level_sizes))
    except (tifffile.TiffFileError, *BROKEN) as error:
        raise NotDirect("not a TIFF that can be read tile by tile") from error


def _grid(pages: list[tifffile.TiffPage], size: tuple[int, int], level: int) -> TileGrid:
    found = [page for page in pages if (page.imagewidth, page.imagelength) == size]
    if len(found) != 1:
        raise NotDirect(f"level {level} is {len(found)} tiled pages of the file, not one")
    page = found[0]
    kind = int(page.compression)
    if kind != JPEG and kind not in JPEG_2000:
        raise NotDirect(f"level {level} is neither JPEG nor JPEG 2000")
    samples = (int(page.bitspersample), int(page.samplesperpixel), int(page.planarconfig), int(page.imagedepth))
    if samples != (8, 3, 1, 1):
        raise NotDirect(f"level {level} is not 8-bit RGB in one plane")
    color = PHOTOMETRIC.get(int(page.photometric)) if kind == JPEG else JPEG_2000[kind]
    if color is None:
        raise NotDirect(f"level {level} states colours that are neither RGB nor YCbCr")
    tile = (int(page.tilewidth), int(page.tilelength))
    if not 0 < tile[0] * tile[1] <= MAX_TILE_PX:
        raise NotDirect(f"level {level} has tiles of {tile[0]} x {tile[1]} px")
    tables = page.jpegtables if kind == JPEG else None
    grid = TileGrid(
        size=size,
        tile=tile,
        codec="jpeg" if kind == JPEG else "jpeg2000",
        color="rgb" if color == "rgb" else "ycbcr",
        tables=None if tables is None else bytes(tables),
        offsets=np.asarray(page.dataoffsets, np.int64),
        counts=np.asarray(page.databytecounts, np.int64),
    )
    if not len(grid.offsets) == len(grid.counts) == grid.columns * grid.rows:
        raise NotDirect(f"level {level} lists {len(grid.offsets)} tiles, {grid.columns * grid.rows} expected")
    return grid


def _look_for_damage(data: bytes) -> None:
    """Stop at a marker inside the scan, or none at its end: the decoder only warns of them, and nobody hears it."""
    scan = data.find(b"\xff\xda")
    marker = MARKER.search(data, scan + 2)
    if scan < 0 or marker is None:
        raise BrokenTile("no end of the picture")
    if marker[0] != b"\xff\xd9" or marker.end() < len(data) - 14:
        raise BrokenTile("a marker inside the picture")


def _look_at_size(data: bytes, tile: tuple[int, int]) -> None:
    """Stop at a JPEG 2000 stream of another size or number of planes, before its decoder allocates them."""
    start, _, _, right, bottom, left, top, *_, planes = struct.unpack_from(">IHH8IH", data)
    if start != 0xFF4FFF51 or (right - left, bottom - top) != tile or planes != 3:
        raise BrokenTile("no JPEG 2000 stream of the tile's size")


def _rgb_from_ycbcr(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """JFIF's conversion with openslide's roundings, which are not libjpeg's: it converts Aperio's JPEG 2000 itself."""
    y, cb, cr = (pixels[..., k].astype(np.int32) for k in range(3))
    red = y + RED_OF_CR[cr]
    green = y + ((GREEN_OF_CB[cb] + GREEN_OF_CR[cr] + (1 << 15)) >> 16)
    blue = y + BLUE_OF_CB[cb]
    rgb: UInt8[np.ndarray, "h w 3"] = np.clip(np.stack([red, green, blue], axis=2), 0, 255).astype(np.uint8)
    return rgb
