"""The step `search`: several starts, each refined a little, and the one under which the pictures are most alike."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hepipe.geometry import Transform, apply_affine
from hepipe.registration.affine import STEPS, refine_affine
from hepipe.registration.keypoints import match_starts
from hepipe.registration.overview import Pictures
from hepipe.registration.score import Judge
from hepipe.registration.start import search_starts
from hepipe.registration.transform import implausible
from hepipe.specs.registration import SearchSpec

STARTS = 16
"""Placements that the search hands on: the right one was first or second on five real pairs, but fifth on a drawn slide
of three like pieces with a cover slip's edge across one."""
FINALISTS = 3
GLANCE_PX, GLANCE_STEPS = (64,), 30
"""All starts are refined a little at this size, the finalists at the next."""
COARSE_PX = (128,)
LEARNED_PX = 768
"""Longer side of the pictures that a learned matcher sees, in four turns and their mirror images."""
SWELLING = (0.8, 1.25)
"""Sizes of one section against the other that local features may propose where both resolutions are known."""
DISTINCT = 0.05
"""Two placements are one found twice when they move the picture's px apart by less than this share of its side."""
CLEAR_LEAD = 0.15
"""Ahead by this much, a start needs no further proposals: drawn pairs and a kidney led by 0.2 to 0.4."""


@dataclass(frozen=True)
class StartChoice:
    """The start chosen, and how far ahead it is.

    Attributes:
        transform: `ihc_from_he` between the slides.
        score: The judge's rank of it, -1 to 1.
        runner_up: The best rank of a placement unlike it, after as much refinement; -inf when there is none. Strangers
            look about as much alike in many ways, partners in one.
    """

    transform: Transform
    score: float
    runner_up: float

    @property
    def lead(self) -> float:
        """How much better than the second best it is; inf without one."""
        return self.score - self.runner_up


def choose_start(pictures: Pictures, judge: Judge, spec: SearchSpec) -> StartChoice:
    """The start of several, each refined a little, under which the pictures are most alike."""
    free = pictures.free_scale
    starts = search_starts(
        judge.fixed,
        judge.moving,
        step_deg=spec.rotation_step_deg,
        flips=spec.flips,
        keep=STARTS,
        scale_range=spec.scale_range if free else (1.0, 1.0),
    )
    race = _Race(pictures, judge)
    race.enter([start.moving_from_fixed for start in starts])
    sizes = spec.scale_range if free else SWELLING
    # After the search, so that a tie goes to it: it does not depend on there being fine structure.
    if free or race.choice().lead < CLEAR_LEAD:
        race.enter(match_starts(judge.fixed, judge.moving, flips=spec.flips, scale_range=sizes))
    if spec.matcher == "aliked":
        race.enter(_learned_starts(judge, flips=spec.flips, scale_range=sizes))
    return race.choice()


class _Race:
    """Placements, refined a little each, the best of them more, and how they rank."""

    def __init__(self, pictures: Pictures, judge: Judge) -> None:
        self.pictures = pictures
        self.judge = judge
        self.ranks: list[tuple[float, Float[np.ndarray, "3 3"]]] = []

    def enter(self, proposed: Sequence[Float[np.ndarray, "3 3"]]) -> None:
        """Rank some more placements."""
        glances = []
        for rigid in proposed:
            glanced = self._refined(rigid, GLANCE_PX, GLANCE_STEPS)
            glances.append((self._ranked(glanced), rigid, glanced))
        self.ranks += [(self._ranked(rigid), rigid) for rigid in proposed]
        self.ranks += [(rank, glanced) for rank, _, glanced in glances]
        for _, rigid, glanced in sorted(glances, key=lambda one: -one[0])[:FINALISTS]:
            # The glance itself may have led astray (seen on a section of lung), so the rigid start stays in the race.
            for better in (self._refined(one, COARSE_PX, STEPS) for one in (rigid, glanced)):
                self.ranks.append((self._ranked(better), better))

    def choice(self) -> StartChoice:
        """The best so far."""
        score, best = max(self.ranks, key=lambda one: one[0])
        others = [rank for rank, matrix in self.ranks if _distinct(matrix, best, self.pictures.fixed.shape[:2])]
        chosen = self.pictures.large(Transform(best, self.pictures.mpp, self.pictures.mpp))
        return StartChoice(chosen, score, max(others, default=-math.inf))

    def _ranked(self, matrix: Float[np.ndarray, "3 3"]) -> float:
        transform = self.pictures.large(Transform(matrix, self.pictures.mpp, self.pictures.mpp))
        return -math.inf if implausible(transform) else self.judge.rank(transform)

    def _refined(
        self, matrix: Float[np.ndarray, "3 3"], scales_px: tuple[int, ...], steps: int
    ) -> Float[np.ndarray, "3 3"]:
        judge, free = self.judge, self.pictures.free_scale
        return refine_affine(judge.fixed, judge.moving, matrix, scales_px=scales_px, steps=steps, free_scale=free)


def _learned_starts(judge: Judge, *, flips: bool, scale_range: tuple[float, float]) -> list[Float[np.ndarray, "3 3"]]:
    from hepipe.registration.aliked import describe, load_aliked

    return match_starts(
        judge.fixed,
        judge.moving,
        flips=flips,
        scale_range=scale_range,
        describe=functools.partial(describe, load_aliked()),
        longest=LEARNED_PX,
        quarters=(0, 1, 2, 3),
    )


def _distinct(one: Float[np.ndarray, "3 3"], other: Float[np.ndarray, "3 3"], shape: tuple[int, ...]) -> bool:
    """Whether two placements of a picture of this (height, width) differ by more than refinement."""
    height, width = shape[:2]
    corners = np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])
    apart = np.linalg.norm(apply_affine(one, corners) - apply_affine(other, corners), axis=1)
    return float(apart.mean()) > DISTINCT * max(height, width)
