"""Whether a TIFF or MIRAX slide holds all the bytes that it points to.

Decoders fill a missing or half tile with gray or black instead of failing, and a few decoded samples may miss it.
"""

from __future__ import annotations

import configparser
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

HAMAMATSU_TAG = 65420
"""In a directory of an NDPI, whose pointer to the next one has 8 bytes in an otherwise classic TIFF."""


def is_cut_short(path: Path) -> bool:
    """Whether a directory, strip or tile of a TIFF, or a picture of a MIRAX slide, lies beyond the end of its file.

    False for other formats, and for a MIRAX index of a form that is not known here: openslide judges that.
    """
    if path.suffix.lower() == ".mrxs":
        return _mirax_is_cut_short(path.with_suffix(""))
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        if head[:2] not in (b"II", b"MM") or 0 not in head[2:] or not {42, 43} & set(head[2:]):
            return False
        try:
            for _ in _directories(file):
                pass
        except (struct.error, ValueError):
            return True
    try:
        with tifffile.TiffFile(path) as tiff:
            return any(_beyond(page, size) for page in _pages(tiff))
    except (tifffile.TiffFileError, OSError, ValueError, LookupError, TypeError, RuntimeError, struct.error):
        return True


def _directories(file: BinaryIO) -> Iterator[int]:
    """Offsets of the chained directories.

    tifffile stops at the first that it cannot read and shows the pages before it, a slide without its last levels.

    Raises:
        struct.error: One of them ends beyond the file.
        ValueError: They form a ring.
    """
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    is_big = struct.unpack(order + "H", file.read(2))[0] == 43
    count_code, entry_bytes, pointer_code = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    file.seek(8 if is_big else 4)
    seen: set[int] = set()

    def number(code: str) -> int:
        return int(struct.unpack(order + code, file.read(struct.calcsize(order + code)))[0])

    offset = number(pointer_code)
    while offset:
        if offset in seen:
            raise ValueError("a ring of directories")
        seen.add(offset)
        yield offset
        file.seek(offset)
        n_entries = number(count_code)
        entries = file.read(n_entries * entry_bytes)
        if len(entries) < n_entries * entry_bytes:
            raise struct.error("a directory ends beyond the file")
        tags = {struct.unpack_from(order + "H", entries, i * entry_bytes)[0] for i in range(n_entries)}
        offset = number("Q" if HAMAMATSU_TAG in tags else pointer_code)


def _pages(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    for page in tiff.pages:
        yield page
        yield from getattr(page, "pages", None) or ()


def _beyond(page: tifffile.TiffPage, size: int) -> bool:
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    n_parts = min(len(offsets), len(counts))
    return bool(n_parts and (offsets[:n_parts] + counts[:n_parts]).max() > size)


def _mirax_is_cut_short(folder: Path) -> bool:
    """Whether a data file is missing, or a picture that the index lists lies beyond the end of one."""
    settings = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        settings.read_string((folder / "Slidedat.ini").read_text(encoding="utf-8-sig", errors="replace"))
        files = [settings["DATAFILE"][f"FILE_{i}"] for i in range(settings.getint("DATAFILE", "FILE_COUNT"))]
        levels = settings.getint("HIERARCHICAL", "HIER_0_COUNT")
        index = (folder / settings["HIERARCHICAL"]["INDEXFILE"]).read_bytes()
        start = 5 + len(settings["GENERAL"]["SLIDE_ID"])  # five characters of version before the id
    except (OSError, KeyError, ValueError, configparser.Error):
        return False
    sizes = [(folder / name).stat().st_size if (folder / name).is_file() else -1 for name in files]
    try:
        return any(offset + length > sizes[file] for file, offset, length in _mirax_pictures(index, start, levels))
    except IndexError:
        return False
    except struct.error:
        return True


def _mirax_pictures(index: bytes, start: int, levels: int) -> Iterator[tuple[int, int, int]]:
    """File number, offset and length of every picture of the pyramid.

    Each level has a pointer to a head of two numbers, of which the second points to a chain of pages: a count, the
    next page, and per picture its place, offset, length and file.

    Raises:
        struct.error: The index ends before the end of a page.
    """

    def numbers(at: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}i", index, at)

    (table,) = numbers(start, 1)
    for pointer in numbers(table, levels):
        page = numbers(pointer, 2)[1]
        while page:
            count, following = numbers(page, 2)
            for number in range(count):
                _, offset, length, file = numbers(page + 8 + 16 * number, 4)
                yield file, offset, length
            page = following
