"""What names of tiles say, lists of names, and own names in place of numbers that look like a laboratory's."""

from __future__ import annotations

import csv
import difflib
import functools
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hepipe.errors import ConfigError
from hepipe.importers.files import SHOWN, Found, listed, without_suffix
from hepipe.sheet import SCORES, Score

LIST_BYTES = 64_000_000
"""Of a list of names or labels; the largest set has 90,000 pairs."""
_NUMBER = re.compile(r"\d{5}")
_ACCESSION = re.compile(r"\d{2}[A-Za-z]\d{5}|(?<![A-Za-z])[A-Za-z]{1,3}\d{2}-\d{4}|\d{8}")
"""Narrower, for whole file names, where running numbers are common."""


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


def parsed(tiles: Iterable[Found], pattern: re.Pattern[str], *, like: str, kind: str) -> dict[Found, re.Match[str]]:
    """The parts of each tile's name, without its folders.

    Args:
        tiles: Of one stain.
        pattern: Must match the whole name.
        like: How names look, for the error.
        kind: Of the import.

    Raises:
        ConfigError: Names of another form, listed.
    """
    matches = {tile: pattern.fullmatch(tile.base) for tile in tiles}
    odd = [tile.path.name for tile, match in matches.items() if match is None]
    if odd:
        raise ConfigError(f"import: {kind} names its tiles like {like}; not so: {listed(odd)}")
    return {tile: match for tile, match in matches.items() if match is not None}


def looks_like_a_number(name: str) -> bool:
    """Whether an id may be a laboratory's: five digits in a row, as in 67M2100642 and not in wsi010."""
    return _NUMBER.search(name) is not None


def holds_a_number(name: str) -> bool:
    """Whether a file name may hold a laboratory's number, as 67M2100642_15_18 and H21-12345, and not 00000_train_1+."""
    return _ACCESSION.search(name) is not None


@functools.lru_cache(4_096)
def alias(name: str) -> str:
    """An own name in place of an id: the same on every machine and for every marker of a set.

    By a slow hash (scrypt, RFC 7914, 50 ms): the numbers of a laboratory could all be tried against a quick one. Who
    holds the set itself can of course tell.
    """
    found = hashlib.scrypt(name.encode(), salt=b"hepipe.import", n=2**14, r=8, p=1, maxmem=1 << 26, dklen=4)
    return f"m{found.hex()}"


def aliases(names: Iterable[str]) -> dict[str, str]:
    """An alias for each name.

    Raises:
        ConfigError: Two share one.
    """
    found = {name: alias(name) for name in sorted(set(names))}
    if len(set(found.values())) != len(found):
        raise ConfigError("import: two slides get the same alias; set import.alias to never")
    return found


def read_cells(path: Path, what: str) -> list[list[str]]:
    """The lines of a text or CSV file that are not empty, each as cells without blanks around them.

    Raises:
        ConfigError: No such file, too large, or no UTF-8 text.
    """
    try:
        if path.stat().st_size > LIST_BYTES:
            raise ConfigError(f"{what}: {path.stat().st_size / 1e6:.0f} MB, at most {LIST_BYTES // 1_000_000} expected")
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(text)))
    except OSError as error:
        raise ConfigError(f"{what}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{what}: not a UTF-8 text or CSV file ({type(error).__name__})") from None
    cells = [[cell.strip() for cell in row] for row in rows]
    return [row for row in cells if any(row)]


def read_columns(path: Path, columns: tuple[str, str], what: str) -> dict[str, str]:
    """Two columns of a CSV file with a header, the second by the first.

    Raises:
        ConfigError: Not such a file, a column is missing, or a key stands twice with different values.
    """
    header, *rows = read_cells(path, what) or [[]]
    names = [name.lower() for name in header]
    if missing := [name for name in columns if name not in names]:
        raise ConfigError(f"{what}: no column {', '.join(missing)}; found {', '.join(header[:10]) or 'nothing'}")
    first, second = (names.index(name) for name in columns)
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) <= max(first, second):
            raise ConfigError(f"{what}, row {number}: {len(row)} cells, {len(header)} expected")
        if found.setdefault(row[first], row[second]) != row[second]:
            raise ConfigError(f"{what}, row {number}: {row[first]} stands twice with different values")
    return found


def resolved(wanted: Sequence[str], tiles: Sequence[Found], what: str) -> list[Found]:
    """The tiles that a list means; its names may have folders and suffixes.

    Raises:
        ConfigError: Names that no tile has, with the nearest that one has, or that tiles of two splits share.
    """
    known: dict[str, list[Found]] = {}
    for tile in tiles:
        for name in dict.fromkeys((tile.base, tile.name, "/".join(filter(None, tile.key)))):
            known.setdefault(name, []).append(tile)
    found: list[Found] = []
    unknown: list[str] = []
    doubtful: list[str] = []
    for name in wanted:
        plain = without_suffix(name.replace("\\", "/").strip("/"))
        parts = plain.split("/")
        fits = next((known[end] for place in range(len(parts)) if (end := "/".join(parts[place:])) in known), None)
        if fits is None:
            # Names beyond those that are shown are only counted: looking for the nearest takes its time.
            unknown.append(name + _nearest(parts[-1], known) if len(unknown) < SHOWN else name)
        elif len(fits) > 1:
            doubtful.append(name)
        else:
            found.append(fits[0])
    if unknown:
        raise ConfigError(f"{what}: {len(unknown)} names that no tile has: {listed(unknown)}")
    if doubtful:
        raise ConfigError(f"{what}: names in two splits: {listed(doubtful)}; write them with the folder")
    return found


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (nearest: {near[0]})" if near else ""
