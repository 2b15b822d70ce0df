"""Two digests of a slide, taken in one pass over its bytes: of the file, and of what it shows at level 0.

`file` changes with every byte. `content` is of the compressed tiles of level 0 and of what decodes them, so that it
stays when a label, a macro picture or a name is taken out of the file, or its directories are written in another order.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from hepipe.errors import SlideError
from hepipe.slides.completeness import MiraxIndex, pages_of
from hepipe.slides.pyramid import BLOCK_PX, PyramidSlide
from hepipe.slides.source_tiles import BROKEN, JPEG

BLOCK_BYTES = 8 << 20
"""Read at once; larger ones leave the processor's cache before both hashes have seen them."""
MAX_OVERLAP = 2
"""Tiles that list more bytes than this many times the file are no scanner's: a few bytes could ask for hours."""
MIRAX_KEYS = (
    "DIGITIZER_HEIGHT",
    "DIGITIZER_WIDTH",
    "IMAGE_CONCAT_FACTOR",
    "IMAGE_FILL_COLOR_BGR",
    "IMAGE_FORMAT",
    "OVERLAP_X",
    "OVERLAP_Y",
)
"""Of level 0's section in `Slidedat.ini`: what decodes and places its pictures."""

Range = tuple[int, int]
"""First byte and the one behind the last."""


@dataclass(frozen=True)
class SlideDigests:
    """Of one slide.

    Attributes:
        file: SHA-256 of the file. Of a MIRAX slide, of a line `<SHA-256>  <name>` for each of its parts, sorted by
            name, the `.mrxs` itself without a name: what `sha256sum` prints, without what the slide is called.
        content: SHA-256 of what the slide shows at level 0.
        content_of: `tiles`: as they are compressed in the file; `pixels`: decoded, as the format has no tiles that are
            found here.
    """

    file: str
    content: str
    content_of: Literal["tiles", "pixels"]


@dataclass(frozen=True)
class _Level0:
    """Where the compressed pictures of level 0 lie, and what decodes them.

    Attributes:
        planes: Head and the ranges of each plane, in the order of the grid; nearly always one.
        file: That they lie in.
    """

    planes: Sequence[tuple[Mapping[str, Any], Sequence[tuple[Path, Range]]]]


def slide_digests(path: Path, slide: PyramidSlide) -> SlideDigests:
    """Both digests of a slide, reading each byte once.

    Args:
        path: Its file; `is_cut_short` has found it whole.
        slide: The same, open: decodes the pixels where its tiles are not found.

    Raises:
        SlideError: The file cannot be read to its end, or pixels do not decode.
    """
    is_mirax = path.suffix.lower() == ".mrxs"
    try:
        level0 = _mirax_level0(path) if is_mirax else _tiff_level0(path, slide.level_sizes[0])
        parts = {".mrxs" if one == path else one.name: one for one in _parts(path)} if is_mirax else {"": path}
        ranges: dict[Path, set[Range]] = {one: set() for one in parts.values()}
        for _, pictures in () if level0 is None else level0.planes:
            for file, where in pictures:
                ranges[file].add(where)
        found = {one: _hashed(one, ranges[one]) for one in parts.values()}
    except OSError as error:
        raise SlideError(slide.slide_id, f"its bytes cannot be read ({error.strerror}); copy the file again") from error
    if is_mirax:
        lines = "".join(f"{found[one][0].hex()}  {name}\n" for name, one in sorted(parts.items()))
        of_file = hashlib.sha256(lines.encode()).hexdigest()
    else:
        of_file = found[path][0].hex()
    if level0 is None:
        return SlideDigests(of_file, _of_pixels(slide), "pixels")
    # Planes that one grid has several of, such as focal ones, count whatever their order in the file.
    planes = sorted(
        _digest([head, hashlib.sha256(b"".join(found[one][1][where] for one, where in pictures)).hexdigest()])
        for head, pictures in level0.planes
    )
    return SlideDigests(of_file, _digest(planes), "tiles")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parts(path: Path) -> list[Path]:
    """The files of a MIRAX slide."""
    return [path, *sorted(one for one in path.with_suffix("").iterdir() if one.is_file())]


def _tiff_level0(path: Path, size: tuple[int, int]) -> _Level0 | None:
    """The tiles or strips of the pages of level 0's size; None where the file is no TIFF or has no such page."""
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in pages_of(tiff) if (page.imagewidth, page.imagelength) == size]
            planes = [(_head(page), _ranges(page)) for page in pages]
    except (tifffile.TiffFileError, *BROKEN):
        return None
    limit = MAX_OVERLAP * path.stat().st_size
    if not planes or any(sum(end - start for start, end in set(ranges)) > limit for _, ranges in planes):
        return None
    return _Level0([(head, [(path, where) for where in ranges]) for head, ranges in planes])


def _head(page: tifffile.TiffPage) -> dict[str, Any]:
    """What a decoder must know beside the bytes of a tile; nothing that names, dates or describes."""
    tables = page.jpegtables
    # A JPEG says itself how its chroma is sampled, and writers differ in the tag.
    subsampling = None if int(page.compression) == JPEG else page.tags.get("YCbCrSubSampling")
    return {
        "size": [int(page.imagewidth), int(page.imagelength)],
        "chunk": [int(side) for side in page.chunks],
        "compression": int(page.compression),
        "photometric": int(page.photometric),
        "predictor": int(page.predictor),
        "bits": int(page.bitspersample),
        "samples": int(page.samplesperpixel),
        "planar": int(page.planarconfig),
        "extra": [int(kind) for kind in page.extrasamples],
        "subsampling": None if subsampling is None else [int(step) for step in subsampling.value],
        "tables": None if tables is None else hashlib.sha256(bytes(tables)).hexdigest(),
    }


def _ranges(page: tifffile.TiffPage) -> list[Range]:
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    if len(offsets) != len(counts) or not len(offsets) or min(offsets.min(), counts.min()) < 0:
        raise ValueError("tiles without a place")
    # A tile that the file does not hold has no place either.
    return [
        (start, start + count) if count else (0, 0)
        for start, count in zip(offsets.tolist(), counts.tolist(), strict=True)
    ]


def _mirax_level0(path: Path) -> _Level0 | None:
    """The pictures of level 0 by their place on the canvas; None for an index of a form that is not known here."""
    try:
        index = MiraxIndex.read(path.with_suffix(""))
        section = index.settings[index.settings["HIERARCHICAL"]["HIER_0_VAL_0_SECTION"]]
        general = index.settings["GENERAL"]
        head = {key: section.get(key) for key in MIRAX_KEYS}
        head |= {key: general.get(key) for key in ("IMAGENUMBER_X", "IMAGENUMBER_Y", "CAMERAIMAGEDIVISIONSPERSIDE")}
        files = dict(enumerate(index.files))
        pictures = sorted(
            (one.place, files[one.file], (one.offset, one.offset + one.length)) for one in index.pictures(levels=1)
        )
        sizes = {file: file.stat().st_size for file in set(index.files)}
    except (OSError, KeyError, ValueError, struct.error, configparser.Error):
        return None
    if any(start < 0 or end < start or end > sizes[file] for _, file, (start, end) in pictures):
        return None
    if not pictures or sum(end - start for _, _, (start, end) in pictures) > MAX_OVERLAP * sum(sizes.values()):
        return None
    places = hashlib.sha256(np.array([place for place, _, _ in pictures], "<i8").tobytes()).hexdigest()
    return _Level0([({**head, "places": places}, [(file, where) for _, file, where in pictures])])


def _of_pixels(slide: PyramidSlide) -> str:
    """Of level 0 decoded, block by block."""
    (x0, y0), (width, height) = slide.origin_px0, slide.size_px0
    found = hashlib.sha256(repr((width, height)).encode())
    for top in range(0, height, BLOCK_PX):
        for left in range(0, width, BLOCK_PX):
            size = (min(BLOCK_PX, width - left), min(BLOCK_PX, height - top))
            found.update(np.ascontiguousarray(slide.decode(0, x0 + left, y0 + top, *size)).data)
    return found.hexdigest()


def _hashed(path: Path, ranges: Iterable[Range]) -> tuple[bytes, dict[Range, bytes]]:
    """SHA-256 of a file and of each of its ranges, in one pass: two threads hash a block while the next is read.

    Raises:
        OSError: The file cannot be read, or ends before a range does.
    """
    whole, tiles = hashlib.sha256(), _RangeHashes(ranges)
    buffers = [bytearray(BLOCK_BYTES) for _ in range(2)]
    pending: list[list[Future[None]]] = [[], []]
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        at, turn = 0, 0
        while True:
            for future in pending[turn]:
                future.result()
            count = file.readinto(buffers[turn])
            if not count:
                break
            block = memoryview(buffers[turn])[:count]
            pending[turn] = [first.submit(whole.update, block), second.submit(tiles.update, at, block)]
            at, turn = at + count, 1 - turn
        for future in [*pending[0], *pending[1]]:
            future.result()
    return whole.digest(), tiles.done()


class _RangeHashes:
    """SHA-256 of ranges of a file that comes in blocks, in its order."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._waiting = sorted(set(ranges), reverse=True)
        self._begun: list[tuple[Range, Any]] = []
        self._done: dict[Range, bytes] = {}

    def update(self, at: int, block: memoryview) -> None:
        """Take the block that begins at byte `at`."""
        after = at + len(block)
        while self._waiting and self._waiting[-1][0] < after:
            self._begun.append((self._waiting.pop(), hashlib.sha256()))
        rest = []
        for (start, end), found in self._begun:
            found.update(block[max(start, at) - at : min(end, after) - at])
            if end <= after:
                self._done[start, end] = found.digest()
            else:
                rest.append(((start, end), found))
        self._begun = rest

    def done(self) -> dict[Range, bytes]:
        """Every range's.

        Raises:
            OSError: The file ended before one.
        """
        for where in [*self._waiting, *(where for where, _ in self._begun)]:
            if where[0] < where[1]:
                raise OSError(0, "the file ends before its tiles")
            self._done[where] = hashlib.sha256().digest()
        return self._done
