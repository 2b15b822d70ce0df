"""One hash that says which data a model saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepipe.stores.provenance import digest


def fingerprint(kept: Sequence[Mapping[str, Any]], *, specs: Mapping[str, Any], transforms: Mapping[str, str]) -> str:
    """SHA-256 over pixels, splits, regions, settings and registrations; free of paths, machines and the order of rows.

    Args:
        kept: Rows of the index.
        specs: Config section of each stage that made them.
        transforms: Case to the digest of its transform.
    """
    columns = ("tile_id", "he_sha256", "ihc_sha256", "split", "place", "region")
    tiles = sorted([row[name] for name in columns] for row in kept)
    return digest({"tiles": tiles, "specs": dict(specs), "transforms": dict(transforms)})
