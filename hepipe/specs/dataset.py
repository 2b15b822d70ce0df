"""The sections `splits`, how patients are divided, and `curation`, what people decided about tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from hepipe.specs.base import Spec

Split = Literal["train", "val", "test"]


class SplitsSpec(Spec):
    """How patients are divided."""

    revision: Literal[2] = 2
    shares: Mapping[Split, float] = Field(
        {"train": 0.6, "val": 0.2, "test": 0.2}, description="Wanted shares of tiles."
    )
    seed: int = Field(1, ge=0)
    folds: int | None = Field(
        None, ge=3, le=20, description="Grouped k-fold in place of `shares`: a run with `fold: i` tests on fold i."
    )
    near_bits: int = Field(
        6, ge=0, le=7, description="Tiles of two splits are near-duplicates up to so many of 63 bits apart."
    )
    near_duplicates: Literal["fail", "warn"] = Field(
        "fail", description="warn: near-duplicates that somebody has looked at are flagged and stop nothing."
    )

    @field_validator("shares")
    @classmethod
    def _sum_to_one(cls, shares: Mapping[Split, float]) -> Mapping[Split, float]:
        # Asked for what must hold, since a nan is above and below nothing.
        if not (abs(sum(shares.values()) - 1) <= 1e-6 and min(shares.values()) >= 0):
            raise ValueError(f"shares must be 0 or more and add up to 1, found {dict(shares)}")
        return shares


CurationRule = Literal["either", "agreed", "first"]


class CurationSpec(Spec):
    """Decisions of people about tiles, made on the page of `hepipe curate`."""

    revision: Literal[1] = 1
    decisions: tuple[str, ...] = Field(
        (), description="CSV files, a reader each. Paths: they stay out of artefacts, their digest does not."
    )
    rule: CurationRule = Field(
        "either",
        description="Where readers differ: either drops; agreed: only what all of them decided alike counts; "
        "first: the first file that decides a tile.",
    )
    keep_overrides: bool = Field(False, description="A tile that a person keeps comes back against the filters.")
