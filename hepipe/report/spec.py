"""What the report is about, as the workflow passes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from hepipe.specs.base import Spec
from hepipe.specs.training import EvaluationSpec, TestOn, one_or_several

IMPORTED = "imported"


class ReportDataset(Spec):
    """One data set."""

    kind: str = Field("", description="Synthetic cohort, slides or imported tiles.")
    cases: tuple[str, ...] = Field((), description="Ids of its cases, or `imported`.")
    note: str = Field("", description="What the reader must know, such as a nominal resolution.")

    @field_validator("cases", mode="before")
    @classmethod
    def _one_or_several(cls, cases: Any) -> Any:
        return (cases,) if isinstance(cases, str) else cases


class ReportRun(Spec):
    """One training run."""

    dataset: str
    test_on: TestOn = Field(default_factory=dict, alias="on", description="Data set to the split, or splits.")
    outside: Mapping[str, str] = Field(
        default_factory=dict, description="Where its training is not the protocol's: key to both values."
    )

    _splits = field_validator("test_on", mode="before")(one_or_several)


class ReportSpec(Spec):
    """The whole report."""

    title: str = "hepipe report"
    datasets: Mapping[str, ReportDataset] = Field(default_factory=dict)
    runs: Mapping[str, ReportRun] = Field(default_factory=dict)
    primary: tuple[str, ...] = EvaluationSpec().primary
    protocol: Mapping[str, str] = Field(default_factory=dict, description="What all runs share, in words.")
    bootstrap: int = Field(2000, ge=100, description="Draws of an interval.")
    max_picture_cases: int = Field(12, ge=0, description="Cases of a data set that are shown with pictures.")
