"""The verdict on a registration: ok, review or failed, by limits that depend on the kind of section."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hepipe.registration.landmarks import MIN_AFFINE
from hepipe.registration.score import Likeness
from hepipe.specs.registration import GateSpec
from hepipe.status import OK, CaseStatus, failed, review

LOOK = "look at the overlay and write yes or no into column accepted"
FAR = 2.0
"""Landmarks further off than this many times a limit fail the pair; in between a person looks."""
CLICKED_PX = (6.0, 20.0)
"""A limit on the landmarks' median (p90) is never finer than this many px of the coarser slide's level 0: on overviews
of lung two people clicked the same point 2.5 to 7 px apart (median), 43 px at their 90th percentile."""
WINDOWS_PX = (1.0, 3.0)
"""The same for the refinement's windows, which no hand has placed."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a finished chain.

    Attributes:
        likeness: At its end.
        stiff: Similarity before the deformable steps, which also find some likeness between strangers.
        lead: `structure_lead` at the end; nan where it cannot be told.
        stiff_lead: The same before the deformable steps.
        px_um: µm per px of the coarser slide's level 0.
        scale_doubt: Why a stated mpp cannot be right; empty when it can.
        fold_frac: Share of the tissue that is folded.
        tre_um: `median` and `p90` of the landmarks' error; None without landmarks.
        residuals: Of `residual_summary`; None without a refinement.
        unrefined: Why the chain's refinement was dropped or ended early; empty when it did not, and where slides are
            too coarse for one.
        followed: How many landmarks the chain follows; 0 where they are none of its steps.
        missing: Pieces of tissue that only one slide shows, in words; empty when there are none.
        leads: `structure_lead` at the end in each piece of the H&E alone, where there are several. True pieces of drawn
            pairs led by 0.38 and more; one turned by 15 to 180 degrees on its own by -0.04 to 0.06.
    """

    likeness: Likeness
    stiff: float
    lead: float = math.nan
    stiff_lead: float = math.nan
    px_um: float = 0.0
    scale_doubt: str = ""
    fold_frac: float = 0.0
    tre_um: Mapping[str, float] | None = None
    residuals: Mapping[str, Any] | None = None
    unrefined: str = ""
    followed: int = 0
    missing: str = ""
    leads: Mapping[str, float] = field(default_factory=dict)


def judge_case(evidence: Evidence, gate: GateSpec, *, accepted: Literal["yes", "no"] | None = None) -> CaseStatus:
    """The verdict on a finished chain.

    Args:
        evidence: What is known of it.
        gate: The limits of the case's kind of section.
        accepted: A person's verdict: `yes` overrules doubts, not failures; `no` fails the case.
    """
    if accepted == "no":
        return failed("registration", "a person did not accept this registration (column accepted)")
    reasons = _failures(evidence, gate)
    if reasons:
        # A wrong mpp is the likelier cause of all that follows from it, and the easier one to mend.
        return failed("registration", evidence.scale_doubt or reasons[0])
    doubts = _doubts(evidence, gate)
    if doubts and accepted is None:
        return review("registration", f"{'; '.join(doubts)}: {LOOK}")
    return OK


def _failures(evidence: Evidence, gate: GateSpec) -> list[str]:
    likeness = evidence.likeness
    reasons = []
    if likeness.similarity < gate.min_similarity:
        reasons.append(
            f"the two slides do not seem to belong together: similarity {likeness.similarity:.2f}, at least "
            f"{gate.min_similarity:.2f} expected; {_remedy(evidence)}"
        )
    if evidence.stiff_lead < gate.min_stiff_lead:
        reasons.append(
            "the two slides do not seem to belong together: in place they are hardly more alike than moved aside "
            f"(lead {evidence.stiff_lead:.3f}, at least {gate.min_stiff_lead:.3f} expected); {_remedy(evidence)}"
        )
    if likeness.tissue_dice < gate.min_tissue_dice:
        reasons.append(
            f"the tissue of the two slides hardly overlaps: Dice {likeness.tissue_dice:.2f}, at least "
            f"{gate.min_tissue_dice:.2f} expected; {_remedy(evidence)}"
        )
    far = _beyond(evidence.tre_um, gate, evidence.px_um, CLICKED_PX, factor=FAR)
    if far:
        remedy = "check them with the pair, or write landmarks into column start"
        reasons.append(f"landmarks are {far}; {_remedy(evidence) if evidence.followed else remedy}")
    return reasons


def _remedy(evidence: Evidence) -> str:
    """What a person does about slides that are not alike where the chain brought them."""
    if not evidence.followed:
        return "check the pair in the slide sheet, or give landmarks and write landmarks into column start"
    more = "" if evidence.followed >= MIN_AFFINE else f"; give at least {MIN_AFFINE}, spread over the tissue"
    return (
        f"check the pair in the slide sheet and the {evidence.followed} landmarks that it follows: the columns of H&E "
        "and IHC may be exchanged, or points paired that do not show the same structure; pair them again on "
        f"`hepipe landmarks page`{more}"
    )


def _doubts(evidence: Evidence, gate: GateSpec) -> list[str]:
    likeness = evidence.likeness
    doubts = []
    if evidence.scale_doubt:
        doubts.append(evidence.scale_doubt)
    if likeness.similarity < gate.review_similarity:
        doubts.append(f"similarity {likeness.similarity:.2f} is below {gate.review_similarity:.2f}")
    if evidence.stiff < gate.review_stiff:
        doubts.append(
            f"similarity was {evidence.stiff:.2f} before the deformable step, {gate.review_stiff:.2f} expected"
        )
    if evidence.stiff_lead < gate.review_stiff_lead:
        doubts.append(
            f"the structure leads by {evidence.stiff_lead:.3f} over places aside, {gate.review_stiff_lead:.3f} expected"
        )
    if evidence.fold_frac > gate.max_fold_frac:
        doubts.append(f"{evidence.fold_frac:.2%} of the tissue is folded, at most {gate.max_fold_frac:.2%} expected")
    near = _beyond(evidence.tre_um, gate, evidence.px_um, CLICKED_PX)
    if near:
        doubts.append(f"landmarks are {near}")
    residuals = evidence.residuals
    if residuals is not None:
        if residuals["kept_frac"] < gate.min_kept_frac:
            doubts.append(
                f"only {residuals['kept_frac']:.0%} of the refinement's windows agree with their neighbours, "
                f"{gate.min_kept_frac:.0%} expected"
            )
        elif off := _beyond(
            {"median": residuals["p50_um"], "p90": residuals["p90_um"]}, gate, evidence.px_um, WINDOWS_PX
        ):
            doubts.append(f"the refinement's windows are {off}")
    if evidence.unrefined and gate.needs_refinement:
        doubts.append(f"the refinement did not reach its end ({evidence.unrefined})")
    aside = [name for name, lead in sorted(evidence.leads.items()) if lead < gate.review_stiff_lead]
    if aside:
        doubts.append(
            f"{' and '.join(aside)} of the H&E slide may have moved apart from the rest: in place hardly more alike "
            f"than moved aside (lead {min(evidence.leads[name] for name in aside):.3f}, "
            f"{gate.review_stiff_lead:.3f} expected)"
        )
    if evidence.missing:
        doubts.append(evidence.missing)
    return doubts


def _beyond(
    error_um: Mapping[str, float] | None,
    gate: GateSpec,
    px_um: float,
    finest_px: tuple[float, float],
    *,
    factor: float = 1.0,
) -> str:
    """In what an error lies beyond the limits, which are never finer than `finest_px`; empty when it does not."""
    if error_um is None:
        return ""
    limits: Sequence[tuple[str, str, float]] = (
        ("median", "off by", max(gate.max_p50_um, finest_px[0] * px_um)),
        ("p90", "off by, at their 90th percentile,", max(gate.max_p90_um, finest_px[1] * px_um)),
    )
    for name, words, limit in limits:
        if error_um[name] > factor * limit:
            return f"{words} {error_um[name]:.1f} µm, at most {factor * limit:.1f} expected"
    return ""


def notes(*, mirrored: bool) -> list[str]:
    """What a person should know of a pair that passes."""
    return (
        ["the IHC slide is mirrored against the H&E slide; its tiles are read the right way round"] if mirrored else []
    )
