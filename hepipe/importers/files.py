"""Files of tile sets: which there are, whether they can be used, and their pixels.

Sets come from strangers: no file is followed out of its folder, and sizes are known before anything is allocated.
"""

from __future__ import annotations

import io
import os
import re
import struct
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hepipe.errors import ConfigError
from hepipe.specs.dataset import Split
from hepipe.stores.codecs import JPEG_ERRORS, jpeg_size
from hepipe.stores.layout import MAX_TILE_PX

Stain = Literal["he", "ihc"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
LICENCE_BYTES = 64_000
MAX_LICENCES = 8
"""They travel in every card: this much of a file, and this many."""
PICTURE_ERRORS = (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, OverflowError, struct.error)
"""What Pillow raises at bytes that are no picture."""
_LICENCES = re.compile(r"(licen[cs]e|copying|terms|readme|notice).*", re.IGNORECASE)
_BESIDE = re.compile(r".*\.(md|txt|json|csv|tsv|xml|html?|pdf|ya?ml)", re.IGNORECASE)
"""Lists and notes that lie between tiles; anything else that is no picture is an error."""
_SKIPPED = re.compile(r"(\..*|.*Zone\.Identifier|Thumbs\.db)")
SHOWN = 20
"""Names that an error lists."""
_HEADS = (4_096, 65_536, 1 << 20)
"""Bytes in which a JPEG's size is looked for in turn; colour profiles may stand before it."""


@dataclass(frozen=True)
class Found:
    """A picture file by its place in the set.

    Attributes:
        split: What the folder it lies in is called, such as train; None for none.
        name: Path below that folder, without the suffix; what pairs are found by.
        path: The file.
        stain: What it shows, if it lies in a folder of one stain.
    """

    split: str | None
    name: str
    path: Path
    stain: Stain = "he"

    @property
    def key(self) -> tuple[str, str]:
        """Split and name."""
        return self.split or "", self.name

    @property
    def base(self) -> str:
        """The name without folders."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture say.

    Attributes:
        kind: Its format, whatever the suffix.
        size: Width and height.
        passes: Whether a store can keep the bytes as they are: a sequential JPEG.
    """

    kind: str
    size: tuple[int, int]
    passes: bool


def tiles_below(
    folder: Path,
    split: str | None = None,
    *,
    stain: Stain = "he",
    root: Path | None = None,
    skipped: Counter[str] | None = None,
) -> list[Found]:
    """Every file of a folder and its subfolders, sorted; hidden and zone files, lists and notes are passed over.

    Args:
        folder: Searched to the bottom.
        split: Of all files; None: the first folder's name, if it is a split.
        stain: Of all files.
        root: What no link may lead out of; None: the folder.
        skipped: Counts what was passed over, by what it is.

    Raises:
        ConfigError: No such folder, a link out of it, a name with control characters, or two names that differ in the
            suffix only.
    """
    if not folder.is_dir():
        raise ConfigError(f"import: {folder} is no folder")
    found: dict[tuple[str, str], Found] = {}
    twice = []
    for path in _files(folder, (root or folder).resolve(), Counter() if skipped is None else skipped):
        parts = list(path.relative_to(folder).parts)
        parts[-1] = without_suffix(parts[-1])
        own = next((name for name in SPLITS if parts[0] == name), None) if len(parts) > 1 and split is None else None
        tile = Found(split or own, "/".join(parts[1:] if own else parts), path, stain)
        if tile.key in found:
            twice.append(str(path.relative_to(folder)))
        found[tile.key] = tile
    if twice:
        raise ConfigError(f"import: names that differ in the suffix only: {listed(twice)}")
    return [found[key] for key in found]


def _files(folder: Path, root: Path, skipped: Counter[str]) -> Iterator[Path]:
    if not folder.resolve().is_relative_to(root):
        raise ConfigError(f"import: {folder.name} is a link out of the set's folder; give the folder it leads to")
    outside, odd, files = [], [], []
    for place, folders, names in os.walk(folder):
        here = set(names)
        for name in [*folders, *names]:
            path = Path(place) / name
            if _SKIPPED.fullmatch(name):
                skipped["hidden or zone file"] += 1
            elif name in here and is_licence(name):
                skipped["licence or readme"] += 1
            elif name in here and _BESIDE.fullmatch(name):
                skipped["text or table"] += 1
            elif path.is_symlink() and (name in folders or not path.resolve().is_relative_to(root)):
                outside.append(str(path.relative_to(folder)))
            elif any(unicodedata.category(letter)[0] == "C" for letter in name):
                odd.append(repr(name))
            elif name in here and path.is_file():
                files.append(path)
        folders[:] = [name for name in folders if not _SKIPPED.fullmatch(name)]
    if outside:
        raise ConfigError(
            f"import: links to folders or out of the set are not followed: {listed(sorted(outside))}; "
            "put the files themselves there"
        )
    if odd:
        raise ConfigError(f"import: control characters in names: {listed(sorted(odd))}; rename them")
    yield from sorted(files)


def without_suffix(name: str) -> str:
    """A file name without the suffix of a picture; `1+` and other dots stay."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def is_licence(name: str) -> bool:
    """Whether a file of this name may say under which terms a set is."""
    return _LICENCES.fullmatch(name) is not None and without_suffix(name) == name


def licence_texts(folder: Path) -> dict[str, str]:
    """The licence and readme files that lie in a folder, and their text, 64 KB of each of eight at most."""
    found = [path for path in sorted(folder.iterdir()) if is_licence(path.name) and not path.is_symlink()]
    texts = {}
    for path in [path for path in found if path.is_file()][:MAX_LICENCES]:
        with path.open("rb") as file:
            texts[path.name] = file.read(LICENCE_BYTES).decode("utf-8", errors="replace")
    return texts


def stamp(*paths: Path) -> tuple[int, ...]:
    """Size in bytes and time of the last change, in ns, of each file."""
    found = [path.stat() for path in paths]
    return tuple(number for one in found for number in (one.st_size, one.st_mtime_ns))


def read_header(path: Path, *, abreast: int = 1) -> Header | str:
    """What an 8-bit RGB picture is, or why the file cannot be used. Its suffix is not looked at.

    Args:
        path: The file.
        abreast: Tiles that may stand side by side in it.
    """
    try:
        with warnings.catch_warnings():
            # Of sizes that are refused below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return _checked(picture, path.stat().st_size, abreast, _sequential(path))
    except PICTURE_ERRORS:
        return "no readable picture"
    except Image.DecompressionBombError:
        return "more px than any tile has"


def _checked(picture: Image.Image, nbytes: int, abreast: int, passes: bool) -> Header | str:
    if picture.format not in FORMATS:
        return f"{picture.format} file"
    if (frames := getattr(picture, "n_frames", 1)) > 1:
        return f"{frames} pictures in one file"
    if picture.mode != "RGB" or ";16" in str(getattr(picture, "tile", "")):
        return f"mode {picture.mode}{', 16 bits' if picture.mode == 'RGB' else ''}, 8-bit RGB expected"
    width, height = picture.size
    if width > abreast * MAX_TILE_PX or height > MAX_TILE_PX:
        return f"{width} x {height} px, at most {MAX_TILE_PX} expected"
    if nbytes > 12 * width * height + 1_000_000:
        return f"{nbytes:,} bytes for {width} x {height} px"
    return Header(picture.format, (width, height), passes)


def _sequential(path: Path) -> bool:
    with path.open("rb") as file:
        head = b""
        for most in _HEADS:
            head += file.read(most - len(head))
            if head[:2] != b"\xff\xd8":
                return False
            if jpeg_size(head) is not None:
                return True
    return False


def decode_picture(data: bytes, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a picture, JPEGs by the decoder that stores read them with.

    Args:
        data: Of the file.
        size: Width and height that its header stated when the set was opened.

    Raises:
        ValueError: They do not decode, or to something else; the message says why without a name.
    """
    shape = (size[1], size[0], 3)
    if data[:2] == b"\xff\xd8":
        # The decoder fills what a JPEG lacks with grey; the two markers occur nowhere within its data.
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
            raise ValueError("the JPEG ends before its last line")
        try:
            pixels: np.ndarray = imagecodecs.jpeg8_decode(data, outcolorspace="RGB", out=np.empty(shape, np.uint8))
        except JPEG_ERRORS as error:
            raise ValueError(f"no sound JPEG of {size[0]} x {size[1]} px ({type(error).__name__})") from None
        return pixels
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            mode, found = picture.mode, picture.size
            if (mode, found) == ("RGB", size):
                return np.array(picture)
    except (*PICTURE_ERRORS, Image.DecompressionBombError) as error:
        raise ValueError(f"no sound {size[0]} x {size[1]} px picture ({type(error).__name__})") from None
    raise ValueError(f"{mode} of {found[0]} x {found[1]} px, not as when opened")


def check_sizes(headers: Mapping[Path, Header | str], *, square: bool = True) -> tuple[int, int]:
    """The one size of all pictures.

    Args:
        headers: Of every picture, as `read_header` gave it.
        square: Whether width and height must agree.

    Raises:
        ConfigError: Files that are no RGB pictures, or of another size than the first; all are listed.
    """
    bad = [f"{path.name} ({header})" for path, header in headers.items() if isinstance(header, str)]
    if bad:
        raise ConfigError(f"import: files that cannot be used: {listed(bad)}")
    good = {path: header.size for path, header in headers.items() if not isinstance(header, str)}
    first_path, first = next(iter(good.items()))
    if square and first[0] != first[1]:
        raise ConfigError(f"import: {first_path.name} has {first[0]} x {first[1]} px; tiles must be square")
    odd = [f"{path.name} ({size[0]} x {size[1]})" for path, size in good.items() if size != first]
    if odd:
        raise ConfigError(
            f"import: all tiles must have the size of the first, {first[0]} x {first[1]} px; not so: {listed(odd)}"
        )
    return first


def listed(names: list[str]) -> str:
    """Names for an error, at most 20 and how many more."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
