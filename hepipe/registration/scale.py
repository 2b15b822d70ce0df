"""Whether the stated pixel sizes of a pair can be right: the same section has the same size on both slides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hepipe.geometry import Transform
from hepipe.registration.overview import Pictures
from hepipe.registration.score import Judge
from hepipe.registration.search import choose_start
from hepipe.specs.registration import GateSpec, SearchSpec

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


def scale_doubt(
    found: float,
    gate: GateSpec,
    *,
    he_mpp: float,
    ihc_mpp: float,
    local: tuple[float, float] | None = None,
    are_known: bool = True,
) -> str:
    """Which stated mpp cannot be right, in words; empty when both can.

    Args:
        found: Size of the IHC section against the H&E section by the stated mpp, µm by µm: 1 when they agree.
        gate: Its `scale_tolerance` allows for shrinkage of the next section; the same section has none.
        he_mpp: As stated, µm per px at level 0.
        ihc_mpp: The same of the IHC slide.
        local: Between what the size varies over the tissue. A warp of 120 µm can shrink a piece of 2.5 mm by 10 %, but
            not evenly (seen on drawn pairs): where some of the tissue has the stated size, no mpp is wrong.
        are_known: False where an mpp is the word `unknown`: then there is nothing to doubt.
    """
    tolerance = gate.scale_tolerance
    low, high = (found, found) if local is None else local
    some_fits = low <= 1.0 + tolerance and high >= 1.0 - tolerance
    if not are_known or abs(found - 1.0) <= tolerance or some_fits:
        return ""
    return (
        f"mpp_ihc or mpp_he is suspect: by them the IHC tissue is {found:.2f} times as large as the H&E tissue, within "
        f"{tolerance:.0%} of 1 expected; mpp_ihc {ihc_mpp / found:.4g} (in place of {ihc_mpp:.4g}) or mpp_he "
        f"{he_mpp * found:.4g} (in place of {he_mpp:.4g}) would fit: correct the slide sheet"
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
