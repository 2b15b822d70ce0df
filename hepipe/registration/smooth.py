"""A smooth displacement field through scattered, partly wrong measurements; cost and memory linear in the tissue.

A cubic B-spline surface on a lattice of control points is fitted by robust least squares with the bending energy of
its lattice as regulariser. Only control points near the given places are unknowns; the rest is filled from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, sparse

MEMBRANE = 1e-5
"""Weight of first against second differences: keeps the far side of a hole from running off, invisible elsewhere."""
REWEIGHTS = 6
CG_STEPS = 400
CG_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Spline:
    """A surface with two components over a rectangle that starts at (0, 0).

    Attributes:
        control: Coefficients (x, y component).
        spacing: Of the control points, µm.
    """

    control: Float[np.ndarray, "2 h w"]
    spacing: float

    def at(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Values at points (x, y), µm."""
        basis = _basis(points, self.spacing, (self.control.shape[1], self.control.shape[2]))
        values: np.ndarray = basis @ self.control.reshape(2, -1).T
        return values

    def on_grid(self, shape: tuple[int, int], grid: float) -> Float[np.ndarray, "2 h w"]:
        """Values at the px centres of a grid (height, width) of this spacing, µm."""
        rows, columns = (
            _axis((np.arange(n) + 0.5) * grid, self.spacing, size)
            for n, size in zip(shape, self.control.shape[1:], strict=True)
        )
        return np.stack([(rows @ plane) @ columns.T for plane in self.control])


def fit_spline(
    points: Float[np.ndarray, "n 2"],
    values: Float[np.ndarray, "n 2"],
    weights: Float[np.ndarray, " n"],
    *,
    domain: Float[np.ndarray, "m 2"],
    size: tuple[float, float],
    spacing: float,
    smoothness: float,
    noise: float,
) -> tuple[Spline, Float[np.ndarray, " n"]]:
    """The surface, and how far each measurement was believed in the end (0 to 1).

    Args:
        points: Where something was measured, µm.
        values: What was measured.
        weights: Trust in each measurement, about 1.
        domain: Places where the surface is wanted, µm; `points` among them.
        size: Width and height of the rectangle, µm.
        spacing: Of the control points, µm.
        smoothness: Weight of the bending energy against one measurement per control point.
        noise: Least scale of what counts as an ordinary residual, in the unit of `values`.
    """
    shape = (int(np.ceil(size[1] / spacing)) + 3, int(np.ceil(size[0] / spacing)) + 3)
    active = _near(domain, spacing, shape)
    unknowns = np.flatnonzero(active)
    basis = _basis(points, spacing, shape)[:, unknowns].tocsr()
    stiff = (smoothness * _bending(active)).tocsr()
    control = np.zeros((len(unknowns), 2))
    belief = np.ones(len(points))
    for _ in range(REWEIGHTS):
        weighted = sparse.diags_array(weights * belief) @ basis
        normal = (basis.T @ weighted + stiff).tocsr()
        control = _conjugate_gradients(normal, weighted.T @ values, control)
        length = np.linalg.norm(values - basis @ control, axis=1)
        scale = max(noise, 1.4826 * float(np.median(length)) if len(length) else noise)
        # Tukey's biweight at 4 scales: what lies beyond has no say.
        belief = np.maximum(1 - (length / (4.0 * scale)) ** 2, 0) ** 2
    surface = np.zeros((2, *shape))
    surface.reshape(2, -1)[:, unknowns] = control.T
    return Spline(fill(surface, active), spacing), belief


def fill(planes: Float[np.ndarray, "c h w"], known: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "c h w"]:
    """Planes whose unknown places are averages of the nearest known ones, wider the further away (pull and push)."""
    if known.all() or not known.any():
        return planes
    height, width = known.shape
    if min(height, width) <= 1:
        return np.stack([np.where(known, plane, plane[known].mean()) for plane in planes])
    pad = ((0, height % 2), (0, width % 2))
    weight = np.pad(known.astype(float), pad)
    small_weight = weight.reshape(weight.shape[0] // 2, 2, weight.shape[1] // 2, 2).sum(axis=(1, 3))
    small = []
    for plane in planes:
        held = np.pad(plane * known, pad)
        total = held.reshape(held.shape[0] // 2, 2, held.shape[1] // 2, 2).sum(axis=(1, 3))
        small.append(total / np.maximum(small_weight, 1))
    wide = fill(np.stack(small), small_weight > 0)
    made = []
    for plane, coarse in zip(planes, wide, strict=True):
        grown = ndimage.zoom(coarse, 2, order=1, mode="nearest", grid_mode=True)[:height, :width]
        made.append(np.where(known, plane, grown))
    return np.stack(made)


def unfold(
    field: Float[np.ndarray, "2 h w"], linear: Float[np.ndarray, "2 2"], *, grid: float, least: float = 0.2
) -> tuple[Float[np.ndarray, "2 h w"], Bool[np.ndarray, "h w"]]:
    """The field smoothed, only where it must be, until its area ratio is nowhere below `least`; and where it was.

    Args:
        field: Displacement from the affine, µm.
        linear: The affine's 2 x 2 part, µm by µm.
        grid: Spacing, µm.
        least: Of the affine's own area ratio.
    """
    field = field.copy()
    changed = np.zeros(field.shape[1:], bool)
    for round_ in range(60):
        bad = _area(field, linear, grid) < least
        if not bad.any():
            break
        sigma = 2.0 + 0.5 * round_
        radius = int(2 + round_ // 2)
        around = np.zeros(field.shape[1:], np.uint8)
        for down in (0, 1):
            for right in (0, 1):
                around[down : down + bad.shape[0], right : right + bad.shape[1]] |= bad.astype(np.uint8)
        around = cv2.dilate(around, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
        changed |= around > 0
        share = cv2.GaussianBlur(around.astype(np.float64), (0, 0), radius / 2)
        share = np.maximum(share, around)
        for axis in range(2):
            soft = cv2.GaussianBlur(field[axis], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
            field[axis] += share * (soft - field[axis])
    return field, changed


def _area(
    field: Float[np.ndarray, "2 h w"], linear: Float[np.ndarray, "2 2"], grid: float
) -> Float[np.ndarray, "gh gw"]:
    """Smallest area ratio of each grid cell's four corners, against the affine's."""
    dx = (field[:, :, 1:] - field[:, :, :-1]) / grid
    dy = (field[:, 1:] - field[:, :-1]) / grid
    whole = float(np.linalg.det(linear))
    least = np.full((field.shape[1] - 1, field.shape[2] - 1), np.inf)
    for x in (dx[:, :-1], dx[:, 1:]):
        for y in (dy[:, :, :-1], dy[:, :, 1:]):
            area = (linear[0, 0] + x[0]) * (linear[1, 1] + y[1]) - (linear[0, 1] + y[0]) * (linear[1, 0] + x[1])
            least = np.minimum(least, area / whole)
    return least


def _weights(fraction: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 4"]:
    """The four cubic B-spline weights of places between two control points."""
    f = fraction
    return np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], axis=1) / 6


def _axis(places: Float[np.ndarray, " n"], spacing: float, size: int) -> sparse.csr_array:
    at = np.clip(places / spacing, 0, size - 3 - 1e-9)
    first = np.floor(at).astype(np.int64)
    columns = first[:, None] + np.arange(4)
    rows = np.repeat(np.arange(len(places)), 4)
    return sparse.csr_array((_weights(at - first).ravel(), (rows, columns.ravel())), shape=(len(places), size))


def _basis(points: Float[np.ndarray, "n 2"], spacing: float, shape: tuple[int, int]) -> sparse.csr_array:
    at = [np.clip(points[:, axis] / spacing, 0, shape[1 - axis] - 3 - 1e-9) for axis in range(2)]
    first = [np.floor(a).astype(np.int64) for a in at]
    x, y = (_weights(a - f) for a, f in zip(at, first, strict=True))
    values = (y[:, :, None] * x[:, None, :]).ravel()
    columns = (first[1][:, None, None] + np.arange(4)[:, None]) * shape[1] + first[0][:, None, None] + np.arange(4)
    rows = np.repeat(np.arange(len(points)), 16)
    return sparse.csr_array((values, (rows, columns.ravel())), shape=(len(points), shape[0] * shape[1]))


def _near(domain: Float[np.ndarray, "m 2"], spacing: float, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Control points that have a say somewhere in the domain, and one more around them."""
    marked = np.zeros(shape, np.uint8)
    columns, rows = (
        np.clip(np.floor(domain[:, axis] / spacing).astype(np.int64), 0, shape[1 - axis] - 4) for axis in range(2)
    )
    for down in range(4):
        for right in range(4):
            marked[rows + down, columns + right] = 1
    near: np.ndarray = cv2.dilate(marked, np.ones((3, 3), np.uint8)) > 0
    return near


def _bending(active: Bool[np.ndarray, "h w"]) -> sparse.csr_array:
    """Sum of squared second differences (the mixed one twice) and a little of first ones, over active places."""
    index = np.full(active.shape, -1)
    index[active] = np.arange(int(active.sum()))
    count = int(active.sum())
    parts = [
        _differences([index[:, :-2], index[:, 1:-1], index[:, 2:]], (1.0, -2.0, 1.0), count),
        _differences([index[:-2], index[1:-1], index[2:]], (1.0, -2.0, 1.0), count),
        _differences(
            [index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]],
            (2**0.5, -(2**0.5), -(2**0.5), 2**0.5),
            count,
        ),
        _differences([index[:, :-1], index[:, 1:]], (MEMBRANE**0.5, -(MEMBRANE**0.5)), count),
        _differences([index[:-1], index[1:]], (MEMBRANE**0.5, -(MEMBRANE**0.5)), count),
    ]
    rows = sparse.vstack(parts, format="csr")
    return sparse.csr_array(rows.T @ rows + 1e-6 * sparse.eye_array(count))


def _differences(places: list[np.ndarray], factors: tuple[float, ...], count: int) -> sparse.csr_array:
    stacked = np.stack([place.ravel() for place in places], axis=1)
    stacked = stacked[(stacked >= 0).all(axis=1)]
    rows = np.repeat(np.arange(len(stacked)), len(factors))
    values = np.tile(np.asarray(factors), len(stacked))
    return sparse.csr_array((values, (rows, stacked.ravel())), shape=(len(stacked), count))


def _conjugate_gradients(
    normal: sparse.csr_array, right: Float[np.ndarray, "n 2"], start: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 2"]:
    """Both right sides at once, preconditioned by the diagonal; sums without BLAS, whose order is not ours."""
    diagonal = 1.0 / np.maximum(normal.diagonal(), 1e-12)[:, None]
    found = start.copy()
    residual = right - normal @ found
    wanted = CG_TOLERANCE**2 * np.maximum((right**2 * diagonal).sum(axis=0), 1e-20)
    step = residual * diagonal
    size = (residual * step).sum(axis=0)
    for _ in range(CG_STEPS):
        if (size <= wanted).all():
            break
        along = normal @ step
        length = size / np.maximum((step * along).sum(axis=0), 1e-30)
        found += length * step
        residual -= length * along
        ready = residual * diagonal
        after = (residual * ready).sum(axis=0)
        step = ready + (after / np.maximum(size, 1e-30)) * step
        size = after
    return found
