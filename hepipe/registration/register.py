"""The registration of one case: a chain of steps, each kept only when it helps, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform, identity
from hepipe.registration.affine import refine_affine
from hepipe.registration.elastic import refine_elastic
from hepipe.registration.landmarks import Landmarks, fit_landmarks
from hepipe.registration.overview import Pictures, read_pictures
from hepipe.registration.score import Judge, Likeness, landmark_error
from hepipe.registration.search import choose_start
from hepipe.registration.transform import compose, fold_frac, implausible, invert, scales
from hepipe.registration.verdict import Evidence, judge_case
from hepipe.registration_spec import RegistrationSpec, Section
from hepipe.slides.reader import Slide
from hepipe.status import CaseStatus

DEFORMABLE = frozenset({"elastic", "deeperhistreg", "simpleitk"})


@dataclass(frozen=True)
class Registration:
    """What came of a case; both transforms are None when it failed, and `proposed` is what the chain ended with."""

    ihc_from_he: Transform | None
    he_from_ihc: Transform | None
    status: CaseStatus
    summary: dict[str, Any] = field(default_factory=dict)
    proposed: Transform | None = None
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)


def register(
    he: Slide,
    ihc: Slide,
    spec: RegistrationSpec,
    *,
    case_id: str,
    section: Section = "restained",
    landmarks: Landmarks | None = None,
    accepted: Literal["yes", "no"] | None = None,
) -> Registration:
    """Bring the IHC slide onto the H&E slide.

    Args:
        he: The fixed slide.
        ihc: The moving slide.
        spec: The chain and its settings.
        case_id: For errors.
        section: The same section stained again, or the next: what is fitted and which limits hold.
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
    evidence = Evidence(likeness, stiff=stiff.similarity)
    status = judge_case(evidence, getattr(spec.gate, section), accepted=accepted)
    if status.failed:
        return Registration(None, None, status, summary, proposed=found)
    return Registration(found, inverse.transform, status, summary)


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
        return choose_start(pictures, judge, spec.search).transform
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
        update = refine_affine(judge.fixed, judge.moving, small.affine, free_scale=pictures.free_scale)
        found = Transform(update, pictures.mpp, pictures.mpp)
        if start.field_um is not None:
            # An affine after a field moves the whole field along.
            after = Transform(update @ np.linalg.inv(small.affine), pictures.mpp, pictures.mpp)
            size = (pictures.fixed.shape[1], pictures.fixed.shape[0])
            found = compose(after, small, a_size_px0=size)
        return pictures.large(found)
    if step == "elastic":
        return pictures.large(refine_elastic(judge.fixed, judge.moving, small, smoothness=spec.elastic.smoothness))
    if step == "simpleitk":
        from hepipe.registration.sitk import refine_simpleitk

        return pictures.large(
            refine_simpleitk(
                judge.fixed, judge.moving, small, threads=spec.threads, iterations=spec.simpleitk.iterations
            )
        )
    if step == "deeperhistreg":
        from hepipe.registration.dhr import refine_deeperhistreg

        return pictures.large(refine_deeperhistreg(pictures, small, spec, case_id=case_id))
    raise ValueError(f"no step {step!r}")


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
