"""Tiles in folders: which there are, what their bytes are, which belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from hepipe.errors import ConfigError
from hepipe.sheet import SCORES, Score
from hepipe.specs.dataset import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_SKIPPED = re.compile(r"(\..*|.*Zone\.Identifier|Thumbs\.db)")
_SHOWN = 20


@dataclass(frozen=True)
class Found:
    """A picture file by its place in the set.

    Attributes:
        split: The folder train, val or test that it lies in; None for none.
        name: Path below that folder, without the suffix; what pairs are found by.
        path: The file.
    """

    split: Split | None
    name: str
    path: Path


def tiles_below(folder: Path, split: Split | None = None) -> list[Found]:
    """Every file of a folder and its subfolders but hidden ones, sorted.

    Raises:
        ConfigError: No such folder, or two files whose names differ in the suffix only.
    """
    if not folder.is_dir():
        raise ConfigError(f"import: {folder} is no folder")
    found: dict[tuple[Split | None, str], Found] = {}
    twice = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).with_suffix("").parts
        if any(_SKIPPED.fullmatch(part) for part in path.relative_to(folder).parts):
            continue
        own = next((name for name in SPLITS if parts[0] == name), None) if len(parts) > 1 and split is None else None
        tile = Found(split or own, "/".join(parts[1:] if own else parts), path)
        if (tile.split, tile.name) in found:
            twice.append(str(path.relative_to(folder)))
        found[tile.split, tile.name] = tile
    if twice:
        raise ConfigError(f"import: names that differ in the suffix only: {listed(twice)}")
    return list(found.values())


def stamp(*paths: Path) -> tuple[int, ...]:
    """Size in bytes and time of the last change, in ns, of each file."""
    found = [path.stat() for path in paths]
    return tuple(number for one in found for number in (one.st_size, one.st_mtime_ns))


def read_size(path: Path) -> tuple[int, int] | str:
    """Width and height of an 8-bit RGB picture, or what is wrong with the file. Its suffix is not looked at."""
    try:
        with Image.open(path) as picture:
            if picture.format not in FORMATS:
                return f"{picture.format} file"
            if picture.mode != "RGB":
                return f"mode {picture.mode}, 8-bit RGB expected"
            return picture.size
    except (UnidentifiedImageError, OSError):
        return "no readable picture"


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels.

    Raises:
        ConfigError: They do not decode.
    """
    try:
        with Image.open(path) as picture:
            return np.array(picture)
    except OSError as error:
        raise ConfigError(f"import: {path} does not decode ({type(error).__name__})") from None


def check_sizes(sizes: Mapping[Path, tuple[int, int] | str], *, square: bool = True) -> tuple[int, int]:
    """The one size of all pictures.

    Args:
        sizes: Of every picture, as `read_size` gave it.
        square: Whether width and height must agree.

    Raises:
        ConfigError: Files that are no RGB pictures, or of another size than the first; all are listed.
    """
    bad = [f"{path.name} ({size})" for path, size in sizes.items() if isinstance(size, str)]
    if bad:
        raise ConfigError(f"import: files that cannot be used: {listed(bad)}")
    good = {path: size for path, size in sizes.items() if not isinstance(size, str)}
    first_path, first = next(iter(good.items()))
    if square and first[0] != first[1]:
        raise ConfigError(f"import: {first_path.name} has {first[0]} x {first[1]} px; tiles must be square")
    odd = [f"{path.name} ({size[0]} x {size[1]})" for path, size in good.items() if size != first]
    if odd:
        raise ConfigError(
            f"import: all tiles must have the size of the first, {first[0]} x {first[1]} px; not so: {listed(odd)}"
        )
    return first


def read_scores(names: Iterable[str], pattern: str | None) -> dict[str, Score | None]:
    """The HER2 score in each name; None for all without a pattern.

    Raises:
        ConfigError: A name without a score, or with something else.
    """
    found: dict[str, Score | None] = {}
    for name, text in captured(names, pattern, "score_pattern").items():
        score = next((score for score in SCORES if score == text), None)
        if text is not None and score is None:
            raise ConfigError(f"import.score_pattern: {text!r} found in {name}; one of {', '.join(SCORES)} expected")
        found[name] = score
    return found


def captured(names: Iterable[str], pattern: str | None, key: str) -> dict[str, str | None]:
    """What the pattern's one group captures in each name.

    Raises:
        ConfigError: A pattern that is none or has not one group, or names without a match.
    """
    if pattern is None:
        return dict.fromkeys(names)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"import.{key}: not a regular expression ({error})") from None
    if compiled.groups != 1:
        raise ConfigError(f"import.{key}: {compiled.groups} groups, 1 expected")
    matches = {name: compiled.search(name) for name in names}
    missing = [name for name, match in matches.items() if match is None]
    if missing:
        raise ConfigError(f"import.{key}: no match in {listed(missing)}")
    return {name: match.group(1) for name, match in matches.items() if match is not None}


def listed(names: list[str]) -> str:
    """Names for an error, at most 20 and how many more."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
