"""How one tile becomes bytes and pixels again: the codecs of a tile store, by name.

Each is pure and safe to call from many threads. `decode` is given bytes that a stranger may have written: it fills the
array that it is handed or raises `DamagedChunk`, and takes no more memory than that array asks for.
"""

from __future__ import annotations

import abc
import base64
import binascii
import math
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import cv2
import imagecodecs
import numpy as np
from jaxtyping import UInt8
from numcodecs import zstd

NAME = "hepipe.tile"
"""Of the zarr codec that holds all but `raw` and `zstd`, which are plain zarr."""
JPEG_ERRORS = (ValueError, TypeError, RuntimeError)
"""What imagecodecs raises at bytes that are no picture, or one of another size; its own errors are RuntimeErrors."""

Json = dict[str, Any]
ByteArray = bytes | UInt8[np.ndarray, " n"]


class DamagedChunk(ValueError):
    """The bytes of a tile are not what its codec writes; the message says how."""


class Codec(abc.ABC):
    """A way to keep tiles.

    Attributes:
        name: As the config calls it.
        lossless: Whether the pixels come back as they were.
    """

    name: ClassVar[str]
    lossless: ClassVar[bool] = True

    @abc.abstractmethod
    def encode(self, tile: np.ndarray) -> bytes:
        """The bytes of a uint8 tile, (h, w, 3)."""

    @abc.abstractmethod
    def decode(self, data: ByteArray, out: np.ndarray) -> None:
        """Fill a C-contiguous uint8 array, (h, w, 3).

        Raises:
            DamagedChunk: `data` is not what `encode` gives for a tile of this size.
        """

    def decode_crop(self, data: ByteArray, shape: tuple[int, ...], *, top: int, left: int, out: np.ndarray) -> None:
        """Fill an array with a part of a tile; decodes no more than the codec must.

        Args:
            data: Of the whole tile.
            shape: Of the whole tile.
            top: Row of the part's upper left px.
            left: Column of it.
            out: C-contiguous uint8, (h, w, 3).

        Raises:
            DamagedChunk: As `decode`.
        """
        whole = _scratch("crop", shape)
        self.decode(data, whole)
        out[...] = whole[top : top + out.shape[0], left : left + out.shape[1]]

    def most(self, nbytes: int) -> int:
        """The largest number of bytes that a tile of `nbytes` of pixels may have."""
        return 2 * nbytes + 65_536

    def chain(self) -> list[Json]:
        """As zarr's metadata names it."""
        return [{"name": NAME, "configuration": {"codec": self.name, **settings_of(self)}}]


@dataclass(frozen=True)
class Greendelta(Codec):
    """Green, red - green and blue - green, each less the row above and then less the column to the left, in zstd.

    All modulo 256. The planes follow one another, as each then gets Huffman tables of its own. Differences both ways
    are 4 % smaller than of rows alone, most where chroma was interpolated. zstd's level 1 looks for no matches below 7
    bytes, which are chance in such data: smaller than levels 2 to 6, and quick both ways.
    """

    level: int = 1
    name: ClassVar[str] = "greendelta"

    def encode(self, tile: np.ndarray) -> bytes:
        """As of every codec."""
        height, width = tile.shape[:2]
        planes = _scratch("planes", (3, height, width))
        down = _scratch("down", (3, height, width))
        green, red, blue = planes
        cv2.split(tile, [red, green, blue])
        np.subtract(red, green, out=red)
        np.subtract(blue, green, out=blue)
        down[:, 0] = planes[:, 0]
        np.subtract(planes[:, 1:], planes[:, :-1], out=down[:, 1:])
        planes[..., 0] = down[..., 0]
        np.subtract(down[..., 1:], down[..., :-1], out=planes[..., 1:])
        return bytes(zstd.compress(planes, self.level))

    def decode(self, data: ByteArray, out: np.ndarray) -> None:
        """As of every codec."""
        self.decode_crop(data, out.shape, top=0, left=0, out=out)

    def decode_crop(self, data: ByteArray, shape: tuple[int, ...], *, top: int, left: int, out: np.ndarray) -> None:
        """As of every codec; rows below the part and columns to its right are not added up."""
        height, width = out.shape[:2]
        differences = _scratch("planes", (3, *shape[:2]))
        _unzstd(data, differences)
        sums = _scratch("sums", (top + height + 1, left + width + 1), np.int32)
        parts = _scratch("parts", (3, height, width))
        for plane, part in zip(differences[:, : top + height, : left + width], parts, strict=True):
            # The sum over all px above and to the left; numpy takes five times as long. It wraps at 2**32, a multiple.
            cv2.integral(plane, sums, sdepth=cv2.CV_32S)
            np.copyto(part, sums[top + 1 :, left + 1 :], casting="unsafe")
        green, red, blue = parts
        np.add(red, green, out=red)
        np.add(blue, green, out=blue)
        cv2.merge([red, green, blue], out)


@dataclass(frozen=True)
class Zstd(Codec):
    """Pixels as they are in one zstd frame: larger than PNG, but any zarr reader opens it."""

    level: int = 3
    name: ClassVar[str] = "zstd"

    def encode(self, tile: np.ndarray) -> bytes:
        """As of every codec; of any shape."""
        return bytes(zstd.compress(np.ascontiguousarray(tile), self.level))

    def decode(self, data: ByteArray, out: np.ndarray) -> None:
        """As of every codec; of any shape."""
        _unzstd(data, out)

    def chain(self) -> list[Json]:
        """As zarr's metadata names it."""
        return [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}]


@dataclass(frozen=True)
class Raw(Codec):
    """Pixels as they are."""

    name: ClassVar[str] = "raw"

    def encode(self, tile: np.ndarray) -> bytes:
        """As of every codec; of any shape."""
        return tile.tobytes()

    def decode(self, data: ByteArray, out: np.ndarray) -> None:
        """As of every codec; of any shape."""
        if len(data) != out.nbytes:
            raise DamagedChunk(f"{len(data):,} bytes, {out.nbytes:,} expected")
        out[...] = np.frombuffer(data, np.uint8).reshape(out.shape)

    def chain(self) -> list[Json]:
        """As zarr's metadata names it."""
        return [{"name": "bytes"}]


@dataclass(frozen=True)
class Jxl(Codec):
    """JPEG XL without loss, at low effort: for archives.

    libjxl 0.11's effort 1 now and then changes px, up to all of them (its issues 4026 and 4287): in 3 of 500 tiles of
    256 and 512 px of one colour with some px of noise, in none of 800 of tissue. So what it wrote is read back, and
    where that is not the tile effort 2, which works another way, takes its place.
    """

    effort: int = 1
    name: ClassVar[str] = "jxl"

    def encode(self, tile: np.ndarray) -> bytes:
        """As of every codec."""
        for effort in dict.fromkeys((self.effort, max(self.effort, 2), 7)):
            data = bytes(imagecodecs.jpegxl_encode(tile, lossless=True, effort=effort, numthreads=1))
            if self._gives(data, tile):
                return data
        raise RuntimeError("JPEG XL does not keep this tile; choose another store.codec")

    def decode(self, data: ByteArray, out: np.ndarray) -> None:
        """As of every codec."""
        try:
            imagecodecs.jpegxl_decode(bytes(data), numthreads=1, out=out)
        except JPEG_ERRORS as error:
            raise DamagedChunk(f"no JPEG XL of {_size(out)} ({type(error).__name__})") from error

    def _gives(self, data: bytes, tile: np.ndarray) -> bool:
        read = _scratch("read back", tile.shape)
        try:
            self.decode(data, read)
        except DamagedChunk:
            return False
        return np.array_equal(read, tile)


@dataclass(frozen=True)
class Jpeg(Codec):
    """Baseline JPEG: with loss, so that the hashes of a store's tiles are those of its chunks.

    Attributes:
        quality: Of libjpeg, 1 to 100.
        subsampling: Of chroma.
    """

    quality: int = 90
    subsampling: str = "420"
    name: ClassVar[str] = "jpeg"
    lossless: ClassVar[bool] = False

    def encode(self, tile: np.ndarray) -> bytes:
        """As of every codec."""
        return bytes(imagecodecs.jpeg8_encode(tile, level=self.quality, subsampling=self.subsampling))

    def decode(self, data: ByteArray, out: np.ndarray) -> None:
        """As of every codec."""
        _unjpeg(data, out)


@dataclass(frozen=True)
class Passthrough(Codec):
    """The scanner's own JPEG tiles, unchanged, that together make a tile of the store.

    A chunk is the width and the height of what lies on the slide, the lengths of its JPEGs, and the JPEGs, row by row;
    all numbers are little-endian uint32. Pixels off the slide and those of a JPEG of no length are white.

    Attributes:
        tile_px: Width and height of a JPEG.
        tables: What JPEGs of this slide share, in base64; empty where each carries its own.
        colorspace: Of the JPEGs, `RGB` or `YCBCR`; None: what they say themselves.
    """

    tile_px: tuple[int, int]
    tables: str = ""
    colorspace: str | None = None
    name: ClassVar[str] = "passthrough"

    def encode(self, tile: np.ndarray) -> bytes:
        """Pixels cannot be passed through; see `pack`."""
        raise TypeError("pass-through takes the scanner's own JPEGs, not pixels")

    def pack(self, jpegs: Sequence[bytes], *, shape: tuple[int, int], inside: tuple[int, int] | None = None) -> bytes:
        """A chunk of JPEGs.

        Args:
            jpegs: Row by row; empty bytes where the slide has none.
            shape: Height and width of the store's tile, a multiple of the JPEGs'.
            inside: Height and width of what lies on the slide, from the upper left corner; None: all.
        """
        height, width = inside or shape
        assert len(jpegs) == self._count(shape), (len(jpegs), shape, self.tile_px)
        head = struct.pack(f"<{2 + len(jpegs)}I", width, height, *map(len, jpegs))
        return head + b"".join(jpegs)

    def decode(self, data: ByteArray, out: np.ndarray) -> None:
        """As of every codec."""
        count = self._count((out.shape[0], out.shape[1]))
        start = 4 * (2 + count)
        if len(data) < start:
            raise DamagedChunk(f"{len(data)} bytes, a header of {start} expected")
        width, height, *lengths = struct.unpack(f"<{2 + count}I", bytes(data[:start]))
        if width > out.shape[1] or height > out.shape[0] or start + sum(lengths) != len(data):
            raise DamagedChunk(f"a header of {width} x {height} px and {start + sum(lengths):,} of {len(data):,} bytes")
        across, down = self.tile_px
        jpeg = _scratch("jpeg", (down, across, 3))
        tables = base64.b64decode(self.tables) or None
        for place, length in enumerate(lengths):
            row, column = divmod(place, out.shape[1] // across)
            target = out[row * down : (row + 1) * down, column * across : (column + 1) * across]
            if length:
                _unjpeg(data[start : start + length], jpeg, tables=tables, colorspace=self.colorspace)
                target[...] = jpeg
            else:
                target[...] = 255
            start += length
        out[height:] = 255
        out[:, width:] = 255

    def most(self, nbytes: int) -> int:
        """The largest number of bytes that a tile of `nbytes` of pixels may have."""
        return 4 * nbytes + 65_536

    def _count(self, shape: tuple[int, int]) -> int:
        across, down = self.tile_px
        if shape[0] % down or shape[1] % across:
            raise DamagedChunk(f"JPEGs of {across} x {down} px do not fill a tile of {shape[1]} x {shape[0]} px")
        return (shape[0] // down) * (shape[1] // across)


def settings_of(codec: Codec) -> Json:
    """What a codec was made with, by name."""
    return {key: value for key, value in asdict(codec).items() if value is not None}  # type: ignore[call-overload]


def codec_of(chain: object) -> Codec:
    """The codec that zarr's metadata names.

    Raises:
        ValueError: None that is known, or settings that it does not take.
    """
    if not isinstance(chain, list) or not all(isinstance(link, dict) for link in chain):
        raise ValueError("no list of codecs")
    names = [link.get("name") for link in chain]
    if names == ["bytes"]:
        return Raw()
    if names == ["bytes", "zstd"]:
        return Zstd(_whole(_settings(chain[1]).get("level", 3), -131_072, 22))
    if names == [NAME]:
        return named_codec(_settings(chain[0]))
    raise ValueError(f"codecs {', '.join(str(name)[:40] for name in names)} are not known")


def named_codec(settings: Mapping[str, Any]) -> Codec:
    """The codec that the configuration of `hepipe.tile` describes.

    Raises:
        ValueError: None that is known, or settings that it does not take.
    """
    match dict(settings):
        case {"codec": "greendelta", **rest} if rest.keys() <= {"level"}:
            return Greendelta(_whole(rest.get("level", 1), -131_072, 22))
        case {"codec": "jxl", **rest} if rest.keys() <= {"effort"}:
            return Jxl(_whole(rest.get("effort", 1), 1, 10))
        case {"codec": "jpeg", "subsampling": "444" | "422" | "420" as subsampling, **rest} if rest.keys() <= {
            "quality"
        }:
            return Jpeg(_whole(rest.get("quality", 90), 1, 100), subsampling)
        case {"codec": "passthrough", "tile_px": [across, down], **rest} if rest.keys() <= {"tables", "colorspace"}:
            colorspace = rest.get("colorspace")
            if colorspace not in (None, "RGB", "YCBCR"):
                raise ValueError("colorspace is neither RGB nor YCBCR")
            return Passthrough(
                (_whole(across, 8, 16_384), _whole(down, 8, 16_384)), _tables(rest.get("tables", "")), colorspace
            )
    raise ValueError(f"{NAME} with settings that are not known: {', '.join(sorted(map(str, settings)))[:200]}")


def zstd_size(head: bytes) -> int:
    """The content size that a zstd frame states (RFC 8878, section 3.1.1.1); -1 for none.

    Args:
        head: The first 18 bytes of the frame.
    """
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    descriptor = head[4]
    single = bool(descriptor & 0x20)
    flag = descriptor >> 6
    length = (1 if single else 0, 2, 4, 8)[flag]
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    if length == 0 or len(head) < start + length:
        return -1
    return int.from_bytes(head[start : start + length], "little") + (256 if flag == 1 else 0)


def jpeg_size(data: ByteArray) -> tuple[int, int, int] | None:
    """Height, width and channels that a baseline or extended sequential JPEG of 8 bits states; None for anything else.

    A progressive one is refused with the rest: libjpeg would hold all its coefficients.
    """
    head = bytes(data[:2])
    place = 2
    if head != b"\xff\xd8":
        return None
    while True:
        segment = bytes(data[place : place + 10])
        if len(segment) < 10 or segment[0] != 0xFF:
            return None
        marker = segment[1]
        if marker in (0xC0, 0xC1):
            if segment[4] != 8:
                return None
            return int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[7:9], "big"), segment[9]
        if marker == 0xFF:
            place += 1
        elif marker in (0xC4, 0xDB, 0xDD, 0xFE) or 0xE0 <= marker <= 0xEF:
            place += 2 + int.from_bytes(segment[2:4], "big")
        else:
            return None


_own = threading.local()


def _scratch(name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.uint8) -> np.ndarray:
    """A buffer of this thread's: fresh memory costs a page fault every 4 KB, half as much as the decoding."""
    size = math.prod(shape)
    found: np.ndarray | None = getattr(_own, name, None)
    if found is None or found.size < size:
        found = np.empty(size, dtype)
        setattr(_own, name, found)
    return found[:size].reshape(shape)


def _unzstd(data: ByteArray, out: np.ndarray) -> None:
    stated = zstd_size(bytes(data[:18]))
    if stated != out.nbytes:
        raise DamagedChunk(f"a zstd frame of {stated:,} bytes, {out.nbytes:,} expected")
    try:
        zstd.decompress(data, out)
    except (RuntimeError, ValueError) as error:
        raise DamagedChunk("no sound zstd frame") from error


def _unjpeg(data: ByteArray, out: np.ndarray, *, tables: bytes | None = None, colorspace: str | None = None) -> None:
    stated = jpeg_size(data)
    if stated != out.shape:
        found = "none" if stated is None else " x ".join(map(str, stated))
        raise DamagedChunk(f"a sequential JPEG of {_size(out)} expected, found {found}")
    try:
        imagecodecs.jpeg8_decode(bytes(data), tables=tables, colorspace=colorspace, outcolorspace="RGB", out=out)
    except JPEG_ERRORS as error:
        raise DamagedChunk(f"no sound JPEG ({type(error).__name__})") from error


def _size(out: np.ndarray) -> str:
    return " x ".join(map(str, out.shape))


def _settings(link: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = link.get("configuration", {})
    if not isinstance(settings, dict):
        raise ValueError("a codec's configuration is no mapping")
    return settings


def _whole(value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]} found, a whole number from {least} to {most} expected")
    return value


def _tables(value: object) -> str:
    try:
        if isinstance(value, str) and len(base64.b64decode(value, validate=True)) <= 65_536:
            return value
    except (binascii.Error, ValueError):
        pass
    raise ValueError("tables are no base64 of at most 64 KB")
