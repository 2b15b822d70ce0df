"""What a person decided about tiles: keep or drop, by the content of a pair, so that it survives regeneration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

ID_DIGITS = 32


def content_id(row: Mapping[str, Any]) -> str:
    """What a tile pair is called by its pixels: 32 hex digits over the hashes of both stains.

    The same pixels under another tile id, grid or case have the same content id.

    Args:
        row: Of a tile table or an index; a tile without pixels has no hashes and hence no content id.

    Raises:
        ValueError: The row has no hash of one stain.
    """
    he, ihc = row["he_sha256"], row["ihc_sha256"]
    if not he or not ihc:
        raise ValueError(f"tile {row.get('tile_id')}: no pixels, so no content id")
    return hashlib.sha256(f"{he}:{ihc}".encode()).hexdigest()[:ID_DIGITS]
