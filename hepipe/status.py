"""A case's verdict: ok, review or failed, at which stage, and why."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Stage = Literal["slides", "registration", "tissue", "stains", "tiling", "quality", "dataset"]


class CaseStatus(BaseModel):
    """What the stages so far say of one case; a failed case stays failed, a reviewed one may still fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["ok", "review", "failed"] = "ok"
    stage: Stage | None = None
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether later stages have nothing to work on."""
        return self.state == "failed"

    def then(self, later: CaseStatus) -> CaseStatus:
        """The verdict after a later stage: the worse of the two, the earlier one when equal."""
        rank = {"ok": 0, "review": 1, "failed": 2}
        return later if rank[later.state] > rank[self.state] else self


OK = CaseStatus()


def failed(stage: Stage, reason: str) -> CaseStatus:
    """A case that cannot be used."""
    return CaseStatus(state="failed", stage=stage, reason=reason)


def review(stage: Stage, reason: str) -> CaseStatus:
    """A case that is used, but that a person should look at."""
    return CaseStatus(state="review", stage=stage, reason=reason)
