"""The section `splits`: how patients are divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from hepipe.specs.base import Spec

Split = Literal["train", "val", "test"]


class SplitsSpec(Spec):
    """How patients are divided."""

    revision: Literal[1] = 1
    shares: Mapping[Split, float] = Field(
        {"train": 0.6, "val": 0.2, "test": 0.2}, description="Wanted shares of tiles."
    )
    seed: int = Field(1, ge=0)

    @field_validator("shares")
    @classmethod
    def _sum_to_one(cls, shares: Mapping[Split, float]) -> Mapping[Split, float]:
        if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
            raise ValueError(f"shares must be 0 or more and add up to 1, found {dict(shares)}")
        return shares
