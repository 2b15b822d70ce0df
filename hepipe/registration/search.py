"""The step `search`: several starts, each refined a little, and the one under which the pictures are most alike."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from hepipe.geometry import Transform
from hepipe.registration.affine import refine_affine
from hepipe.registration.overview import Pictures
from hepipe.registration.score import Judge
from hepipe.registration.start import search_starts
from hepipe.registration.transform import implausible
from hepipe.registration_spec import SearchSpec

STARTS = 16
"""Placements that the search hands on: the right one was first or second on five real pairs, but fifth on a drawn slide
of three like pieces with a cover slip's edge across one."""
FINALISTS = 3
GLANCE_PX, GLANCE_STEPS = (64,), 30
"""All starts are refined a little at this size, the finalists at the next."""
COARSE_PX = (128,)


def choose_start(pictures: Pictures, judge: Judge, spec: SearchSpec) -> Transform:
    """The start of several, each refined a little, under which the pictures are most alike."""
    starts = search_starts(judge.fixed, judge.moving, step_deg=spec.rotation_step_deg, flips=spec.flips, keep=STARTS)

    def ranked(matrix: Float[np.ndarray, "3 3"]) -> float:
        proposed = pictures.large(Transform(matrix, pictures.mpp, pictures.mpp))
        return -math.inf if implausible(proposed) else judge.rank(proposed)

    pairs = []
    for start in starts:
        rigid = start.moving_from_fixed
        glanced = refine_affine(judge.fixed, judge.moving, rigid, scales_px=GLANCE_PX, steps=GLANCE_STEPS)
        pairs.append((ranked(glanced), rigid, glanced))
    finalists = sorted(pairs, key=lambda pair: -pair[0])[:FINALISTS]
    # The glance itself may have led astray (seen on a section of lung), so the rigid start stays in the race.
    refined = [
        refine_affine(judge.fixed, judge.moving, one, scales_px=COARSE_PX)
        for _, rigid, glanced in finalists
        for one in (rigid, glanced)
    ]
    return pictures.large(Transform(max(refined, key=ranked), pictures.mpp, pictures.mpp))
