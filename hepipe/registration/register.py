"""The registration of one case: a chain of steps, each kept only when it helps, and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float

from hepipe.config import RegistrationSpec
from hepipe.errors import RegistrationError
from hepipe.geometry import Transform, identity
from hepipe.registration.affine import refine_affine
from hepipe.registration.elastic import refine_elastic
from hepipe.registration.landmarks import Landmarks, fit_landmarks
from hepipe.registration.overview import Pictures, read_pictures
from hepipe.registration.score import Judge, Likeness, landmark_error
from hepipe.registration.start import search_starts
from hepipe.registration.transform import compose, fold_frac, implausible, invert, scales
from hepipe.slides.reader import Slide
from hepipe.status import OK, CaseStatus, failed, review

STARTS = 16
"""Placements that the search hands on: the right one was first or second on five real pairs, but fifth on a drawn slide
of three like pieces with a cover slip's edge across one."""
FINALISTS = 3
GLANCE_PX, GLANCE_STEPS = (64,), 30
"""All starts are refined a little at this size, the finalists at the next."""
COARSE_PX = (128,)
DEFORMABLE = frozenset({"elastic", "deeperhistreg", "simpleitk"})


@dataclass(frozen=True)
class Registration:
    """What came of a case; transforms are None when it failed."""

    ihc_from_he: Transform | None
    he_from_ihc: Transform | None
    status: CaseStatus
    summary: dict[str, Any] = field(default_factory=dict)


def register(
    he: Slide,
    ihc: Slide,
    spec: RegistrationSpec,
    *,
    case_id: str,
    landmarks: Landmarks | None = None,
    accepted: Literal["yes", "no"] | None = None,
) -> Registration:
    """Bring the IHC slide onto the H&E slide.

    Args:
        he: The fixed slide.
        ihc: The moving slide.
        spec: The chain and its settings.
        case_id: For errors.
        landmarks: Measure the error with these; the step `landmarks` also uses them.
        accepted: A person's verdict: `yes` turns a review into ok, `no` fails the case.

    Raises:
        RegistrationError: A slide without tissue, or a chain that needs landmarks where there are none.
        ConfigError: A step needs a package that is not installed.
    """
    cv2.setNumThreads(spec.threads)
    pictures = read_pictures(he, ihc, max_px=spec.overview_px)
    judge = Judge(pictures)
    for slide, shows in zip((he, ihc), judge.has_tissue, strict=True):
        if not shows:
            raise RegistrationError(case_id, f"no tissue found on {slide.slide_id}; look at the slide")
    found = identity(fixed_mpp=he.mpp, moving_mpp=ihc.mpp)
    before = likeness = stiff = judge.score(found)
    chain: list[dict[str, Any]] = []
    for step in spec.chain:
        tried = _take(step, found, pictures, judge, spec, case_id=case_id, landmarks=landmarks, he=he)
        score = judge.score(tried)
        note = _objection(step, tried, likeness, score)
        chain.append(
            {
                "step": step,
                "score_before": likeness.similarity,
                "score_after": score.similarity,
                "kept": not note,
                "note": note,
            }
        )
        if not note:
            found, likeness = tried, score
            if step not in DEFORMABLE:
                stiff = score
    inverse = invert(found, a_size_px0=he.size_px0, b_size_px0=ihc.size_px0)
    summary = {
        "chain": chain,
        "mpp": pictures.mpp,
        "similarity_before": before.similarity,
        "similarity": likeness.similarity,
        "tissue_dice_before": before.tissue_dice,
        "tissue_dice": likeness.tissue_dice,
        "fold_frac": fold_frac(found),
        "inverse_residual_um": [None if math.isnan(value) else value for value in inverse.residual_um],
        **_pose(found),
        "landmarks": None
        if landmarks is None
        else landmark_error(found, landmarks.he_px0, landmarks.ihc_px0, ihc_size_px0=ihc.size_px0),
    }
    status = judge_case(likeness, spec, stiff=stiff.similarity, accepted=accepted)
    if status.failed:
        return Registration(None, None, status, summary)
    return Registration(found, inverse.transform, status, summary)


def judge_case(
    likeness: Likeness, spec: RegistrationSpec, *, stiff: float, accepted: Literal["yes", "no"] | None = None
) -> CaseStatus:
    """The verdict on a finished chain.

    Args:
        likeness: At its end.
        spec: The limits.
        stiff: Similarity before the deformable steps, which also find some likeness between strangers.
        accepted: A person's verdict.
    """
    if accepted == "no":
        return failed("registration", "a person did not accept this registration (column accepted)")
    if likeness.similarity < spec.min_similarity:
        return failed(
            "registration",
            f"the two slides do not seem to belong together: similarity {likeness.similarity:.2f}, at least "
            f"{spec.min_similarity:.2f} expected; check the pair in the slide sheet, or give landmarks",
        )
    if likeness.tissue_dice < spec.min_tissue_dice:
        return failed(
            "registration",
            f"the tissue of the two slides hardly overlaps: Dice {likeness.tissue_dice:.2f}, at least "
            f"{spec.min_tissue_dice:.2f} expected; check the pair in the slide sheet",
        )
    if likeness.similarity < spec.review_similarity and accepted is None:
        return review(
            "registration",
            f"similarity {likeness.similarity:.2f} is below {spec.review_similarity:.2f}: look at the overlay and "
            "write yes or no into column accepted",
        )
    if stiff < spec.review_stiff and accepted is None:
        return review(
            "registration",
            f"similarity was {stiff:.2f} before the deformable step, {spec.review_stiff:.2f} expected: look at the "
            "overlay and write yes or no into column accepted",
        )
    return OK


def _take(
    step: str,
    start: Transform,
    pictures: Pictures,
    judge: Judge,
    spec: RegistrationSpec,
    *,
    case_id: str,
    landmarks: Landmarks | None,
    he: Slide,
) -> Transform:
    """The transform between the slides that one step of the chain proposes."""
    if step == "identity":
        return start
    if step == "search":
        return _search(pictures, judge, spec)
    if step == "landmarks":
        if landmarks is None:
            raise RegistrationError(case_id, "the chain has the step landmarks, but its row names no landmarks file")
        return fit_landmarks(
            landmarks,
            he_size_px0=he.size_px0,
            he_mpp=start.fixed_mpp,
            ihc_mpp=start.moving_mpp,
            grid_um=4 * pictures.mpp,
        )
    small = pictures.small(start)
    if step == "affine":
        update = refine_affine(judge.fixed, judge.moving, small.affine)
        found = Transform(update, pictures.mpp, pictures.mpp)
        if start.field_um is not None:
            # An affine after a field moves the whole field along.
            after = Transform(update @ np.linalg.inv(small.affine), pictures.mpp, pictures.mpp)
            size = (pictures.fixed.shape[1], pictures.fixed.shape[0])
            found = compose(after, small, a_size_px0=size)
        return pictures.large(found)
    if step == "elastic":
        return pictures.large(refine_elastic(judge.fixed, judge.moving, small, smoothness=spec.smoothness))
    if step == "simpleitk":
        from hepipe.registration.sitk import refine_simpleitk

        return pictures.large(
            refine_simpleitk(judge.fixed, judge.moving, small, threads=spec.threads, iterations=spec.iterations)
        )
    if step == "deeperhistreg":
        from hepipe.registration.dhr import refine_deeperhistreg

        return pictures.large(refine_deeperhistreg(pictures, small, spec, case_id=case_id))
    raise ValueError(f"no step {step!r}")


def _search(pictures: Pictures, judge: Judge, spec: RegistrationSpec) -> Transform:
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


def _objection(step: str, tried: Transform, before: Likeness, after: Likeness) -> str:
    """Why a step's result is dropped; empty when it is kept."""
    problem = implausible(tried)
    if problem:
        return f"dropped: {problem}"
    # Landmarks are a person's word; a picture's likeness does not overrule it.
    if step != "landmarks" and after.similarity < before.similarity:
        return f"dropped: similarity fell from {before.similarity:.3f} to {after.similarity:.3f}"
    return ""


def _pose(transform: Transform) -> dict[str, Any]:
    """Rotation, mirroring and scale of the affine part, for people."""
    a = transform.affine[:2, :2]
    mirrored = bool(a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0] < 0)
    sign = -1.0 if mirrored else 1.0
    smaller, larger = scales(transform)
    return {
        "rotation_deg": math.degrees(math.atan2(a[1, 0] * sign, a[0, 0] * sign)),
        "mirrored": mirrored,
        "scale": math.sqrt(smaller * larger),
    }
