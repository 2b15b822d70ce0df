"""The registration of one case: its pieces, a chain of steps, each kept only when it helps, evidence and a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform, identity
from hepipe.registration.affine import refine_affine
from hepipe.registration.elastic import SCALES_PX, STEPS, refine_elastic
from hepipe.registration.landmarks import Landmarks, check_landmarks, fit_landmarks
from hepipe.registration.overview import Pictures, faint_features, read_pictures
from hepipe.registration.pieces import STAINS, Pieces, mask_out, match_pieces, relabel
from hepipe.registration.refine import refine_windows
from hepipe.registration.scale import scale_doubt, scale_suspicion
from hepipe.registration.score import Judge, Likeness, landmark_error, residual_summary
from hepipe.registration.search import choose_start
from hepipe.registration.transform import compose, implausible, invert
from hepipe.registration.verdict import Evidence, judge_case, notes
from hepipe.slides.reader import Slide
from hepipe.specs.registration import RegistrationSpec, Section, Step
from hepipe.status import CaseStatus

DEFORMABLE = frozenset({"elastic", "refine", "deeperhistreg", "simpleitk"})
ROUGH_PX = (128, 256)
FINE_MPP = 1.0
"""Slides at least this fine, of one section stained twice, are bent in the rough only where the refinement follows: its
windows see more than an overview. On drawn and real-texture pairs of 0.25 to 0.5 µm per px the end was the same."""
PIECE_FRAC = 0.05
"""Pieces of at least this share of the tissue are also judged each on its own: a chip may turn unseen by the whole."""
MISSING_FRAC = 0.25
"""A larger share of the H&E tissue without a partner is for a person to look at."""


@dataclass(frozen=True)
class Registration:
    """What came of a case; both transforms are None when it failed, and `proposed` is what the chain ended with."""

    ihc_from_he: Transform | None
    he_from_ihc: Transform | None
    status: CaseStatus
    summary: dict[str, Any] = field(default_factory=dict)
    proposed: Transform | None = None
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Case:
    """What every step may look at."""

    case_id: str
    he: Slide
    ihc: Slide
    section: Section
    spec: RegistrationSpec
    steps: tuple[Step, ...]
    pictures: Pictures
    judge: Judge
    landmarks: Landmarks | None


@dataclass(frozen=True)
class _Proposal:
    """What a step proposes: a transform between the slides, or None with the reason in the note.

    `is_sure` where better evidence than the likeness of two overviews stands behind it: a person's landmarks, or
    windows that agree down to the finest level, whose gain an overview does not show.
    """

    transform: Transform | None
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    is_sure: bool = False


@dataclass(frozen=True)
class _Chain:
    """A finished chain: where it ended, and what stood before the deformable steps."""

    found: Transform
    stiff: Transform
    steps: list[dict[str, Any]]
    evidence: Mapping[str, np.ndarray]


def register(
    he: Slide,
    ihc: Slide,
    spec: RegistrationSpec,
    *,
    case_id: str,
    section: Section = "restained",
    landmarks: Landmarks | None = None,
    pieces: str = "",
    from_landmarks: bool = False,
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
        pieces: A person's word on pieces of tissue, as in the sheet's column.
        from_landmarks: The landmarks take the place of the steps `search` and `affine`.
        accepted: A person's verdict: `yes` turns a review into ok, `no` fails the case.

    Raises:
        RegistrationError: A slide without tissue, unusable landmarks or pieces, or a chain that needs landmarks where
            there are none.
        ConfigError: A step needs a package that is not installed.
    """
    cv2.setNumThreads(spec.threads)
    if landmarks is not None:
        check_landmarks(case_id, landmarks, he=he, ihc=ihc)
    whole = read_pictures(he, ihc, max_px=spec.overview_px)
    matched = match_pieces(whole, pieces, case_id=case_id)
    pictures = mask_out(whole, matched)
    judge = Judge(pictures)
    for slide, shows in zip((he, ihc), judge.has_tissue, strict=True):
        if not shows:
            raise RegistrationError(case_id, f"no tissue found on {slide.slide_id}; look at the slide")
    steps: tuple[Step, ...] = getattr(spec.chain, section)
    if from_landmarks:
        steps = ("landmarks", *(step for step in steps if step not in ("search", "affine", "landmarks")))
    case = _Case(case_id, he, ihc, section, spec, steps, pictures, judge, landmarks)
    before = identity(fixed_mpp=he.mpp, moving_mpp=ihc.mpp)
    chain = _run(case, before)
    labelled = relabel(matched, whole, chain.found)
    if [labelled.out(stain) for stain in STAINS] != [matched.out(stain) for stain in STAINS]:
        # Tissue that turned out to have no partner speaks neither for nor against the rest.
        pictures = mask_out(whole, labelled)
        judge = Judge(pictures)
        case = dataclasses.replace(case, pictures=pictures, judge=judge)
    labelled = _with_leads(labelled, judge, chain.found)
    error = _landmark_report(case, chain.found)
    status, known = _verdict(case, chain, labelled, error, accepted=accepted)
    inverse = invert(chain.found, a_size_px0=he.size_px0, b_size_px0=ihc.size_px0)
    summary = {
        "section": section,
        "verdict": status.state,
        "unit": "px" if pictures.free_scale else "µm",
        "mpp": pictures.mpp,
        "chain": chain.steps,
        **_before_and_after(judge, before, chain.found),
        **known,
        "inverse_residual_um": [None if math.isnan(value) else value for value in inverse.residual_um],
        "landmarks": error,
        "pieces": labelled.records(),
    }
    evidence = {**chain.evidence, "pieces_he": labelled.he, "pieces_ihc": labelled.ihc}
    if status.failed:
        return Registration(None, None, status, summary, proposed=chain.found, evidence=evidence)
    return Registration(chain.found, inverse.transform, status, summary, evidence=evidence)


def _run(case: _Case, before: Transform) -> _Chain:
    """All steps of the chain, each from what the steps before it left."""
    found = stiff = before
    likeness = case.judge.score(found)
    steps: list[dict[str, Any]] = []
    evidence: Mapping[str, np.ndarray] = {}
    for step in case.steps:
        tried = _take(step, found, case)
        score = likeness if tried.transform is None else case.judge.score(tried.transform)
        problem = "" if tried.transform is None else _objection(tried, likeness, score)
        kept = tried.transform is not None and not problem
        steps.append(
            {
                "step": step,
                "score_before": likeness.similarity,
                "score_after": score.similarity,
                "kept": kept,
                "note": "; ".join(part for part in (problem, tried.note) if part),
                **tried.facts,
            }
        )
        if kept and tried.transform is not None:
            if tried.evidence or tried.transform is not found:
                # What an earlier step saw of its own field says nothing of this one.
                evidence = tried.evidence
            found, likeness = tried.transform, score
            if step not in DEFORMABLE:
                stiff = found
    return _Chain(found, stiff, steps, evidence)


def _take(step: Step, start: Transform, case: _Case) -> _Proposal:
    """What one step of the chain proposes."""
    spec, pictures, judge = case.spec, case.pictures, case.judge
    if step == "identity":
        return _Proposal(start)
    if step == "search":
        choice = choose_start(pictures, judge, spec.search)
        runner_up = None if math.isinf(choice.runner_up) else choice.runner_up
        return _Proposal(choice.transform, facts={"rank": choice.score, "runner_up": runner_up})
    if step == "landmarks":
        return _Proposal(_from_landmarks(case, start), is_sure=True)
    if step == "refine":
        return _refined(case, start)
    if step == "deeperhistreg":
        from hepipe.registration.dhr import register_deeperhistreg

        made = register_deeperhistreg(case.he, case.ihc, start, spec, case_id=case.case_id, pictures=pictures)
        return _Proposal(made.transform, made.note)
    small = pictures.small(start)
    if step == "affine":
        return _Proposal(pictures.large(_affine(case, small)))
    if step == "elastic":
        return _bent(case, small)
    from hepipe.registration.sitk import refine_simpleitk

    own = spec.simpleitk
    bent = refine_simpleitk(
        judge.fixed,
        judge.moving,
        small,
        threads=spec.threads,
        iterations=own.iterations,
        deformable=own.deformable,
    )
    return _Proposal(pictures.large(bent))


def _affine(case: _Case, small: Transform) -> Transform:
    pictures, judge = case.pictures, case.judge
    update = refine_affine(judge.fixed, judge.moving, small.affine, free_scale=pictures.free_scale)
    if small.field_um is None:
        return Transform(update, pictures.mpp, pictures.mpp)
    # An affine after a field moves the whole field along.
    after = Transform(update @ np.linalg.inv(small.affine), pictures.mpp, pictures.mpp)
    return compose(after, small, a_size_px0=(pictures.fixed.shape[1], pictures.fixed.shape[0]))


def _bent(case: _Case, small: Transform) -> _Proposal:
    pictures = case.pictures
    # Not the judge's features: their threshold takes faint walls for glass.
    fixed, moving = (faint_features(picture) for picture in (pictures.fixed, pictures.moving))
    is_fine = max(case.he.mpp, case.ihc.mpp) <= FINE_MPP and not pictures.free_scale
    rough = case.section == "restained" and is_fine and "refine" in case.steps[case.steps.index("elastic") :]
    scales_px = ROUGH_PX if rough else SCALES_PX
    made = refine_elastic(
        fixed,
        moving,
        small,
        smoothness=case.spec.elastic.smoothness,
        scales_px=scales_px,
        steps=STEPS[: len(scales_px)],
    )
    return _Proposal(pictures.large(made), f"to {ROUGH_PX[-1]} px, refinement follows" if rough else "")


def _from_landmarks(case: _Case, start: Transform) -> Transform:
    if case.landmarks is None:
        raise RegistrationError(case.case_id, "the chain has the step landmarks, but its row names no landmarks file")
    return fit_landmarks(
        case.landmarks,
        he_size_px0=case.he.size_px0,
        he_mpp=start.fixed_mpp,
        ihc_mpp=start.moving_mpp,
        grid_um=4 * case.pictures.mpp,
        spec=case.spec.landmarks,
        case_id=case.case_id,
    )


def _refined(case: _Case, start: Transform) -> _Proposal:
    made = refine_windows(
        case.he,
        case.ihc,
        start,
        case.spec.refine,
        section=case.section,
        tissue=case.judge.fixed[-1] > 0.5,
        tissue_mpp=case.pictures.mpp,
        workers=case.spec.threads,
    )
    skipped = made.summary.get("skipped", "")
    if not made.summary["levels"]:
        return _Proposal(None, f"skipped: {skipped}", {"refine": made.summary})
    evidence = {"residuals": made.residuals}
    if made.trust is not None:
        evidence["trust"] = made.trust
    note = f"stopped early: {skipped}" if skipped else ""
    return _Proposal(made.transform, note, {"refine": made.summary}, evidence, is_sure=not skipped)


def _objection(tried: _Proposal, before: Likeness, after: Likeness) -> str:
    """Why a step's result is dropped; empty when it is kept."""
    assert tried.transform is not None
    problem = implausible(tried.transform)
    if problem:
        return f"dropped: {problem}"
    if not tried.is_sure and after.similarity < before.similarity:
        return f"dropped: similarity fell from {before.similarity:.3f} to {after.similarity:.3f}"
    return ""


def _verdict(
    case: _Case,
    chain: _Chain,
    pieces: Pieces,
    error: Mapping[str, Any] | None,
    *,
    accepted: Literal["yes", "no"] | None,
) -> tuple[CaseStatus, dict[str, Any]]:
    """The verdict, and the evidence for it as the summary holds it."""
    judge, pictures, gate = case.judge, case.pictures, getattr(case.spec.gate, case.section)
    folds, pose = judge.folds(chain.found), _pose(chain.found, judge)
    residuals = residual_summary(chain.evidence.get("residuals"))
    evidence = Evidence(
        likeness=judge.score(chain.found),
        stiff=judge.score(chain.stiff).similarity,
        lead=judge.lead(chain.found),
        stiff_lead=judge.lead(chain.stiff),
        px_um=max(case.he.mpp, case.ihc.mpp),
        scale_doubt=scale_doubt(
            pose["scale"],
            gate,
            he_mpp=pictures.fixed_mpp,
            ihc_mpp=pictures.moving_mpp,
            local=judge.local_sizes(chain.found),
            are_known=not pictures.free_scale,
        ),
        fold_frac=folds["fold_frac"],
        # Limits in µm say nothing where a px has no known size.
        tre_um=None if error is None or pictures.free_scale else error["tre_um"],
        residuals=None if pictures.free_scale else residuals,
        unrefined=_unrefined(case, chain),
        followed=len(case.landmarks.he_px0) if case.landmarks is not None and "landmarks" in case.steps else 0,
        missing=_missing(pieces),
        leads={piece.name: piece.lead for piece in pieces.of("he") if piece.lead is not None},
    )
    status = judge_case(evidence, gate, accepted=accepted)
    if status.failed and accepted != "no":
        # The size that strangers are brought to says nothing; that they fit better at another size would.
        suspicion = scale_suspicion(pictures, judge, chain.found, case.spec.search, gate)
        evidence = dataclasses.replace(evidence, scale_doubt="" if suspicion is None else suspicion.text)
        status = judge_case(evidence, gate, accepted=accepted)
    known = {
        "stiff": evidence.stiff,
        "lead": None if math.isnan(evidence.lead) else evidence.lead,
        "stiff_lead": None if math.isnan(evidence.stiff_lead) else evidence.stiff_lead,
        **folds,
        **pose,
        "residuals": residuals,
        "notes": notes(mirrored=pose["mirrored"]),
    }
    return status, known


def _unrefined(case: _Case, chain: _Chain) -> str:
    """Why the last refinement of slides fine enough for one did not reach its end; empty when it did."""
    tried = [step for step in chain.steps if step["step"] == "refine"]
    if not tried or case.pictures.free_scale or max(case.he.mpp, case.ihc.mpp) > FINE_MPP:
        return ""
    return str(tried[-1]["note"])


def _before_and_after(judge: Judge, before: Transform, after: Transform) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for transform, suffix in ((before, "_before"), (after, "")):
        likeness = judge.score(transform)
        values = {"similarity": likeness.similarity, "tissue_dice": likeness.tissue_dice, **judge.shared(transform)}
        made |= {f"{name}{suffix}": value for name, value in values.items()}
    return made


def _landmark_report(case: _Case, found: Transform) -> dict[str, Any] | None:
    """Error with landmarks, and what a person should know of them; None without."""
    landmarks = case.landmarks
    if landmarks is None:
        return None
    # Held against a registration only where that did not follow them.
    against = None if "landmarks" in case.steps else found
    known = check_landmarks(case.case_id, landmarks, he=case.he, ihc=case.ihc, ihc_from_he=against)
    error = landmark_error(found, landmarks.he_px0, landmarks.ihc_px0, ihc_size_px0=case.ihc.size_px0)
    return {**error, "notes": known}


def _with_leads(pieces: Pieces, judge: Judge, found: Transform) -> Pieces:
    """The pieces with the lead of each large one of the H&E; of a single one it would be that of the whole."""
    matched = [piece for piece in pieces.of("he") if piece.role == "matched"]
    least = PIECE_FRAC * sum(piece.area_mm2 for piece in matched)
    large = [piece for piece in matched if piece.area_mm2 >= least]
    if len(matched) < 2:
        return pieces
    _, *leads = judge.piece_leads(found, pieces.he, [piece.number for piece in large])
    known = {piece.name: lead for piece, lead in zip(large, leads, strict=True) if not math.isnan(lead)}
    table = tuple(dataclasses.replace(piece, lead=known.get(piece.name)) for piece in pieces.table)
    return dataclasses.replace(pieces, table=table)


def _missing(pieces: Pieces) -> str:
    """Tissue of the H&E slide that the IHC slide lacks, in words; empty when it is little or a person said so."""
    every = sum(piece.area_mm2 for piece in pieces.of("he"))
    gone = [piece for piece in pieces.of("he") if piece.role == "missing" and piece.by == "found"]
    if sum(piece.area_mm2 for piece in gone) <= MISSING_FRAC * every:
        return ""
    return f"the IHC slide lacks {', '.join(piece.name for piece in gone)} of the H&E slide's pieces"


def _pose(transform: Transform, judge: Judge) -> dict[str, Any]:
    """Rotation, mirroring and size, for people."""
    a = transform.affine[:2, :2]
    mirrored = bool(a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0] < 0)
    sign = -1.0 if mirrored else 1.0
    return {
        "rotation_deg": math.degrees(math.atan2(a[1, 0] * sign, a[0, 0] * sign)),
        "mirrored": mirrored,
        "scale": judge.size(transform),
    }
