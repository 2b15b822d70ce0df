"""Whether a TIFF or MIRAX slide holds all the bytes that it points to.

Decoders fill a missing or half tile with gray or black instead of failing, and a few decoded samples may miss it.
"""

from __future__ import annotations

import configparser
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
            return any(_beyond(page, size) for page in pages_of(tiff))
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


def pages_of(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """Every page of a file, those in sub-directories too."""
    for page in tiff.pages:
        yield page
        yield from getattr(page, "pages", None) or ()


def _beyond(page: tifffile.TiffPage, size: int) -> bool:
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    n_parts = min(len(offsets), len(counts))
    return bool(n_parts and (offsets[:n_parts] + counts[:n_parts]).max() > size)


def _mirax_is_cut_short(folder: Path) -> bool:
    """Whether a data file is missing, or a picture that the index lists lies beyond the end of one."""
    try:
        index = MiraxIndex.read(folder)
    except (OSError, KeyError, ValueError, configparser.Error):
        return False
    sizes = [file.stat().st_size if file.is_file() else -1 for file in index.files]
    try:
        return any(one.offset + one.length > sizes[one.file] for one in index.pictures())
    except IndexError:
        return False
    except (struct.error, ValueError):
        return True


class MiraxPicture(NamedTuple):
    """One picture of the pyramid: its number on the level's grid, and where its bytes lie."""

    place: int
    offset: int
    length: int
    file: int


@dataclass(frozen=True)
class MiraxIndex:
    """What lies where in the folder of a MIRAX slide.

    Attributes:
        settings: Of `Slidedat.ini`.
        files: The data files in the order of their numbers.
        levels: Of the pyramid.
        index: The bytes of the index file.
        start: Of the table of levels in it.
    """

    settings: configparser.ConfigParser
    files: Sequence[Path]
    levels: int
    index: bytes
    start: int

    @classmethod
    def read(cls, folder: Path) -> MiraxIndex:
        """The index of a slide.

        Raises:
            OSError: No such file.
            KeyError: A setting is missing; configparser's errors likewise.
            ValueError: One that is no number, or a file that lies outside of the folder.
        """
        settings = configparser.ConfigParser(interpolation=None, strict=False)
        settings.read_string((folder / "Slidedat.ini").read_text(encoding="utf-8-sig", errors="replace"))
        names = [settings["DATAFILE"][f"FILE_{i}"] for i in range(settings.getint("DATAFILE", "FILE_COUNT"))]
        named = settings["HIERARCHICAL"]["INDEXFILE"]
        if any(Path(name).name != name for name in [*names, named]):
            raise ValueError("a part that lies outside of the slide's folder")
        return cls(
            settings,
            [folder / name for name in names],
            settings.getint("HIERARCHICAL", "HIER_0_COUNT"),
            (folder / named).read_bytes(),
            5 + len(settings["GENERAL"]["SLIDE_ID"]),  # five characters of version before the id
        )

    def pictures(self, *, levels: int | None = None) -> Iterator[MiraxPicture]:
        """Every picture of the first levels, or of all.

        Each level has a pointer to a head of two numbers, of which the second points to a chain of pages: a count, the
        next page, and per picture its place, offset, length and file.

        Raises:
            struct.error: The index ends before the end of a page.
            ValueError: Its pages form a ring.
        """
        (table,) = self._numbers(self.start, 1)
        for pointer in self._numbers(table, self.levels if levels is None else levels):
            page, seen = self._numbers(pointer, 2)[1], set[int]()
            while page:
                if page in seen:
                    raise ValueError("a ring of pages")
                seen.add(page)
                count, following = self._numbers(page, 2)
                for number in range(count):
                    yield MiraxPicture(*self._numbers(page + 8 + 16 * number, 4))
                page = following

    def _numbers(self, at: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}i", self.index, at)
