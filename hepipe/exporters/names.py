"""Tile ids as names of files that every system takes, and the same for every selection of tiles."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from hepipe.errors import StoreError

MOST = 80
"""Characters of a name: with its suffixes it fits into the 100 bytes of a plain tar header."""
NO_SPLIT = "all"
"""What ids of an imported set without splits begin with."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9+-]*(_[A-Za-z0-9+-]+)*")
_TAKEN = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
_HASH = 12


def file_names(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tile id to a name without folder and suffix, of letters, digits, `+`, `-` and `_`, at most `MOST` long.

    Slashes become `__`. The split that an imported set's ids begin with goes while the tile is in it, and `all` of a
    set without splits always, so that such a set leaves under the names that it came with. An id with anything else in
    it, one that is too long, and two that would meet on a system that does not tell capitals, carry a hash of the id
    too. Dots go, as WebDataset cuts a name at its first one.

    Args:
        rows: Of the whole index, with `tile_id`, `split` and `source_set`: a name must not follow from what else is
            exported.

    Raises:
        StoreError: Two rows have the same id.
    """
    named = {str(row["tile_id"]): (str(row["split"]), _named(row)) for row in rows}
    if len(named) != len(rows):
        raise StoreError("the index names a tile twice; assemble the data set again")
    counts = Counter((split, name.lower()) for split, name in named.values())
    names = {
        tile_id: name if counts[split, name.lower()] == 1 else _hashed(name, tile_id)
        for tile_id, (split, name) in named.items()
    }
    assert len({(named[tile_id][0], name.lower()) for tile_id, name in names.items()}) == len(names)
    return names


def safe_folder(name: str) -> str:
    """A case id as the name of a file or folder, with a hash where it is not plain."""
    return name if _PLAIN.fullmatch(name) and len(name) <= MOST and not _TAKEN.fullmatch(name) else _hashed(name, name)


def checked_place(name: str) -> str:
    """A place within an export's folder, unchanged.

    Raises:
        ValueError: It leads elsewhere.
    """
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} leads out of the folder")
    return name


def _named(row: Mapping[str, Any]) -> str:
    tile_id = str(row["tile_id"])
    begin, found, rest = tile_id.partition("/")
    shown = rest if found and row["source_set"] and begin in (row["split"], NO_SPLIT) else tile_id
    parts = shown.split("/")
    name = "__".join(parts)
    plain = all(_PLAIN.fullmatch(part) for part in parts)
    return name if plain and len(name) <= MOST and not _TAKEN.fullmatch(name) else _hashed(name, tile_id)


def _hashed(name: str, tile_id: str) -> str:
    kept = re.sub(r"[^A-Za-z0-9+_-]", "-", name).lstrip("+-_")[: MOST - _HASH - 1]
    return f"{kept or 'tile'}-{hashlib.sha256(tile_id.encode()).hexdigest()[:_HASH]}"
