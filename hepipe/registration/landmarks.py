"""Corresponding points of both slides: read from the sheet's files, checked, and a transform through them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.interpolate import RBFInterpolator

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform, identity
from hepipe.registration.formats import Listed, join_by_id, read_listed
from hepipe.registration.transform import from_mapping
from hepipe.specs.registration import LandmarksSpec

MIN_AFFINE = 6
"""Fewer points than this give a similarity: an affine would follow their errors."""
MIN_SPLINE = 15
"""Fewer give no thin-plate spline."""
SAME_PX0 = 0.5
"""Points nearer than this are one point."""
LINE_RATIO = 0.05
"""Points whose spread across is below this share of their spread along lie on a line."""
OUTLIER = 5.0
"""A pair is pointed out when the others place it further off than this many times their own median residual, and
1 % of the slide's diagonal. Of the 80 landmarks of four lung pairs the furthest lie 2.8 to 3.3 medians off, one 5.4."""

EXCHANGED_FRAC = 0.25
"""More pairs than this with a point off its slide, and few when exchanged: the columns are. Fewer are a slip."""

Unit = Literal["auto", "px", "um", "mm"]
Side = Literal["he", "ihc"]


@runtime_checkable
class Extent(Protocol):
    """What of a slide places a point on it: an open slide and its checked facts alike."""

    @property
    def size_px0(self) -> tuple[int, int]:
        """Width and height at level 0."""

    @property
    def mpp(self) -> float:
        """µm per px at level 0."""


@dataclass(frozen=True)
class Landmarks:
    """Points (x, y) in px0 of both slides; row i of one belongs to row i of the other.

    Attributes:
        he_px0: On the H&E slide.
        ihc_px0: On the IHC slide.
        notes: What was left out on reading.
    """

    he_px0: Float[np.ndarray, "n 2"]
    ihc_px0: Float[np.ndarray, "n 2"]
    notes: tuple[str, ...] = ()


def read_landmarks(
    case_id: str,
    files: str,
    *,
    he: Extent | None = None,
    ihc: Extent | None = None,
    unit: Unit = "auto",
    fixed: Side = "he",
) -> Landmarks:
    """Landmarks of a case.

    Args:
        case_id: Named in errors, which hold no file name.
        files: One file of pairs or `HE;IHC`, two files of points; see `formats`.
        he: The H&E slide; needed for pairs in a physical unit (BigWarp).
        ihc: The IHC slide.
        unit: Of BigWarp's numbers. auto: the one in which all points lie on both slides, when there is just one.
        fixed: Which slide was BigWarp's fixed picture.

    Raises:
        RegistrationError: Missing, of other columns, contradictory, in an unknown unit, or fewer than three pairs.
    """
    paths = [Path(part.strip()) for part in files.split(";")]
    listed = [read_listed(case_id, path) for path in paths]
    if len(listed) == 2:
        pairs, notes = _pair(case_id, listed[0], listed[1])
    elif len(listed) == 1:
        if not listed[0].is_pairs:
            raise RegistrationError(
                case_id,
                "landmarks: no column x_he and only one slide's points in the file; give both, `HE;IHC`, or a table "
                "of x_he,y_he,x_ihc,y_ihc",
            )
        pairs, notes = listed[0].points, listed[0].notes
    else:
        raise RegistrationError(case_id, f"landmarks: one or two files expected, {len(paths)} given")
    values = np.array(list(pairs.values()), dtype=float).reshape(-1, 4)
    if listed[0].format == "bigwarp":
        values = values if fixed == "he" else values[:, [2, 3, 0, 1]]
        values = values * _px_per_unit(case_id, values, he, ihc, unit)
    values, dropped = _without_repeats(case_id, values)
    if len(values) < 3:
        raise RegistrationError(
            case_id, f"landmarks: {len(values)} pairs found, at least 3 expected; add some on `hepipe landmarks page`"
        )
    return Landmarks(values[:, :2], values[:, 2:], (*notes, *dropped))


def check_landmarks(
    case_id: str, landmarks: Landmarks, *, he: Extent, ihc: Extent, ihc_from_he: Transform | None = None
) -> list[str]:
    """What a person should know of landmarks that can be used; empty when nothing.

    Args:
        case_id: For errors.
        landmarks: In px0.
        he: The H&E slide.
        ihc: The IHC slide.
        ihc_from_he: A registration that was found without the landmarks, when there is one.

    Raises:
        RegistrationError: The columns of both slides are exchanged, or points lie far outside their slide.
    """
    straight = (landmarks.he_px0, landmarks.ihc_px0)
    outside = [_outside(points, slide) for points, slide in zip(straight, (he, ihc), strict=True)]
    exchanged = [_outside(points, slide) for points, slide in zip(straight[::-1], (he, ihc), strict=True)]
    astray, astray_exchanged = (float(np.any(np.array(both) > 0, axis=0).mean()) for both in (outside, exchanged))
    if astray > EXCHANGED_FRAC and 3 * astray_exchanged < astray:
        raise RegistrationError(case_id, _EXCHANGED.format("points lie outside their own slide and on the other one"))
    notes = list(landmarks.notes)
    for name, far in zip(("H&E", "IHC"), outside, strict=True):
        if (far > 1).any():
            raise RegistrationError(
                case_id,
                f"landmarks: pair {int(far.argmax()) + 1} lies {far.max():.1f} slide sizes outside the {name} slide; "
                "px of its largest level are expected, from the corner of the area that holds pixels",
            )
        if (far > 0).any():
            notes.append(f"landmarks: {int((far > 0).sum())} of {len(far)} points lie outside the {name} slide")
    he_um, ihc_um = landmarks.he_px0 * he.mpp, landmarks.ihc_px0 * ihc.mpp
    notes += _check_scale(case_id, landmarks, he_um, ihc_um, he, ihc)
    diagonal_um = float(np.hypot(*ihc.size_px0)) * ihc.mpp
    if ihc_from_he is not None:
        notes += _check_against(case_id, landmarks, ihc_from_he, diagonal_um)
    if len(he_um) < MIN_AFFINE:
        notes.append(
            f"landmarks: {len(he_um)} pairs give a similarity only; {MIN_AFFINE} an affine, {MIN_SPLINE} a spline"
        )
    if _on_a_line(he_um) or _on_a_line(ihc_um):
        notes.append("landmarks: all points lie near one line; place some beside it")
    if len(he_um) > 3:
        off, typical = residuals_left_out(he_um, ihc_um)
        limits = np.maximum(OUTLIER * typical, 0.01 * diagonal_um)
        notes += [
            f"landmarks: pair {number} lies {value:.0f} µm from where the others place it; look at it again"
            for number, (value, limit) in enumerate(zip(off, limits, strict=True), start=1)
            if value > limit
        ]
    return notes


def fit_landmarks(
    landmarks: Landmarks,
    *,
    he_size_px0: tuple[int, int],
    he_mpp: float,
    ihc_mpp: float,
    grid_um: float,
    spec: LandmarksSpec = LandmarksSpec(),  # noqa: B008 (frozen)
    case_id: str = "case",
) -> Transform:
    """The transform that landmarks ask for: similarity, affine or thin-plate spline, by how many there are.

    Args:
        landmarks: The pairs.
        he_size_px0: Width and height of the H&E slide.
        he_mpp: µm per px of its level 0.
        ihc_mpp: µm per px of the IHC slide's level 0.
        grid_um: Spacing of the spline's field.
        spec: Which of the three, and the spline's smoothing.
        case_id: For errors.

    Raises:
        RegistrationError: All points of a slide lie in one place, or on a line where more than a similarity is asked
            for.
    """
    he, ihc = landmarks.he_px0 * he_mpp, landmarks.ihc_px0 * ihc_mpp
    kind = _kind(case_id, spec.kind, he, ihc)
    affine = fit_similarity(he, ihc) if kind == "similarity" else fit_affine(he, ihc)
    px0 = np.diag([1 / ihc_mpp, 1 / ihc_mpp, 1.0]) @ affine @ np.diag([he_mpp, he_mpp, 1.0])
    if kind != "spline":
        return Transform(px0, he_mpp, ihc_mpp)
    spread = float(np.std(he))
    spline = RBFInterpolator(he / spread, ihc, kernel="thin_plate_spline", smoothing=spec.smoothing / len(he))
    return from_mapping(
        lambda points: spline(points * he_mpp / spread) / ihc_mpp,
        px0,
        fixed_size_px0=he_size_px0,
        fixed_mpp=he_mpp,
        moving_mpp=ihc_mpp,
        grid_um=grid_um,
    )


def residuals_left_out(
    source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """How far each target lies from where the other pairs put it, and how well those others agree (median).

    By an affine, by a similarity below `MIN_AFFINE` pairs; the others' residuals are enlarged by the freedom that the
    fit took from them.
    """
    few = len(source) < MIN_AFFINE
    off, typical = np.empty(len(source)), np.empty(len(source))
    for place in range(len(source)):
        others = np.arange(len(source)) != place
        matrix = (fit_similarity if few else fit_affine)(source[others], target[others])
        error = np.linalg.norm(source @ matrix[:2, :2].T + matrix[:2, 2] - target, axis=1)
        free = max(1 - (2 if few else 3) / (len(source) - 1), 0.25)
        off[place], typical[place] = error[place], np.median(error[others]) / math.sqrt(free)
    return off, typical


def fit_similarity(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "3 3"]:
    """Least squares rotation, scale and shift; mirrored when that fits better (Umeyama, PAMI 1991)."""
    best: np.ndarray | None = None
    least = np.inf
    for flip in (np.eye(2), np.diag([-1.0, 1.0])):
        a, b = source @ flip - (source @ flip).mean(axis=0), target - target.mean(axis=0)
        u, values, vt = np.linalg.svd(b.T @ a)
        sign = np.diag([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
        scale = float((values * np.diag(sign)).sum() / max((a**2).sum(), 1e-12))
        linear = scale * u @ sign @ vt @ flip
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = target.mean(axis=0) - linear @ source.mean(axis=0)
        error = float(((source @ linear.T + matrix[:2, 2] - target) ** 2).sum())
        if error < least * (1 - 1e-9):
            best, least = matrix, error
    assert best is not None
    return best


def fit_affine(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "3 3"]:
    """Least squares affine."""
    design = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    matrix = np.eye(3)
    matrix[:2] = solution.T
    return matrix


_EXCHANGED = "landmarks: the columns of H&E and IHC seem exchanged ({}); exchange them, H&E stands first"


def _kind(
    case_id: str, asked: str, he: Float[np.ndarray, "n 2"], ihc: Float[np.ndarray, "n 2"]
) -> Literal["similarity", "affine", "spline"]:
    if max(np.ptp(he, axis=0).max(), np.ptp(ihc, axis=0).max()) == 0:
        raise RegistrationError(case_id, "landmarks: all points lie in one place; spread them over the tissue")
    line = _on_a_line(he) or _on_a_line(ihc)
    if asked == "auto":
        if line or len(he) < MIN_AFFINE:
            return "similarity"
        return "affine" if len(he) < MIN_SPLINE else "spline"
    if asked == "similarity":
        return "similarity"
    if line:
        raise RegistrationError(
            case_id, f"landmarks: all points lie near one line, which no {asked} follows; place some beside it"
        )
    # Three points fit any affine exactly, so that a misplaced one would not be seen.
    if len(he) < 4:
        raise RegistrationError(
            case_id, f"landmarks: {len(he)} pairs for {asked}, at least 4 expected; add some or ask for a similarity"
        )
    return "affine" if asked == "affine" else "spline"


def _pair(case_id: str, he: Listed, ihc: Listed) -> tuple[dict[str, tuple[float, ...]], tuple[str, ...]]:
    for name, one in (("first", he), ("second", ihc)):
        if one.is_pairs:
            raise RegistrationError(
                case_id, f"landmarks: the {name} of two files holds pairs already; give it alone, or one file a slide"
            )
    if he.by_order and ihc.by_order and len(he.points) != len(ihc.points):
        raise RegistrationError(
            case_id,
            f"landmarks: {len(he.points)} points without names on the H&E and {len(ihc.points)} on the IHC; give "
            "partners the same name",
        )
    pairs, notes = join_by_id(he.points, ihc.points)
    if not pairs:
        raise RegistrationError(
            case_id,
            f"landmarks: none of {len(he.points)} H&E and {len(ihc.points)} IHC points have the same id; give partners "
            "the same name",
        )
    paired = (f"{len(pairs)} points without names were paired by their order",) if he.by_order else ()
    return pairs, (*he.notes, *ihc.notes, *notes, *paired)


def _without_repeats(case_id: str, values: Float[np.ndarray, "n 4"]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each pair once; a point with two partners is a contradiction."""
    kept: list[int] = []
    for place, row in enumerate(values):
        same = None
        for other in kept:
            near = [math.dist(row[at : at + 2], values[other, at : at + 2]) < SAME_PX0 for at in (0, 2)]
            if any(near) and not all(near):
                slide = "H&E" if near[0] else "IHC"
                raise RegistrationError(
                    case_id,
                    f"landmarks: pairs {other + 1} and {place + 1} are one point on the {slide} and two on the other "
                    "slide; delete one of them",
                )
            same = other if all(near) else same
        if same is None:
            kept.append(place)
    repeats = len(values) - len(kept)
    return values[kept], ((f"{repeats} pairs stand twice and were taken once",) if repeats else ())


def _px_per_unit(
    case_id: str, values: Float[np.ndarray, "n 4"], he: Extent | None, ihc: Extent | None, unit: Unit
) -> Float[np.ndarray, " 4"]:
    """What turns BigWarp's numbers into px0: it writes the unit of its pictures, px, µm or (Warpy) mm."""
    if unit == "px":
        return np.ones(4)
    if he is None or ihc is None:
        raise RegistrationError(case_id, "landmarks: BigWarp's CSV needs the slides; use `hepipe landmarks import`")
    factors = {
        name: np.repeat([factor / slide.mpp if factor else 1.0 for slide in (he, ihc)], 2)
        for name, factor in (("px", 0.0), ("um", 1.0), ("mm", 1000.0))
    }
    if unit != "auto":
        return factors[unit]
    fits = [name for name, factor in factors.items() if _covers(values * factor, he, ihc)]
    if len(fits) == 1:
        return factors[fits[0]]
    if fits:
        problem = f"may be {' or '.join(fits)}"
    else:
        problem = "do not lie on the slides, be they px, µm or mm; if the H&E was the moving picture, say --fixed ihc"
    raise RegistrationError(
        case_id, f"landmarks: BigWarp's numbers {problem}; name the CSV of `hepipe landmarks import --unit …`"
    )


def _covers(px0: Float[np.ndarray, "n 4"], he: Extent, ihc: Extent) -> bool:
    """Whether points lie on both slides and spread over more than a speck of them."""
    for points, slide in ((px0[:, :2], he), (px0[:, 2:], ihc)):
        size = np.array(slide.size_px0, float)
        if (points < -0.02 * size).any() or (points > 1.02 * size).any():
            return False
        if np.hypot(*np.ptp(points, axis=0)) < 0.03 * np.hypot(*size):
            return False
    return True


def _outside(points: Float[np.ndarray, "n 2"], slide: Extent) -> Float[np.ndarray, " n"]:
    """How far points lie outside a slide, as a share of its size; 0 inside and up to 1 px beyond."""
    size = np.array(slide.size_px0, float)
    beyond = np.maximum(np.maximum(-points, points - size) - 1.0, 0)
    far: np.ndarray = (beyond / size).max(axis=1)
    return far


def _check_scale(
    case_id: str,
    landmarks: Landmarks,
    he_um: Float[np.ndarray, "n 2"],
    ihc_um: Float[np.ndarray, "n 2"],
    he: Extent,
    ihc: Extent,
) -> list[str]:
    def scale(source: np.ndarray, target: np.ndarray) -> float:
        return math.sqrt(abs(float(np.linalg.det(fit_similarity(source, target)[:2, :2]))))

    straight = scale(he_um, ihc_um)
    turned = scale(landmarks.ihc_px0 * he.mpp, landmarks.he_px0 * ihc.mpp)
    if straight <= 0 or turned <= 0:
        raise RegistrationError(case_id, "landmarks: all points lie in one place; spread them over the tissue")
    off, off_turned = abs(math.log(straight)), abs(math.log(turned))
    if off <= math.log(1.25):
        return []
    if off_turned < min(off / 2, math.log(1.25)):
        raise RegistrationError(
            case_id, _EXCHANGED.format(f"sizes differ {straight:.2f}-fold as they stand, {turned:.2f}-fold exchanged")
        )
    return [f"landmarks: the IHC is {straight:.2f} times as large as the H&E by them; is the mpp of both slides right?"]


def _check_against(case_id: str, landmarks: Landmarks, found: Transform, diagonal_um: float) -> list[str]:
    def off(source: np.ndarray, target: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(found(source) - target, axis=1))) * found.moving_mpp

    straight, turned = off(landmarks.he_px0, landmarks.ihc_px0), off(landmarks.ihc_px0, landmarks.he_px0)
    if 3 * turned < straight and turned < 0.02 * diagonal_um:
        raise RegistrationError(
            case_id,
            _EXCHANGED.format(f"{straight:.0f} µm from the registration as they stand, {turned:.0f} µm exchanged"),
        )
    still = identity(fixed_mpp=found.fixed_mpp, moving_mpp=found.moving_mpp)
    before = float(np.median(np.linalg.norm(still(landmarks.he_px0) - landmarks.ihc_px0, axis=1))) * found.moving_mpp
    if straight > 0.05 * diagonal_um and straight > before:
        return [
            f"landmarks: they lie {straight:.0f} µm (median) from the registration, {before:.0f} µm from none at all"
        ]
    return []


def _on_a_line(points: Float[np.ndarray, "n 2"]) -> bool:
    along, across = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[:2]
    return bool(across < LINE_RATIO * along)
