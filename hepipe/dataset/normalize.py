"""The colours that a run's views are brought to: found once, in its training split, and kept with its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydantic import Field, ValidationError

from hepipe.errors import StoreError
from hepipe.specs.base import Spec
from hepipe.specs.training import NormalizeSpec
from hepipe.stains.estimate import Stain
from hepipe.stains.normalize import (
    LabStatistics,
    StainStatistics,
    Statistics,
    colour_statistics,
    median_statistics,
)

MOST_TILES = 48
"""Of a case, evenly spread, that its colours are found from."""
MOST_PX = 40_000
"""Of them, evenly spread: as many as stain vectors are found from."""
STAINS: tuple[Stain, ...] = ("he", "ihc")

PixelsOf = Callable[[Stain, str | None], UInt8[np.ndarray, "n 3"]]
"""Pixels of a case, or of all tiles of unknown cases together."""


class Normalization(Spec):
    """What views are brought to; None of a stain that stays as it is stored."""

    he: Statistics | None = None
    ihc: Statistics | None = None
    n_cases: int = Field(description="Of the training split, each once; all tiles of unknown cases are one.")
    left_out: tuple[str, ...] = Field((), description="Stain and case where there is too little tissue to tell.")
    notes: tuple[str, ...] = Field((), description="Stain and case where something was tried and given up.")

    def of(self, stain: str) -> LabStatistics | StainStatistics | None:
        """The target of a stain."""
        return self.he if stain == "he" else self.ihc


def find_normalization(spec: NormalizeSpec, cases: Sequence[str | None], pixels: PixelsOf) -> Normalization | None:
    """The median colours of the cases; None where nothing is normalised.

    Args:
        spec: Which stains, and how.
        cases: Of the training split, None for all tiles of unknown cases.
        pixels: Of a case, as the run sees them.

    Raises:
        StoreError: No case has enough tissue.
    """
    if not cases:
        return None  # whoever needs a tile says so, and why there is none
    targets: dict[str, LabStatistics | StainStatistics | None] = {}
    left_out: list[str] = []
    notes: list[str] = []
    for stain in STAINS:
        method = spec.he if stain == "he" else spec.ihc
        if method == "none":
            continue
        found = {case: colour_statistics(pixels(stain, case), method, stain) for case in cases}
        left_out += [f"{stain} {case or 'unknown'}" for case, one in found.items() if one is None]
        notes += [
            f"{stain} {case or 'unknown'}: {note}"
            for case, one in found.items()
            if isinstance(one, StainStatistics)
            for note in one.notes
        ]
        known = [one for one in found.values() if one is not None]
        if not known:
            raise StoreError(
                f"training.normalize.{stain}: no case of the training split has enough tissue to find its colours; "
                "set it to none, or look at the tiles"
            )
        targets[stain] = median_statistics(known)
    if not targets:
        return None
    return Normalization(**targets, n_cases=len(cases), left_out=tuple(left_out), notes=tuple(notes))


def told_normalization(told: Mapping[str, Any], spec: NormalizeSpec, *, what: str) -> Normalization | None:
    """What a finished model was trained with, from what its provenance tells.

    Raises:
        StoreError: It was trained with another normalisation than its run's record says.
    """
    try:
        made = None if "normalization" not in told else Normalization.model_validate(told["normalization"])
    except ValidationError:
        raise StoreError(f"{what}: its normalisation is of another version; train it again") from None
    for stain in STAINS:
        target = None if made is None else made.of(stain)
        found, wanted = "none" if target is None else target.method, spec.he if stain == "he" else spec.ihc
        if found != wanted:
            raise StoreError(
                f"{what}: trained with {stain} normalised by {found}, its run's record says {wanted}; "
                "give the config.json that it was trained with"
            )
    return made
