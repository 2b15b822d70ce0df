"""Refinement beyond an overview: residual shifts of windows of the slides themselves, fitted by a smooth field.

Coarse to fine, each level looks at the IHC slide through the field so far. A window's shift becomes the place of its
texture on the IHC slide, and the field is fitted to those places anew at every level: nothing is resampled or composed,
and what the start made up where there is nothing to compare (lost tissue) does not survive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from scipy.spatial import cKDTree

from hepipe.geometry import Transform, apply_affine
from hepipe.registration.planes import Density, Plane, stain_density, total_density
from hepipe.registration.smooth import fit_spline, unfold
from hepipe.registration.transform import from_mapping
from hepipe.registration.windows import Level, Shifts, agree_with_neighbours, measure, scatter_um
from hepipe.slides.reader import Slide
from hepipe.specs.registration import RefineSpec, Section
from hepipe.specs.stains import StainsSpec

GRID_UM = 16.0
"""Spacing of the field, about. Warps of 150 µm over 2 mm are bent by 1.5e-3 per µm: straight lines between grid points
are then off by 0.05 µm at most, at 32 µm by 0.2."""
BLOCK_PX = 1536
"""Side of what is compared at once, px of a level: about 100 MB with all that is made of it."""
CACHE_BYTES = 64_000_000
"""Per slide, of one level's tiles: 16 mm² at 0.5 µm per px."""
MIN_TISSUE = 0.1
"""Share of a window's stride that is tissue."""
MIN_KEPT = 0.3
"""A level of which fewer windows agree says nothing, and ends the refinement. Of a wrong pair's windows 5 % (restained)
and 18 % (consecutive) agreed on the first level, of true pairs' 75 to 100 %."""
FAR_UM = 400.0
"""Where no accepted window is nearer than this, the field so far holds on, or a piece without a partner would run off
on the slope of its neighbour."""
FAR_WEIGHT = 0.05
CLOSE_UM = 40.0
"""As near as this to an accepted window the field is measured."""
BRIDGE_UM = 150.0
"""As near as this, with accepted windows on all four sides, it is interpolated; beyond the last one, extrapolated."""
SIDES_UM = 240.0
"""How far a side reaches."""
MIN_AGREEMENT = 0.5
"""Share of the windows with a clear peak around a place that must agree with the field."""
MIN_SUPPORT = 0.3
"""The same of all windows: by chance up to a tenth of windows without a partner agree."""
MAX_NOISE_UM = {"restained": 0.7, "consecutive": 7.0}
"""Largest scatter of neighbouring windows that still pins the field down to 1 µm; consecutive sections: to about 5."""


@dataclass(frozen=True)
class Plan:
    """What one level does, in µm.

    Attributes:
        mpp: About; a power of two times level 0 of the H&E is used.
        window: Side.
        stride: Between windows, and between the control points of the fit.
        search: Largest shift.
        smoothness: Of the fit, against one measurement per control point.
        min_peak: Least correlation of a window that counts.
        min_lead: Least lead over the second best place.
    """

    mpp: float
    window: float
    stride: float
    search: float
    smoothness: float
    min_peak: float = 0.15
    min_lead: float = 0.03


PLANS: dict[Section, tuple[Plan, ...]] = {
    # Tuned on one drawn pair and three made of a real scan. The search of each level is several times what the level
    # before leaves; the smoothness is as low as noise allows, ten times more or less changes little.
    "restained": (
        Plan(4.0, 384.0, 128.0, 96.0, 0.01),
        Plan(2.0, 192.0, 96.0, 32.0, 0.01),
        Plan(2.0, 128.0, 64.0, 16.0, 0.003),
        Plan(2.0, 128.0, 48.0, 8.0, 0.003),
        Plan(1.0, 96.0, 48.0, 8.0, 0.003),
        Plan(0.5, 64.0, 48.0, 3.0, 0.01),
    ),
    "consecutive": (
        Plan(8.0, 512.0, 128.0, 96.0, 1.0),
        Plan(4.0, 256.0, 128.0, 32.0, 0.3),
    ),
}


STIFF = Plan(8.0, 768.0, 256.0, 192.0, 0.03)
"""Before the others where the start has no field: sections bend by up to 150 µm. On a small piece the few windows of
this level can be worse than a start that was bent already."""


@dataclass(frozen=True)
class Refinement:
    """What came of it.

    Attributes:
        transform: `ihc_from_he`; the start itself where nothing could be refined.
        residuals: A row per window of the last level: he_x_um, he_y_um, dx_um, dy_um (what remains after the final
            field, µm of the IHC; nan where nothing was found), peak (nan likewise), kept (0/1), level_mpp.
        trust: 1 where accepted windows support the field, on its grid; None for a start without a field.
        summary: `levels`, `stains` and, where it ended early, `skipped` with the reason.
    """

    transform: Transform
    residuals: Float32[np.ndarray, "n 7"]
    trust: UInt8[np.ndarray, "h w"] | None
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fit:
    """A level's result: the field, and which windows it follows."""

    transform: Transform
    shifts: Shifts
    clear: Bool[np.ndarray, " n"]
    kept: Bool[np.ndarray, " n"]
    left_um: Float[np.ndarray, "n 2"]
    smoothed: Bool[np.ndarray, "h w"]
    record: dict[str, Any]


def refine_windows(
    he: Slide,
    ihc: Slide,
    start: Transform,
    spec: RefineSpec,
    *,
    section: Section,
    tissue: Bool[np.ndarray, "h w"],
    tissue_mpp: float,
    workers: int = 1,
) -> Refinement:
    """The start, corrected by what windows of both slides say.

    Args:
        he: The fixed slide.
        ihc: The moving slide.
        start: `ihc_from_he`, right to about 90 µm in most places, 180 where it is an affine.
        spec: The finest resolution.
        section: Restained: nuclei are the same. Consecutive: only shapes are.
        tissue: On the H&E slide, where to look; from its corner.
        tissue_mpp: µm per px of `tissue`.
        workers: Threads; no part of the result.

    Raises:
        SlideError: Pixels that do not decode.
    """
    finest = max(spec.mpp, he.mpp, ihc.mpp) * 0.9
    bent = start.field_um is not None
    plans = [plan for plan in (PLANS[section] if bent else (STIFF, *PLANS[section])) if plan.mpp >= finest]
    if not plans:
        coarsest = max(plan.mpp for plan in PLANS[section])
        return _skipped(
            start, f"the slides' level 0 ({max(he.mpp, ihc.mpp):g} µm per px) or mpp is coarser than {coarsest:g}"
        )
    if not tissue.any():
        return _skipped(start, "no tissue")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # threads over blocks instead
    try:
        return _refine(he, ihc, start, plans, section=section, tissue=(tissue, tissue_mpp), workers=workers)
    finally:
        cv2.setNumThreads(threads)


def _refine(
    he: Slide,
    ihc: Slide,
    start: Transform,
    plans: Sequence[Plan],
    *,
    section: Section,
    tissue: tuple[np.ndarray, float],
    workers: int,
) -> Refinement:
    grid_um = he.mpp * 2 ** max(0, round(math.log2(GRID_UM / he.mpp)))
    found = from_mapping(
        start, start.affine, fixed_size_px0=he.size_px0, fixed_mpp=he.mpp, moving_mpp=ihc.mpp, grid_um=grid_um
    )
    densities, stains = _densities(he, ihc, found, tissue, section)
    summary: dict[str, Any] = {"levels": [], "stains": stains}
    last: _Fit | None = None
    reason = ""
    planes: dict[int, tuple[Plane, Plane]] = {}
    for plan in plans:
        level = _level(plan, he.mpp, grid_um)
        places = _places(tissue, level, he)
        if len(places) == 0:
            return _skipped(start, "no tissue", summary)
        if level.step not in planes:
            steps = level.step, max(1, round(level.mpp / ihc.mpp))
            made = [
                Plane(slide, density, step=step, cache_bytes=CACHE_BYTES)
                for slide, density, step in zip((he, ihc), densities, steps, strict=True)
            ]
            planes = {level.step: (made[0], made[1])}  # the level before gives its tiles back
        shifts = measure(*planes[level.step], found, level, places, block_px=BLOCK_PX, workers=workers)
        fit = _fit(found, shifts, plan, level, size_um=(he.size_px0[0] * he.mpp, he.size_px0[1] * he.mpp))
        if fit is None:
            reason = f"less than {MIN_KEPT:.0%} of the windows at {level.mpp:g} µm per px agree with each other"
            if last is None:
                # A small piece has few wide windows; a good start needs none of them.
                continue
            break
        found, last, reason = fit.transform, fit, ""
        summary["levels"].append(fit.record)
    if last is None:
        return _skipped(start, reason, summary)
    if reason:
        summary["skipped"] = reason
    residuals = np.full((len(last.shifts.peak), 7), np.nan, np.float32)
    residuals[:, :2] = last.shifts.at_um
    residuals[:, 2:4] = last.left_um
    residuals[:, 4] = last.shifts.peak
    residuals[:, 5] = last.kept
    residuals[:, 6] = summary["levels"][-1]["mpp"]
    trust = _trust(last, grid_um, max_noise_um=MAX_NOISE_UM[section])
    return Refinement(found, residuals, trust, summary)


def _skipped(start: Transform, reason: str, summary: dict[str, Any] | None = None) -> Refinement:
    trust = None if start.field_um is None else np.zeros(start.field_um.shape[1:], np.uint8)
    return Refinement(start, np.zeros((0, 7), np.float32), trust, {**(summary or {"levels": []}), "skipped": reason})


def _fit(found: Transform, shifts: Shifts, plan: Plan, level: Level, *, size_um: tuple[float, float]) -> _Fit | None:
    """A new field through the windows' partners; None when too few windows agree."""
    clear = (np.nan_to_num(shifts.peak) >= plan.min_peak) & (np.nan_to_num(shifts.lead) >= plan.min_lead)
    kept = agree_with_neighbours(shifts, clear, tolerance_um=0.5 * level.mpp)
    if kept.sum() < max(3.0, MIN_KEPT * len(kept)):
        return None
    he_mpp, ihc_mpp = found.fixed_mpp, found.moving_mpp
    stride_um = level.stride_px * level.mpp

    def from_affine(at_um: np.ndarray, shift_um: np.ndarray) -> np.ndarray:
        at = at_um / he_mpp
        moved: np.ndarray = (found(at + shift_um / he_mpp) - apply_affine(found.affine, at)) * ihc_mpp
        return moved

    wanted = from_affine(shifts.at_um[kept], shifts.shift_um[kept])
    far = cKDTree(shifts.at_um[kept]).query(shifts.at_um)[0] > FAR_UM
    far &= ~kept
    still = from_affine(shifts.at_um[far], np.zeros((int(far.sum()), 2)))
    spline, belief = fit_spline(
        np.concatenate([shifts.at_um[kept], shifts.at_um[far]]),
        np.concatenate([wanted, still]),
        np.concatenate([shifts.peak[kept] ** 2, np.full(len(still), FAR_WEIGHT)]),
        domain=shifts.at_um,
        size=size_um,
        spacing=stride_um,
        smoothness=plan.smoothness,
        noise=0.25 * level.mpp,
    )
    assert found.field_um is not None
    shape = (found.field_um.shape[1], found.field_um.shape[2])
    total = spline.on_grid(shape, found.grid_um)
    linear = found.affine[:2, :2] * (ihc_mpp / he_mpp)
    total, smoothed = unfold(total, linear, grid=found.grid_um)
    # The values that a store keeps.
    made = Transform(found.affine, he_mpp, ihc_mpp, total.astype(np.float32).astype(np.float64), found.grid_um)
    has = ~np.isnan(shifts.peak)
    left = np.full((len(kept), 2), np.nan)
    at = shifts.at_um[has] / he_mpp
    left[has] = (found(at + shifts.shift_um[has] / he_mpp) - made(at)) * ihc_mpp
    believed = kept.copy()
    believed[kept] = belief[: int(kept.sum())] > 0
    if believed.sum() < MIN_KEPT * len(kept):
        return None
    step = np.linalg.norm(shifts.shift_um[kept], axis=1)
    record = {
        "mpp": level.mpp,
        "windows": len(kept),
        "clear": int(clear.sum()),
        "kept": int(believed.sum()),
        "moved_um": float(np.median(step)),
        "left_um": float(np.median(np.linalg.norm(left[believed], axis=1))),
        "unfolded_frac": float(smoothed.mean()),
    }
    return _Fit(made, shifts, clear, believed, left, smoothed, record)


def _trust(fit: _Fit, grid_um: float, *, max_noise_um: float) -> UInt8[np.ndarray, "h w"]:
    """1 where the field is measured or bridged, most windows around agree, and neighbours scatter little."""
    shape = fit.smoothed.shape
    at = np.clip(np.floor(fit.shifts.at_um / grid_um).astype(int), 0, np.array(shape[::-1]) - 1)

    def spread(chosen: Bool[np.ndarray, " n"], values: Float[np.ndarray, " m"] | float = 1.0) -> np.ndarray:
        plane = np.zeros(shape, np.float32)
        np.add.at(plane, (at[chosen, 1], at[chosen, 0]), values)
        return plane

    def around(plane: np.ndarray, side: int, anchor: tuple[int, int] = (-1, -1)) -> np.ndarray:
        total: np.ndarray = cv2.boxFilter(
            plane, -1, (side, side), anchor=anchor, normalize=False, borderType=cv2.BORDER_CONSTANT
        )
        return total

    agreed = spread(fit.kept)
    distance_um = cv2.distanceTransform((agreed == 0).astype(np.uint8), cv2.DIST_L2, 5) * grid_um
    reach = round(SIDES_UM / grid_um) + 1
    ends = (0, reach - 1)
    enclosed = np.all([around(agreed, reach, (x, y)) > 0.5 for x in ends for y in ends], axis=0)
    side = 2 * round(BRIDGE_UM / grid_um) + 1
    least = np.maximum(
        MIN_AGREEMENT * around(spread(fit.clear), side), MIN_SUPPORT * around(spread(np.ones_like(fit.kept)), side)
    )
    supported = around(agreed, side) >= np.maximum(least, 2.5) - 1e-3
    scatter = scatter_um(fit.shifts, fit.kept)
    known = ~np.isnan(scatter)
    noise = np.sqrt(around(spread(known, scatter[known] ** 2), side) / np.maximum(around(spread(known), side), 1.0))
    measured = (distance_um <= CLOSE_UM) | (distance_um <= BRIDGE_UM) & enclosed
    trusted: np.ndarray = measured & supported & (noise <= max_noise_um) & ~fit.smoothed
    return trusted.astype(np.uint8)


def _level(plan: Plan, he_mpp: float, grid_um: float) -> Level:
    """A plan in whole px, windows and strides in whole cells of the field's grid."""
    step = max(1, 2 ** round(math.log2(plan.mpp / he_mpp)))
    mpp = step * he_mpp
    cell = max(1, round(grid_um / mpp))
    window = max(1, round(plan.window / mpp / cell / 2)) * 2 * cell
    stride = max(2, round(plan.stride / mpp / cell)) * cell
    return Level(step, mpp, window, stride - stride % 2, math.ceil(plan.search / mpp))


def _places(tissue: tuple[np.ndarray, float], level: Level, he: Slide) -> Int[np.ndarray, "n 2"]:
    """Column and row of each window whose stride holds tissue, in the lattice of the level."""
    mask, mpp = tissue
    stride = level.stride_px * level.mpp
    columns, rows = (math.ceil(side * he.mpp / stride) for side in he.size_px0)
    y, x = np.nonzero(mask)
    # Each px of the mask counts for the stride that holds its centre.
    column = np.minimum(((x + 0.5) * mpp / stride).astype(np.int64), columns - 1)
    row = np.minimum(((y + 0.5) * mpp / stride).astype(np.int64), rows - 1)
    count = np.bincount(row * columns + column, minlength=rows * columns)
    share = count * (mpp / stride) ** 2
    chosen = np.flatnonzero(share >= MIN_TISSUE)
    return np.stack([chosen % columns, chosen // columns], axis=1)


def _densities(
    he: Slide, ihc: Slide, start: Transform, tissue: tuple[np.ndarray, float], section: Section
) -> tuple[tuple[Density, Density], dict[str, Any]]:
    """What both slides share, and how it was found."""
    mask, mpp = tissue
    rows, columns = np.nonzero(mask)
    he_px0 = (np.stack([columns, rows], axis=1) + 0.5) * (mpp / he.mpp)
    if section == "consecutive":
        return (total_density(he), total_density(ihc)), {}
    spec = StainsSpec()
    he_density, he_found = stain_density(he, he_px0, stain="he", spec=spec)
    ihc_density, ihc_found = stain_density(ihc, start(he_px0), stain="ihc", spec=spec)
    return (he_density, ihc_density), {"he": he_found, "ihc": ihc_found}
