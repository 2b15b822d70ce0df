"""Tiled TIFF pyramids, written tile by tile in any order, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import cv2
import imagecodecs
import numpy as np
from jaxtyping import UInt8

TILE_PX = 256
"""Side of the stored tiles: what slide viewers ask for."""

CLASSIC_LIMIT = 2**32 - 1
"""Bytes that a classic TIFF can address; a larger file is a BigTIFF."""

Layout = Literal["pyramid", "ome"]
Compression = Literal["jpeg", "deflate"]

SHORT, LONG, RATIONAL, UNDEFINED, ASCII, LONG8 = 3, 4, 5, 7, 2, 16
SIZES = {SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, ASCII: 1, LONG8: 8}
JPEG, DEFLATE = 7, 8
RGB, YCBCR = 2, 6


@dataclass(frozen=True)
class PyramidForm:
    """How a pyramid is written.

    Attributes:
        layout: `pyramid` keeps the smaller levels as reduced-resolution pages: openslide, tiffslide and tifffile see
            them all. `ome` is OME-TIFF with the levels as sub-IFDs: tiffslide and tifffile see them, openslide opens
            level 0 only. Tested with these three; no viewer was tried.
        compression: `jpeg` (colour at full resolution) or lossless `deflate`.
        quality: Of the JPEG, 1 to 100.
    """

    layout: Layout = "pyramid"
    compression: Compression = "jpeg"
    quality: int = 90


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height of each level: halved, an odd row cut off, until one tile holds it all."""
    sizes = [size]
    while max(sizes[-1]) > TILE_PX and min(sizes[-1]) > 1:
        width, height = sizes[-1]
        sizes.append((width // 2, height // 2))
    return sizes


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place when the block ends without an error, and goes otherwise.

    A writer that is killed leaves its file, hidden and maybe of many GB: the next writer of the same `path` on the same
    machine removes it. That another process still writes one shows by the lock which the system drops when it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    beside, file, lock = _begin(path)
    try:
        with file:
            yield file
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
        # Not before: unlocked, the file would be a leftover until it has its name.
        os.close(lock)


def _begin(path: Path) -> tuple[Path, BinaryIO, int]:
    """A new file beside `path`, open, and a descriptor of it that holds the lock after the file is closed."""
    while True:
        beside = path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}")
        file = beside.open("xb")
        lock = os.dup(file.fileno())
        # A file system without locks has no leftovers removed either.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if beside.exists():
            return beside, file, lock
        # Somebody took it for a leftover between its making and its lock.
        file.close()
        os.close(lock)


def _remove_leftovers(path: Path) -> None:
    """Remove what dead writers of `path` have left on this machine."""
    ours = re.compile(re.escape(_prefix(path)) + r"\d+-[0-9a-f]{8}")
    for beside in [other for other in path.parent.iterdir() if ours.fullmatch(other.name)]:
        # Locked by its writer, without locks, gone by now or another user's: not ours to remove.
        with contextlib.suppress(OSError), beside.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            beside.unlink()


def _prefix(path: Path) -> str:
    # Locks of one machine need not be seen by another that shares the folder.
    return f".{path.name}.{socket.gethostname()}."


class PyramidWriter:
    """Takes the tiles of all levels in any order, from one thread, and ends with the file's directories.

    Equal tiles of pure white share their bytes in the file. Nothing but offsets is held in memory. There is neither a
    date nor a name in the file, so that equal pixels give equal bytes.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: tuple[int, int],
        *,
        mpp: float | None,
        form: PyramidForm,
        icc: bytes | None = None,
    ) -> None:
        """Begin a file.

        Args:
            file: Open for writing, empty.
            size: Width and height of level 0.
            mpp: µm per px at level 0; None writes none.
            form: Layout and compression.
            icc: The colour profile that the pixels are meant in.
        """
        self.sizes = level_sizes(size)
        self.form = form
        self.mpp = mpp
        self._file = file
        self._icc = icc
        self._grids = [(-(-width // TILE_PX), -(-height // TILE_PX)) for width, height in self.sizes]
        self._offsets = [np.zeros(columns * rows, np.uint64) for columns, rows in self._grids]
        self._lengths = [np.zeros(columns * rows, np.uint32) for columns, rows in self._grids]
        self._white: tuple[int, int] | None = None
        # Room for the longer of the two headers: which it is shows at the end.
        self._end = file.write(bytes(16))

    def __enter__(self) -> PyramidWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self._finish()

    def put(self, level: int, column: int, row: int, data: bytes | None) -> None:
        """Add one encoded tile; None is white."""
        columns, rows = self._grids[level]
        if not (0 <= column < columns and 0 <= row < rows):
            raise ValueError(f"tile {column}, {row} of level {level}, which has {columns} x {rows}")
        index = row * columns + column
        if data is None:
            if self._white is None:
                white = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
                self._white = self._append(encode_tile(white, self.form))
            place = self._white
        else:
            place = self._append(data)
        self._offsets[level][index], self._lengths[level][index] = place

    def _append(self, data: bytes) -> tuple[int, int]:
        start = self._end
        self._end += self._file.write(data)
        if self._end % 2:
            # Offsets of a TIFF are even.
            self._end += self._file.write(b"\0")
        return start, len(data)

    def _finish(self) -> None:
        missing = sum(int((lengths == 0).sum()) for lengths in self._lengths)
        if missing:
            raise ValueError(f"{missing} tiles were never put")
        tables = 16 * sum(len(offsets) for offsets in self._offsets) + len(self._icc or b"") + 4096 * len(self.sizes)
        big = self._end + tables > CLASSIC_LIMIT
        # From the last to the first: each directory names the next one, which must have its place by then.
        places: list[int] = []
        for level in reversed(range(1, len(self.sizes))):
            follows = places[-1] if places and self.form.layout == "pyramid" else 0
            places.append(self._directory(level, big=big, follows=follows))
        if self.form.layout == "pyramid":
            first = self._directory(0, big=big, follows=places[-1] if places else 0)
        else:
            first = self._directory(0, big=big, children=places[::-1])
        self._file.seek(0)
        header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHL", b"II", 42, first)
        self._file.write(header)

    def _directory(self, level: int, *, big: bool, follows: int = 0, children: Sequence[int] = ()) -> int:
        """Write one image directory and give its place."""
        width, height = self.sizes[level]
        jpeg = self.form.compression == "jpeg"
        place = LONG8 if big else LONG
        tags: dict[int, tuple[int, Sequence[int] | np.ndarray | bytes]] = {
            254: (LONG, [1 if level else 0]),
            256: (LONG, [width]),
            257: (LONG, [height]),
            258: (SHORT, [8, 8, 8]),
            259: (SHORT, [JPEG if jpeg else DEFLATE]),
            262: (SHORT, [YCBCR if jpeg else RGB]),
            277: (SHORT, [3]),
            284: (SHORT, [1]),
            322: (LONG, [TILE_PX]),
            323: (LONG, [TILE_PX]),
            324: (place, self._offsets[level]),
            325: (LONG, self._lengths[level]),
            **self._resolution(level),
        }
        if jpeg:
            tags[530] = (SHORT, [1, 1])
            tags[532] = (RATIONAL, [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1])
        else:
            tags[317] = (SHORT, [2])
        if self._icc:
            tags[34675] = (UNDEFINED, self._icc)
        if self.form.layout == "ome" and level == 0:
            tags[270] = (ASCII, ome_xml(self.sizes[0], mpp=self.mpp).encode("ascii") + b"\0")
            if children:
                tags[330] = (place, list(children))
        return self._write_directory(tags, big=big, follows=follows)

    def _resolution(self, level: int) -> dict[int, tuple[int, Sequence[int]]]:
        """Px per centimetre, or the ratio 1 without a unit."""
        if self.mpp is None:
            return {282: (RATIONAL, [1, 1]), 283: (RATIONAL, [1, 1]), 296: (SHORT, [1])}
        per_cm = Fraction(1e4 / (self.mpp * 2**level)).limit_denominator(10_000)
        value = [per_cm.numerator, per_cm.denominator]
        return {282: (RATIONAL, value), 283: (RATIONAL, value), 296: (SHORT, [3])}

    def _write_directory(
        self, tags: dict[int, tuple[int, Sequence[int] | np.ndarray | bytes]], *, big: bool, follows: int
    ) -> int:
        inline = 8 if big else 4
        entries = []
        for tag, (kind, values) in sorted(tags.items()):
            data = _packed(kind, values)
            count = len(data) // SIZES[kind]
            if len(data) > inline:
                data = struct.pack("<Q" if big else "<L", self._append(data)[0])
            entries.append(struct.pack("<HHQ" if big else "<HHL", tag, kind, count) + data.ljust(inline, b"\0"))
        start = struct.pack("<Q" if big else "<H", len(entries))
        end = struct.pack("<Q" if big else "<L", follows)
        return self._append(start + b"".join(entries) + end)[0]


def encode_tile(pixels: UInt8[np.ndarray, "h w 3"], form: PyramidForm) -> bytes:
    """One tile as it stands in the file; a smaller one is continued to the right and down with its edge."""
    height, width = pixels.shape[:2]
    if (height, width) != (TILE_PX, TILE_PX):
        pixels = cv2.copyMakeBorder(pixels, 0, TILE_PX - height, 0, TILE_PX - width, cv2.BORDER_REPLICATE)
    pixels = np.ascontiguousarray(pixels)
    if form.compression == "jpeg":
        # Stain is colour: it keeps the full resolution, at a third more bytes than the usual quarter.
        return bytes(
            imagecodecs.jpeg8_encode(
                pixels, level=form.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="444"
            )
        )
    difference = pixels.copy()
    difference[:, 1:] -= pixels[:, :-1]
    return bytes(imagecodecs.deflate_encode(difference.tobytes()))


def ome_xml(size: tuple[int, int], *, mpp: float | None) -> str:
    """The description of an RGB image with its pixel size, in ASCII: µm is the unit where none stands."""
    physical = "" if mpp is None else f' PhysicalSizeX="{float(mpp)!r}" PhysicalSizeY="{float(mpp)!r}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06'
        ' http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" Interleaved="true"'
        f' SizeX="{size[0]}" SizeY="{size[1]}" SizeC="3" SizeZ="1" SizeT="1"{physical}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
        "</Pixels></Image></OME>"
    )


def _packed(kind: int, values: Sequence[int] | np.ndarray | bytes) -> bytes:
    if isinstance(values, bytes):
        return values
    letter = {SHORT: "<u2", LONG: "<u4", RATIONAL: "<u4", LONG8: "<u8"}[kind]
    return np.asarray(values).astype(letter).tobytes()
