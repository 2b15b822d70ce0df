"""How our own filters agree with a list of tiles that others kept by hand, such as BCI-clean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from hepipe.dataset.agreement import cohen_kappa
from hepipe.errors import ConfigError
from hepipe.importers.files import Found
from hepipe.importers.names import resolved
from hepipe.specs.base import Spec


class ListAgreement(Spec):
    """A list against the filters, on the tiles of one split or of all; no interval, as nobody knows their cases."""

    n: int
    both_keep: int
    list_only: int = Field(description="Kept by the list, dropped by the filters.")
    filters_only: int = Field(description="Dropped by the list, kept by the filters.")
    both_drop: int
    kappa: float | None = Field(description="Cohen's κ, at most 1; None where chance alone would always agree.")
    reasons_list_only: Mapping[str, int] = Field(description="Why the filters drop what the list keeps.")
    reasons_both: Mapping[str, int] = Field(description="Why the filters drop what the list drops too.")


def list_agreement(
    tiles: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, ListAgreement]:
    """The agreement by the split in the tile ids, and of `all`; tiles that cannot be used are left out of it.

    Args:
        tiles: Rows of an import's tile table, of the whole set and not of the list alone.
        verdicts: Of the filters.
        names: The list's, with or without folder and suffix.

    Raises:
        ConfigError: A name that no tile has, or tiles of no import.
    """
    kept = {row["tile_id"]: row for row in verdicts}
    of_name: dict[Found, list[Mapping[str, Any]]] = {}
    for tile in tiles:
        if not tile["source_name"]:
            raise ConfigError(f"tile {tile['tile_id']} is of no imported set; a list of names needs one")
        folder = str(tile["tile_id"]).partition("/")[0]
        of_name.setdefault(Found(folder, tile["source_name"], Path()), []).append(tile)
    listed = set(resolved(names, list(of_name), "--list"))
    by_split: dict[str, list[tuple[bool, Mapping[str, Any]]]] = {"all": []}
    for found, own in of_name.items():
        for tile in own:
            if not tile["problem"]:
                one = (found in listed, kept[tile["tile_id"]])
                by_split["all"].append(one)
                by_split.setdefault(str(found.split), []).append(one)
    return {split: _agreement(pairs) for split, pairs in by_split.items()}


def _agreement(pairs: Sequence[tuple[bool, Mapping[str, Any]]]) -> ListAgreement:
    counts = Counter((is_listed, bool(verdict["keep"])) for is_listed, verdict in pairs)
    table = np.array([[counts[True, True], counts[True, False]], [counts[False, True], counts[False, False]]])
    kappa = cohen_kappa(table)[0]
    reasons = {
        is_listed: Counter(str(row["reason"]) for own, row in pairs if own == is_listed and not row["keep"])
        for is_listed in (True, False)
    }
    return ListAgreement(
        n=len(pairs),
        both_keep=counts[True, True],
        list_only=counts[True, False],
        filters_only=counts[False, True],
        both_drop=counts[False, False],
        kappa=None if math.isnan(kappa) else kappa,
        reasons_list_only=dict(reasons[True].most_common()),
        reasons_both=dict(reasons[False].most_common()),
    )
