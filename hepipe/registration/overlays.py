"""Pictures on which a person sees where a registration fits: edges, deformation grid, what windows still see.

All in the frame of the H&E overview; a picture with a legend has it in a strip below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from hepipe.geometry import Transform
from hepipe.registration.overview import lies_on, look, positions
from hepipe.registration.transform import jacobian
from hepipe.tissue.otsu import mean_od, threshold_tissue

WHITE = (255.0, 255.0, 255.0, 255.0)
INK = (38, 40, 48)
EDGE, INNER_EDGE = (0, 140, 250), (225, 0, 130)
KEPT = (52, 56, 150)
REJECTED = (205, 60, 40)
SHRINKS, GROWS = np.array([33, 102, 172.0]), np.array([178, 74, 24.0])
STRIP_PX = 46
EDGE_SCALE = 250
"""Share of the picture's longer side over which structures are smoothed before their edges are sought: ducts and
lumens of a section stay, nuclei and alveoli do not cover everything."""
CELL_SHARE = 24
"""Cells of the deformation grid and of the arrows along the picture's longer side."""
MAX_EXAGGERATION = 50.0
# Pillow's own font has no µ and no ×.
_FONT = str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")


def warp_picture(
    moving: UInt8[np.ndarray, "mh mw 3"], transform: Transform, *, shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The moving picture in the frame of the fixed one; white beyond it."""
    at = positions(transform, shape=shape)
    moved = look(moving, at, outside=WHITE)
    moved[~lies_on(at, (moving.shape[0], moving.shape[1]))] = 255
    return moved


def draw_edges(fixed: UInt8[np.ndarray, "h w 3"], warped: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Outlines of the H&E's tissue and holes (blue) and of its dense parts (pink) on the IHC.

    Where the IHC lies right, they follow its own.
    """
    sigma = max(1.2, max(fixed.shape) / EDGE_SCALE)
    density = cv2.GaussianBlur(mean_od(fixed).astype(np.float32), (0, 0), sigma)
    tissue = threshold_tissue(fixed, smooth_px=sigma)
    if not tissue.any():
        return warped.copy()
    scaled = np.clip(density / max(float(np.percentile(density[tissue], 98)), 1e-3), 0, 1)
    edges = np.zeros(fixed.shape[:2], np.uint8)
    for level, color in ((0.3, 1), (0.7, 2)):
        above = cv2.copyMakeBorder((scaled > level).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        rims, _ = cv2.findContours(above, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(-1, -1))
        cv2.drawContours(edges, [rim for rim in rims if len(rim) > 12 * sigma], -1, color, 1)
    # The picture's own border is none of the tissue's.
    edges[[0, -1]] = edges[:, [0, -1]] = 0
    drawn = warped.copy()
    # Each line with a pale rim, so that it stands out on dark and on pale tissue alike.
    drawn[cv2.dilate(edges, np.ones((3, 3), np.uint8)) > 0] = 255
    drawn[edges == 1], drawn[edges == 2] = EDGE, INNER_EDGE
    return drawn


def draw_deformation(
    fixed: UInt8[np.ndarray, "h w 3"], small: Transform, *, unit: str = "µm"
) -> UInt8[np.ndarray, "sh w 3"]:
    """A grid as the transform bends it beyond an affine, enlarged to be seen, over the local change of area in colour.

    Args:
        fixed: The H&E overview.
        small: `ihc_from_he` between the overviews.
        unit: What lengths are named by; px where the pixel sizes are unknown.
    """
    height, width = fixed.shape[:2]
    tissue = threshold_tissue(fixed, smooth_px=2.0)
    bend = _bend(small, shape=(height, width), where=tissue)
    change = cv2.resize(jacobian(small).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    # A whole slide that swells is a matter of scale; what is local shows.
    change = change / max(float(np.median(change[tissue])) if tissue.any() else 1.0, 1e-3) - 1
    limit = _nice_above(float(np.percentile(np.abs(change[tissue]), 98)) if tissue.any() else 0.0, least=0.02)
    tint = np.where((change > 0)[..., None], GROWS, SHRINKS)
    strength = np.clip(np.abs(change) / limit, 0, 1)[..., None] * (0.25 + 0.5 * tissue[..., None])
    drawn = (_paled(fixed, 0.65) * (1 - strength) + tint * strength).astype(np.uint8)
    cell = max(height, width) / CELL_SHARE
    length = np.linalg.norm(bend, axis=0)
    largest = float(np.percentile(length[tissue], 99)) if tissue.any() else 0.0
    factor = _nice_below(min(0.45 * cell / max(largest, 1e-6), MAX_EXAGGERATION))
    for axis in range(2):
        for line in np.arange(cell / 2, (height, width)[axis], cell):
            along = np.arange(0, (width, height)[axis], 3) + 0.5
            points = np.stack([along, np.full_like(along, line)][:: 1 if axis == 0 else -1], axis=1)
            bent = points + factor * _at(bend, points)
            cv2.polylines(drawn, [_fixed_point(bent)], False, INK, 1, cv2.LINE_AA, shift=4)
    largest_um = largest * small.fixed_mpp
    text = f"grid: bending × {factor:g}, 99 % of the tissue below {_number(largest_um)} {unit}"
    return _with_strip(drawn, lambda draw, at: _bar_of_change(draw, at, limit, text))


def draw_residuals(
    fixed: UInt8[np.ndarray, "h w 3"],
    residuals: Float32[np.ndarray, "n 7"],
    *,
    mpp: float,
    trust: UInt8[np.ndarray, "th tw"] | None = None,
    grid_um: float = 1.0,
    unit: str = "µm",
) -> UInt8[np.ndarray, "sh w 3"]:
    """What the windows of the refinement still see, as arrows; where nothing supports the field lies a grey veil.

    Args:
        fixed: The H&E overview.
        residuals: Rows of he_x_um, he_y_um, dx_um, dy_um, peak, kept, level_mpp; nan where a window found nothing.
        mpp: µm per px of the overview.
        trust: 1 where windows support the field, on its grid.
        grid_um: Spacing of that grid.
        unit: What lengths are named by.
    """
    drawn = _paled(fixed, 0.6)
    if trust is not None:
        drawn = _veiled(drawn, fixed, trust, mpp=mpp, grid_um=grid_um)
    cell = max(fixed.shape[:2]) / CELL_SHARE / 1.5
    at, shift, kept = residuals[:, :2] / mpp, residuals[:, 2:4], residuals[:, 5] > 0.5
    seen = np.isfinite(shift).all(axis=1)
    for place in at[seen & ~kept]:
        cv2.circle(drawn, _fixed_point(place[None])[0].tolist(), 2 << 4, REJECTED, -1, cv2.LINE_AA, shift=4)
    arrows = [(at[kept][one].mean(axis=0), np.median(shift[kept][one], axis=0)) for one in _by_cell(at[kept], cell)]
    lengths = np.linalg.norm(shift[seen & kept], axis=1) if (seen & kept).any() else np.zeros(1)
    unit_um = _nice_above(float(np.percentile(lengths, 90)), least=0.05)
    px_per_um = 0.9 * cell / unit_um
    for place, move in arrows:
        if np.isfinite(move).all():
            _arrow(drawn, place, place + move * px_per_um)
    median, p90 = (float(np.percentile(lengths, q)) for q in (50, 90))
    text = (
        f"median {_number(median)}, 90th percentile {_number(p90)} {unit}; {int((seen & kept).sum())} of {len(at)} "
        f"windows kept, {int((seen & ~kept).sum())} contradicted (red)"
    )
    return _with_strip(drawn, lambda draw, y: _arrow_key(draw, y, 0.9 * cell, f"{unit_um:g} {unit}", text))


# Fields ----------------------------------------------------------------------------------------------------


def _bend(small: Transform, *, shape: tuple[int, int], where: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "2 h w"]:
    """Displacement in px of the fixed picture that no affine over the tissue explains."""
    at = positions(small, shape=shape)
    rows, columns = np.nonzero(where) if where.sum() > 16 else np.nonzero(np.ones(shape, bool))
    step = max(1, len(rows) // 5000)
    source = np.stack([columns[::step] + 0.5, rows[::step] + 0.5, np.ones(len(rows[::step]))], axis=1)
    matrix, *_ = np.linalg.lstsq(source, at[:, rows[::step], columns[::step]].T.astype(np.float64), rcond=None)
    back = np.linalg.inv(matrix[:2].T)
    moved = np.tensordot(back, at - matrix[2][:, None, None], axes=1)
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    bend: np.ndarray = moved - np.stack([x, y])
    return bend


def _at(field: Float[np.ndarray, "2 h w"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    rows = np.clip(points[:, 1].astype(int), 0, field.shape[1] - 1)
    columns = np.clip(points[:, 0].astype(int), 0, field.shape[2] - 1)
    found: np.ndarray = field[:, rows, columns].T
    return found


def _by_cell(points: Float[np.ndarray, "n 2"], cell: float) -> list[np.ndarray]:
    """Rows of the points that fall into each cell of a grid."""
    if not len(points):
        return []
    keys = np.floor(points / cell).astype(np.int64)
    _, owner = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(owner.ravel(), kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner.ravel()))[:-1])


def _veiled(
    drawn: UInt8[np.ndarray, "h w 3"],
    fixed: UInt8[np.ndarray, "h w 3"],
    trust: UInt8[np.ndarray, "th tw"],
    *,
    mpp: float,
    grid_um: float,
) -> UInt8[np.ndarray, "h w 3"]:
    height, width = fixed.shape[:2]
    x = ((np.arange(width) + 0.5) * mpp / grid_um - 0.5).astype(np.float32)
    y = ((np.arange(height) + 0.5) * mpp / grid_um - 0.5).astype(np.float32)
    map_x, map_y = np.meshgrid(x, y)
    there = cv2.remap(trust.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    unsure = (there < 0.5) & threshold_tissue(fixed, smooth_px=2.0)
    drawn = drawn.copy()
    drawn[unsure] = (drawn[unsure] * 0.45 + np.array([120, 122, 128]) * 0.55).astype(np.uint8)
    return drawn


# Drawing ---------------------------------------------------------------------------------------------------


def _paled(rgb: UInt8[np.ndarray, "h w 3"], share: float) -> UInt8[np.ndarray, "h w 3"]:
    pale: np.ndarray = (rgb * (1 - share) + 255 * share).astype(np.uint8)
    return pale


def _fixed_point(points: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """Points in sixteenths of a px, as OpenCV's anti-aliased lines take them; its px have their centre at 0."""
    return np.rint((points - 0.5) * 16).astype(np.int32)


def _arrow(drawn: UInt8[np.ndarray, "h w 3"], start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"]) -> None:
    tail, tip = (point.tolist() for point in _fixed_point(np.stack([start, end])))
    length = math.dist(start, end)
    cv2.arrowedLine(drawn, tail, tip, (255, 255, 255), 4, cv2.LINE_AA, shift=4, tipLength=min(0.5, 5 / max(length, 1)))
    cv2.arrowedLine(drawn, tail, tip, KEPT, 2, cv2.LINE_AA, shift=4, tipLength=min(0.5, 5 / max(length, 1)))


def _with_strip(
    drawn: UInt8[np.ndarray, "h w 3"], legend: Callable[[ImageDraw.ImageDraw, int], None]
) -> UInt8[np.ndarray, "sh w 3"]:
    height, width = drawn.shape[:2]
    whole = np.full((height + STRIP_PX, width, 3), 255, np.uint8)
    whole[:height] = drawn
    picture = Image.fromarray(whole)
    legend(ImageDraw.Draw(picture), height)
    return np.asarray(picture)


def _bar_of_change(draw: ImageDraw.ImageDraw, top: int, limit: float, text: str) -> None:
    font = ImageFont.truetype(_FONT, 13)
    left, width = 12, 150
    for step in range(width):
        share = 2 * step / (width - 1) - 1
        color = np.array([255.0] * 3) * (1 - abs(share)) + (GROWS if share > 0 else SHRINKS) * abs(share)
        draw.line((left + step, top + 9, left + step, top + 20), fill=tuple(color.astype(int).tolist()))
    draw.text((left, top + 23), f"−{limit:.0%}", fill=INK, font=font)
    draw.text((left + width / 2, top + 23), "area", fill=INK, font=font, anchor="ma")
    draw.text((left + width, top + 23), f"+{limit:.0%}", fill=INK, font=font, anchor="ra")
    draw.text((left + width + 24, top + 15), text, fill=INK, font=font)


def _arrow_key(draw: ImageDraw.ImageDraw, top: int, length: float, unit: str, text: str) -> None:
    font = ImageFont.truetype(_FONT, 13)
    y, end = top + 23, 12 + length
    draw.line((12, y, end, y), fill=KEPT, width=2)
    draw.polygon([(end, y), (end - 6, y - 4), (end - 6, y + 4)], fill=KEPT)
    draw.text((end + 10, y), unit, fill=INK, font=font, anchor="lm")
    draw.text((end + 30 + draw.textlength(unit, font=font), y), text, fill=INK, font=font, anchor="lm")


def _nice_above(value: float, *, least: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    value = max(value, least)
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _nice_below(value: float) -> float:
    """The last of 1, 2, 5 times a power of ten, at least 1."""
    value = max(value, 1.0)
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (5, 2, 1) if step * power <= value * (1 + 1e-9))


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
