"""What the shards of an export have in common: a fixed number of tiles each, so that their names are known ahead."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hepipe.errors import ConfigError
from hepipe.exporters.selection import SPLITS, Selection
from hepipe.specs.dataset import Split

Order = Literal["id", "mixed"]


@dataclass(frozen=True)
class Shard:
    """Some tiles of one split.

    Attributes:
        split: Of its tiles.
        number: Within the split, from 0.
        of: Shards of the split.
        rows: Of the index.
    """

    split: Split
    number: int
    of: int
    rows: Sequence[Mapping[str, Any]]


def plan(selection: Selection, *, shard_mb: int, order: Order = "id") -> list[Shard]:
    """The shards of each split in turn.

    A shard takes so many tiles that it stays below `shard_mb` even if PNG saved nothing.

    Args:
        selection: The tiles.
        shard_mb: MB of 10⁶ bytes.
        order: By id, so that a shard holds few cases; or mixed by a hash of the id, the same every time, for readers
            that shuffle within a shard only.

    Raises:
        ConfigError: A shard is too small for one tile.
    """
    largest = selection.tile_px**2 * (6.125 if selection.has_masks else 6) * 1.01 + 65_536
    per_shard = int(shard_mb * 1_000_000 // largest)
    if per_shard < 1:
        raise ConfigError(
            f"export: --shard-mb {shard_mb} holds no pair of {selection.tile_px} px, "
            f"which may take {largest / 1e6:.1f} MB; give more"
        )
    shards = []
    for split in SPLITS:
        rows = selection.in_split(split)
        if order == "mixed":
            rows.sort(key=lambda row: hashlib.sha256(str(row["tile_id"]).encode()).digest())
        starts = range(0, len(rows), per_shard)
        shards += [
            Shard(split, number, len(starts), rows[start : start + per_shard]) for number, start in enumerate(starts)
        ]
    return shards


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
