"""The verdict on a registration: ok, review or failed, by limits that depend on the kind of section."""

from __future__ import annotations

from typing import Literal

from hepipe.registration.score import Likeness
from hepipe.registration_spec import GateSpec
from hepipe.status import OK, CaseStatus, failed, review


def judge_case(
    likeness: Likeness, gate: GateSpec, *, stiff: float, accepted: Literal["yes", "no"] | None = None
) -> CaseStatus:
    """The verdict on a finished chain.

    Args:
        likeness: At its end.
        gate: The limits of the case's kind of section.
        stiff: Similarity before the deformable steps, which also find some likeness between strangers.
        accepted: A person's verdict.
    """
    if accepted == "no":
        return failed("registration", "a person did not accept this registration (column accepted)")
    if likeness.similarity < gate.min_similarity:
        return failed(
            "registration",
            f"the two slides do not seem to belong together: similarity {likeness.similarity:.2f}, at least "
            f"{gate.min_similarity:.2f} expected; check the pair in the slide sheet, or give landmarks",
        )
    if likeness.tissue_dice < gate.min_tissue_dice:
        return failed(
            "registration",
            f"the tissue of the two slides hardly overlaps: Dice {likeness.tissue_dice:.2f}, at least "
            f"{gate.min_tissue_dice:.2f} expected; check the pair in the slide sheet",
        )
    if likeness.similarity < gate.review_similarity and accepted is None:
        return review(
            "registration",
            f"similarity {likeness.similarity:.2f} is below {gate.review_similarity:.2f}: look at the overlay and "
            "write yes or no into column accepted",
        )
    if stiff < gate.review_stiff and accepted is None:
        return review(
            "registration",
            f"similarity was {stiff:.2f} before the deformable step, {gate.review_stiff:.2f} expected: look at the "
            "overlay and write yes or no into column accepted",
        )
    return OK
