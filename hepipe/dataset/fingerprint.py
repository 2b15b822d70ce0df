"""One hash that says which data a model saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepipe.stores.provenance import digest


def fingerprint(kept: Sequence[Mapping[str, Any]], *, specs: Mapping[str, Any], transforms: Mapping[str, str]) -> str:
    """SHA-256 over pixels, splits, settings and registrations; free of paths, machines and the order of rows.

    Args:
        kept: Rows of the index.
        specs: Config section of each stage that made them.
        transforms: Case to the digest of its transform.
    """
    tiles = sorted([row["tile_id"], row["he_sha256"], row["ihc_sha256"], row["split"]] for row in kept)
    return digest({"tiles": tiles, "specs": dict(specs), "transforms": dict(transforms)})
