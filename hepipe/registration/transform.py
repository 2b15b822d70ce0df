"""Transforms as fields: resampling, composition, numeric inverse, folds, plausibility."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from hepipe.geometry import Transform, apply_affine

SCALE_RANGE = (0.5, 2.0)
"""Plausible size of the moving section against the fixed one, both in µm: swelling and wrong tags, not more."""
MAX_FOLD_FRAC = 0.01
"""More of the slide folded than this: the field is no deformation of tissue."""

STRIP_POINTS = 131_072
"""Points that are inverted at once: some MB, however large the slide."""
RESIDUAL_POINTS = 200_000
"""About as many points tell how well an inverse undoes its transform."""

Mapping2d = Callable[[np.ndarray], np.ndarray]


def grid_points(
    size_px0: tuple[int, int], *, mpp: float, grid_um: float
) -> tuple[Float[np.ndarray, "n 2"], tuple[int, int]]:
    """Centres of the grid px that cover a slide, in its px0, row by row; and the grid's (height, width)."""
    columns, rows = (max(1, math.ceil(side * mpp / grid_um - 1e-6)) for side in size_px0)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * grid_um / mpp, (np.arange(rows) + 0.5) * grid_um / mpp)
    return np.stack([x.ravel(), y.ravel()], axis=1), (rows, columns)


def from_mapping(
    mapping: Mapping2d,
    affine: Float[np.ndarray, "3 3"],
    *,
    fixed_size_px0: tuple[int, int],
    fixed_mpp: float,
    moving_mpp: float,
    grid_um: float,
) -> Transform:
    """The transform that equals `mapping` (fixed px0 to moving px0) on a grid over the fixed slide.

    Args:
        mapping: Takes and gives points (n, 2).
        affine: What the displacement is measured from, and what holds beyond the slide.
        fixed_size_px0: Width and height of the fixed slide.
        fixed_mpp: Of the fixed slide's level 0.
        moving_mpp: Of the moving slide's level 0.
        grid_um: Spacing of the field.
    """
    points, shape = grid_points(fixed_size_px0, mpp=fixed_mpp, grid_um=grid_um)
    shift = (mapping(points) - apply_affine(affine, points)) * moving_mpp
    return Transform(affine, fixed_mpp, moving_mpp, _as_field(shift, shape), grid_um)


def compose(
    c_from_b: Transform, b_from_a: Transform, *, a_size_px0: tuple[int, int], grid_um: float | None = None
) -> Transform:
    """`c_from_a`, as an affine when both are, otherwise as a field on the finer of both grids."""
    affine = c_from_b.affine @ b_from_a.affine
    if c_from_b.field_um is None and b_from_a.field_um is None:
        return Transform(affine, b_from_a.fixed_mpp, c_from_b.moving_mpp)
    grids = [part.grid_um for part in (c_from_b, b_from_a) if part.field_um is not None]
    return from_mapping(
        lambda points: c_from_b(b_from_a(points)),
        affine,
        fixed_size_px0=a_size_px0,
        fixed_mpp=b_from_a.fixed_mpp,
        moving_mpp=c_from_b.moving_mpp,
        grid_um=grid_um or min(grids),
    )


@dataclass(frozen=True)
class Inverse:
    """A numeric inverse and how well it undoes the forward transform.

    Attributes:
        transform: `a_from_b`.
        residual_um: Median and 95th percentile of |forward(inverse(x)) − x|, taken midway between the grid's nodes,
            where interpolation is furthest off, over the moving slide's points whose origin lies on the fixed slide;
            0 for an affine, nan when there is no such point.
    """

    transform: Transform
    residual_um: tuple[float, float]


def invert(
    b_from_a: Transform,
    *,
    a_size_px0: tuple[int, int],
    b_size_px0: tuple[int, int],
    iterations: int = 30,
    tolerance_um: float = 1e-3,
) -> Inverse:
    """The inverse by fixed-point iteration on the forward field's grid spacing over slide b, a strip of it at a time.

    Beyond slide a the field continues with the value at its edge, so the inverse has no step there. A strip is done
    when no point of it moves by more than `tolerance_um`, or after `iterations`.
    """
    back = np.linalg.inv(b_from_a.affine)
    if b_from_a.field_um is None:
        return Inverse(Transform(back, b_from_a.moving_mpp, b_from_a.fixed_mpp), (0.0, 0.0))
    mpp, grid_um = b_from_a.moving_mpp, b_from_a.grid_um
    planes = [np.ascontiguousarray(plane, np.float64) for plane in b_from_a.field_um]
    per_px0 = b_from_a.fixed_mpp / grid_um
    linear = back[:2, :2] / mpp
    columns, rows = (max(1, math.ceil(side * mpp / grid_um - 1e-6)) for side in b_size_px0)
    field = np.empty((2, rows, columns), np.float32)
    strip = max(1, STRIP_POINTS // columns)
    for top in range(0, rows, strip):
        bottom = min(top + strip, rows)
        x, y = np.meshgrid((np.arange(columns) + 0.5) * grid_um / mpp, (np.arange(top, bottom) + 0.5) * grid_um / mpp)
        targets = np.stack([x.ravel(), y.ravel()], axis=1)
        plain = apply_affine(back, targets)
        found = plain
        for _ in range(iterations):
            # Where the field is known, its edge repeated; scipy's order of axes.
            at = (found * per_px0 - 0.5).T[::-1]
            shift = np.stack([map_coordinates(plane, at, order=1, mode="nearest") for plane in planes], axis=1)
            better = plain - shift @ linear.T
            change = float(np.abs(better - found).max()) * b_from_a.fixed_mpp
            found = better
            if change <= tolerance_um:
                break
        field[:, top:bottom] = ((found - plain) * b_from_a.fixed_mpp).T.reshape(2, bottom - top, columns)
    transform = Transform(back, mpp, b_from_a.fixed_mpp, field.astype(np.float64), grid_um)
    return Inverse(transform, _residual_um(b_from_a, transform, a_size_px0=a_size_px0))


def _residual_um(b_from_a: Transform, a_from_b: Transform, *, a_size_px0: tuple[int, int]) -> tuple[float, float]:
    """Median and 95th percentile of what the inverse leaves midway between its nodes, as `Inverse` has them."""
    assert a_from_b.field_um is not None
    rows, columns = a_from_b.field_um.shape[1:]
    every = max(1, math.ceil(math.sqrt(rows * columns / RESIDUAL_POINTS)))
    step_px0 = a_from_b.grid_um / a_from_b.fixed_mpp
    x, y = np.meshgrid(np.arange(1, max(2, columns), every) * step_px0, np.arange(1, max(2, rows), every) * step_px0)
    targets = np.stack([x.ravel(), y.ravel()], axis=1)
    found = a_from_b(targets)
    within = ((found >= 0) & (found <= np.asarray(a_size_px0, float))).all(axis=1)
    if not within.any():
        return math.nan, math.nan
    error = np.linalg.norm(b_from_a(found[within]) - targets[within], axis=1) * b_from_a.moving_mpp
    return float(np.median(error)), float(np.percentile(error, 95))


def jacobian(transform: Transform) -> Float[np.ndarray, "h w"]:
    """Determinant of µm by µm between neighbouring grid points: 1 keeps area, 0 and below folds.

    An affine gives one value. Mirrored slides have a negative affine part; its sign is divided out, so that a fold
    is negative whatever the orientation.
    """
    ratio = transform.moving_mpp / transform.fixed_mpp
    linear = transform.affine[:2, :2] * ratio
    sign = math.copysign(1.0, float(np.linalg.det(linear)))
    if transform.field_um is None or min(transform.field_um.shape[1:]) < 2:
        return np.full((1, 1), sign * float(np.linalg.det(linear)))
    field = transform.field_um.astype(np.float64)
    dx = (field[:, :, 1:] - field[:, :, :-1])[:, :-1] / transform.grid_um
    dy = (field[:, 1:] - field[:, :-1])[:, :, :-1] / transform.grid_um
    determinant: np.ndarray = (linear[0, 0] + dx[0]) * (linear[1, 1] + dy[1]) - (linear[0, 1] + dy[0]) * (
        linear[1, 0] + dx[1]
    )
    return sign * determinant


def fold_frac(transform: Transform) -> float:
    """Share of the fixed slide where the transform turns inside out."""
    return float((jacobian(transform) <= 0).mean())


def scales(transform: Transform) -> tuple[float, float]:
    """Smaller and larger singular value of the affine part, µm by µm; 1 keeps lengths."""
    linear = transform.affine[:2, :2] * (transform.moving_mpp / transform.fixed_mpp)
    larger, smaller = np.linalg.svd(linear, compute_uv=False)
    return float(smaller), float(larger)


def implausible(transform: Transform) -> str:
    """Why a transform cannot be one between two sections of a specimen; empty when it can."""
    if not np.isfinite(transform.affine).all() or (
        transform.field_um is not None and not np.isfinite(transform.field_um).all()
    ):
        return "it holds values that are not finite"
    smaller, larger = scales(transform)
    if smaller < SCALE_RANGE[0] or larger > SCALE_RANGE[1]:
        return f"it scales by {smaller:.2f} to {larger:.2f}, {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g} expected"
    folded = fold_frac(transform)
    if folded > MAX_FOLD_FRAC:
        return f"{folded:.1%} of the slide is folded, at most {MAX_FOLD_FRAC:.0%} expected"
    return ""


def _as_field(shift: Float[np.ndarray, "n 2"], shape: tuple[int, int]) -> Float[np.ndarray, "2 h w"]:
    """Displacements of `grid_points` as a field with the values that a store keeps (float32)."""
    field: np.ndarray = np.ascontiguousarray(shift.T.reshape(2, *shape), dtype=np.float32).astype(np.float64)
    return field
