"""Residual shifts of windows: both planes in the frame of the H&E slide, block by block, and correlation of windows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from hepipe.geometry import Transform
from hepipe.parallel import in_order
from hepipe.registration.planes import Plane, touched

FINE_PX = 0.7
COARSE_PX = 10.0
"""Standard deviations of the band-pass, px of the level: scanner noise below, uneven staining above."""
EDGE_PX = 24
"""Read around a block beyond what is compared, so that the band-pass has settled."""
MIN_CONTRAST = 2.0
"""Standard deviation of a band-passed window, codes of a plane (1/160 OD): less is glass, folds of nothing."""


@dataclass(frozen=True)
class Level:
    """One pass over the tissue.

    Attributes:
        step: Px of level 0 of the H&E slide per px.
        mpp: µm per px.
        window_px: Side of a window; even.
        stride_px: Between windows, px.
        search_px: Largest shift looked for, px.
    """

    step: int
    mpp: float
    window_px: int
    stride_px: int
    search_px: int


@dataclass(frozen=True)
class Shifts:
    """What the windows of a level say; row i of each array is a window.

    Attributes:
        place: Column and row in the lattice of windows.
        at_um: Where the window's texture lies on the H&E slide, µm.
        shift_um: How far the partner lies from where the transform so far puts it, µm of the H&E slide; nan where
            nothing was found.
        peak: Correlation at the shift, -1 to 1.
        lead: Over the best one elsewhere.
    """

    place: Int[np.ndarray, "n 2"]
    at_um: Float[np.ndarray, "n 2"]
    shift_um: Float[np.ndarray, "n 2"]
    peak: Float[np.ndarray, " n"]
    lead: Float[np.ndarray, " n"]


def measure(
    fixed: Plane,
    moving: Plane,
    ihc_from_he: Transform,
    level: Level,
    places: Int[np.ndarray, "n 2"],
    *,
    block_px: int,
    workers: int,
) -> Shifts:
    """The shifts of chosen windows.

    Args:
        fixed: The H&E slide at `level.step`.
        moving: The IHC slide at about the same resolution.
        ihc_from_he: Has a field whose grid is a whole number of px of the level.
        level: The pass.
        places: Column and row of each window in the lattice; window (0, 0) is centred at half a stride.
        block_px: Side of what is held at once, px.
        workers: Threads; no part of the result.
    """
    per_block = max(1, block_px // level.stride_px)
    blocks: dict[tuple[int, int], list[int]] = {}
    for index, (column, row) in enumerate(places):
        blocks.setdefault((int(row) // per_block, int(column) // per_block), []).append(index)
    order = sorted(blocks)

    def measure_block(key: tuple[int, int]) -> Float[np.ndarray, "n 6"]:
        return _measure_block(fixed, moving, ihc_from_he, level, places[blocks[key]])

    parts = in_order(measure_block, order, workers=0 if workers <= 1 else workers, name="windows")
    rows = [index for key in order for index in blocks[key]]
    found = np.full((len(places), 6), np.nan)
    if rows:
        found[rows] = np.concatenate(list(parts))
    return Shifts(places, found[:, :2], found[:, 2:4], found[:, 4], found[:, 5])


def _measure_block(
    fixed: Plane, moving: Plane, ihc_from_he: Transform, level: Level, places: Int[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 6"]:
    """Columns: x, y of the texture (µm), shift (µm), peak, lead."""
    half, reach = level.window_px // 2, level.search_px
    centres = places * level.stride_px + level.stride_px // 2
    cell = _cell_px(ihc_from_he, level)
    margin = half + reach + EDGE_PX
    low = (centres.min(axis=0) - margin) // cell * cell
    high = -(-(centres.max(axis=0) + margin) // cell) * cell
    left, top, width, height = int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
    found = np.full((len(places), 6), np.nan)
    found[:, :2] = centres * level.mpp
    texture = band_pass(fixed.crop(left, top, width, height))
    seen = band_pass(look_through(moving, ihc_from_he, level, left=left, top=top, width=width, height=height))
    energy = cv2.resize(texture * texture, (width // cell, height // cell), interpolation=cv2.INTER_AREA)
    for index, centre in enumerate(centres - low):
        x, y = int(centre[0]) - half, int(centre[1]) - half
        template = texture[y : y + 2 * half, x : x + 2 * half]
        around = seen[y - reach : y + 2 * half + reach, x - reach : x + 2 * half + reach]
        if _flat(template) or _flat(around):
            continue
        shift_x, shift_y, peak, lead = best_match(template, around)
        if not np.isnan(peak):
            found[index] = (
                *_centroid(energy, x, y, 2 * half, cell, offset=low, mpp=level.mpp),
                shift_x * level.mpp,
                shift_y * level.mpp,
                peak,
                lead,
            )
    return found


def look_through(
    moving: Plane, ihc_from_he: Transform, level: Level, *, left: int, top: int, width: int, height: int
) -> UInt8[np.ndarray, "h w"]:
    """The IHC plane in the frame of the H&E slide, a rectangle in px of the level whose edges are grid lines."""
    assert ihc_from_he.field_um is not None
    cell = _cell_px(ihc_from_he, level)
    a, b, c = ihc_from_he.affine[0] / moving.step
    d, e, f = ihc_from_he.affine[1] / moving.step
    x = (left + np.arange(width) + 0.5) * level.step
    y = (top + np.arange(height) + 0.5) * level.step
    shift = _field_px(ihc_from_he, cell, left, top, width, height) / np.float32(ihc_from_he.moving_mpp * moving.step)
    corners_x, corners_y = np.array([x[0], x[-1]]), np.array([y[0], y[-1]])
    origin_x = np.floor((a * corners_x[:, None] + b * corners_y[None] + c).min())
    origin_y = np.floor((d * corners_x[:, None] + e * corners_y[None] + f).min())
    map_x = shift[0]
    map_x += (a * x + (c - origin_x - 0.5)).astype(np.float32)[None]
    map_x += (b * y).astype(np.float32)[:, None]
    map_y = shift[1]
    map_y += (d * x + (f - origin_y - 0.5)).astype(np.float32)[None]
    map_y += (e * y).astype(np.float32)[:, None]
    # Which tiles of the source are needed follows from every 16th place.
    thin = np.ix_(np.append(np.arange(0, height, 16), height - 1), np.append(np.arange(0, width, 16), width - 1))
    coarse_x, coarse_y = map_x[thin] + origin_x, map_y[thin] + origin_y
    limit = [side / moving.step + 32 for side in moving.slide.size_px0]
    near = (coarse_x > -32) & (coarse_y > -32) & (coarse_x < limit[0]) & (coarse_y < limit[1])
    if not near.any():
        return np.zeros((height, width), np.uint8)
    x0, y0 = int(np.floor(coarse_x[near].min())) - 32, int(np.floor(coarse_y[near].min())) - 32
    x1, y1 = int(np.ceil(coarse_x[near].max())) + 33, int(np.ceil(coarse_y[near].max())) + 33
    source = moving.crop(x0, y0, x1 - x0, y1 - y0, touched(coarse_x, coarse_y, near, reach=24))
    map_x += np.float32(origin_x - x0)
    map_y += np.float32(origin_y - y0)
    seen: np.ndarray = cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return seen


def band_pass(codes: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Structure between the scanner's noise and the unevenness of the stain."""
    picture = codes.astype(np.float32)
    height, width = picture.shape
    small = cv2.resize(picture, (-(-width // 4), -(-height // 4)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), COARSE_PX / 4)
    fine: np.ndarray = cv2.GaussianBlur(picture, (5, 5), FINE_PX)
    fine -= cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return fine


def best_match(
    template: Float32[np.ndarray, "h w"], around: Float32[np.ndarray, "ah aw"]
) -> tuple[float, float, float, float]:
    """Shift (x, y) of the template's best place from the middle of `around`, px; its correlation and its lead.

    All nan where the best place is at the edge of the search.
    """
    scores = cv2.matchTemplate(around, template, cv2.TM_CCOEFF_NORMED)
    rows, columns = scores.shape
    _, peak, _, (column, row) = cv2.minMaxLoc(scores)
    if not (0 < column < columns - 1 and 0 < row < rows - 1):
        return (np.nan,) * 4
    dx, dy = _summit(scores[row - 1 : row + 2, column - 1 : column + 2].astype(np.float64))
    radius = max(2, min(6, rows // 5))
    scores[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = -1
    second = float(scores.max())
    return column + dx - columns // 2, row + dy - rows // 2, float(peak), float(peak) - second


def _summit(near: Float[np.ndarray, "3 3"]) -> tuple[float, float]:
    """The top of the quadratic surface through a peak and its eight neighbours (least squares), at most 1 px away."""
    gx = (near[:, 2] - near[:, 0]).sum() / 6
    gy = (near[2] - near[0]).sum() / 6
    hxx = (near[:, 2] - 2 * near[:, 1] + near[:, 0]).sum() / 3
    hyy = (near[2] - 2 * near[1] + near[0]).sum() / 3
    hxy = (near[2, 2] - near[2, 0] - near[0, 2] + near[0, 0]) / 4
    whole = hxx * hyy - hxy**2
    if hxx >= 0 or whole <= 0:
        return 0.0, 0.0
    dx = -(hyy * gx - hxy * gy) / whole
    dy = -(hxx * gy - hxy * gx) / whole
    return float(np.clip(dx, -1, 1)), float(np.clip(dy, -1, 1))


def _centroid(
    energy: Float32[np.ndarray, "h w"],
    x: int,
    y: int,
    side: int,
    cell: int,
    *,
    offset: Int[np.ndarray, "2"],
    mpp: float,
) -> tuple[float, float]:
    """Where the texture of a window lies, µm: under strain the shift found is the one there, not at the centre."""
    columns, rows = np.arange(x // cell, (x + side) // cell), np.arange(y // cell, (y + side) // cell)
    part = energy[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    total = float(part.sum())
    if total <= 0:
        return (offset[0] + x + side / 2) * mpp, (offset[1] + y + side / 2) * mpp
    at_x = float((part.sum(axis=0) * (columns + 0.5)).sum()) / total * cell
    at_y = float((part.sum(axis=1) * (rows + 0.5)).sum()) / total * cell
    return (offset[0] + at_x) * mpp, (offset[1] + at_y) * mpp


def _flat(window: Float32[np.ndarray, "h w"]) -> bool:
    return bool(window[::2, ::2].std() < MIN_CONTRAST)


def _cell_px(transform: Transform, level: Level) -> int:
    cell = round(transform.grid_um / level.mpp)
    assert abs(cell * level.mpp - transform.grid_um) < 1e-6 * transform.grid_um, (level.mpp, transform.grid_um)
    return cell


def _field_px(
    transform: Transform, cell: int, left: int, top: int, width: int, height: int
) -> Float32[np.ndarray, "2 h w"]:
    """The field (µm) at the px centres of a rectangle whose edges are grid lines."""
    assert transform.field_um is not None
    rows = np.clip(np.arange(top // cell - 1, (top + height) // cell + 1), 0, transform.field_um.shape[1] - 1)
    columns = np.clip(np.arange(left // cell - 1, (left + width) // cell + 1), 0, transform.field_um.shape[2] - 1)
    made = np.empty((2, height, width), np.float32)
    for axis in range(2):
        part = transform.field_um[axis][np.ix_(rows, columns)].astype(np.float32)
        # `resize` keeps corners and is exact for whole factors; `remap` would round to 1/32 of a grid step.
        wide = cv2.resize(part, (len(columns) * cell, len(rows) * cell), interpolation=cv2.INTER_LINEAR)
        made[axis] = wide[cell : cell + height, cell : cell + width]
    return made


def agree_with_neighbours(
    shifts: Shifts, good: Bool[np.ndarray, " n"], *, tolerance_um: float, factor: float = 3.0
) -> Bool[np.ndarray, " n"]:
    """Windows near the median of their accepted neighbours (normalised median test; Westerweel and Scarano 2005).

    Args:
        shifts: All windows.
        good: Those that take part.
        tolerance_um: Added to the neighbours' own spread.
        factor: Of tolerance and spread that a window may lie off.
    """
    kept = good.copy()
    if not good.any():
        return kept
    around = _neighbours(shifts, good)
    count = (~np.isnan(around[..., 0])).sum(axis=0)
    lonely = count < 2
    filled = np.where(np.isnan(around[..., :1]).all(axis=0)[None], 0.0, around)
    middle = np.nanmedian(filled, axis=0)
    spread = np.nanmedian(np.linalg.norm(filled - middle, axis=2), axis=0)
    off = np.linalg.norm(shifts.shift_um[good] - middle, axis=1)
    kept[np.flatnonzero(good)[(off > factor * (spread + tolerance_um)) | lonely]] = False
    return kept


def scatter_um(shifts: Shifts, good: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Noise of single windows: how far they lie off the mean of two opposite neighbours; nan where there are none."""
    scatter = np.full(len(good), np.nan)
    if not good.any():
        return scatter
    around = _neighbours(shifts, good)
    # Of three equal and independent errors: one, and two halves.
    opposite = np.stack([around[first] + around[7 - first] for first in range(4)]) / 2
    off = np.linalg.norm(shifts.shift_um[good] - opposite, axis=2) / np.sqrt(1.5)
    known = ~np.isnan(off)
    total = np.where(known, off, 0.0).sum(axis=0)
    scatter[good] = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
    return scatter


def _neighbours(shifts: Shifts, good: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "8 m 2"]:
    """For each of the m good windows the shifts of its eight neighbours, row by row; nan where one is not good."""
    size = shifts.place.max(axis=0) + 3
    lattice = np.full((int(size[1]), int(size[0]), 2), np.nan)
    column, row = shifts.place[good].T + 1
    lattice[row, column] = shifts.shift_um[good]
    return np.stack([lattice[row + dy, column + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dx or dy])
