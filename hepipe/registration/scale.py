"""Whether the stated pixel sizes of a pair can be right: the same section has the same size on both slides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hepipe.geometry import Transform
from hepipe.registration.overview import Pictures
from hepipe.registration.score import Judge
from hepipe.registration.search import choose_start
from hepipe.registration_spec import GateSpec, SearchSpec

MIN_GAIN = 0.03
"""How much better a start of another size must be than the one at the stated size, in the search's own score."""


@dataclass(frozen=True)
class ScaleSuspicion:
    """A pair that fits at another size than its mpp say.

    Attributes:
        start: Where it fits, `ihc_from_he` with the stated mpp.
        scale: Size of the IHC section against the H&E section by the stated mpp.
        text: What to do about it.
    """

    start: Transform
    scale: float
    text: str


def scale_doubt(found: float, gate: GateSpec, *, he_mpp: float, ihc_mpp: float, are_known: bool = True) -> str:
    """Which stated mpp cannot be right, in words; empty when both can.

    Args:
        found: Size of the IHC section against the H&E section by the stated mpp, µm by µm: 1 when they agree.
        gate: Its `scale_tolerance` allows for shrinkage of the next section; the same section has none.
        he_mpp: As stated, µm per px at level 0.
        ihc_mpp: The same of the IHC slide.
        are_known: False where an mpp is the word `unknown`: then there is nothing to doubt.
    """
    if not are_known or abs(found - 1.0) <= gate.scale_tolerance:
        return ""
    return (
        f"mpp_ihc or mpp_he is suspect: by them the IHC tissue is {found:.2f} times as large as the H&E tissue, within "
        f"{gate.scale_tolerance:.0%} of 1 expected; mpp_ihc {ihc_mpp / found:.4g} (in place of {ihc_mpp:.4g}) or "
        f"mpp_he {he_mpp * found:.4g} (in place of {he_mpp:.4g}) would fit: correct the slide sheet"
    )


def scale_suspicion(
    pictures: Pictures, judge: Judge, found: Transform, search: SearchSpec, gate: GateSpec
) -> ScaleSuspicion | None:
    """Whether a pair that failed at the stated sizes would fit at others: one more search, over sizes too.

    Args:
        pictures: Of the pair.
        judge: Of the same pictures.
        found: What the chain ended with, or its start.
        search: Its `scale_range` is searched, unless the search already did.
        gate: Of the kind of section.

    Returns:
        None where no other size fits better, and where an mpp is `unknown`: its search was over sizes already.
    """
    if pictures.free_scale:
        return None
    free = choose_start(dataclasses.replace(pictures, free_scale=True), judge, search)
    scale = judge.size(free.transform)
    text = scale_doubt(scale, gate, he_mpp=pictures.fixed_mpp, ihc_mpp=pictures.moving_mpp)
    if not text or free.score < judge.rank(found) + MIN_GAIN:
        return None
    return ScaleSuspicion(free.transform, scale, text)
