"""Resolution arithmetic, boxes and transforms; pure numpy.

Coordinates are continuous: pixel `i` covers [i, i + 1) and its centre lies at i + 0.5, so that going from one level
or resolution to another is a multiplication and nothing else. Points are (x, y), arrays (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

MPP_RANGE = (0.05, 20.0)
"""Plausible µm per px of level 0. A pyramid without resolution tags reads as 1000 (libvips writes 1 px/mm)."""
NOMINAL_MPP = 1.0
"""What a slide of unknown pixel size reads as: every µm of it is a px of level 0."""
GivenMpp = float | Literal["unknown"] | None
"""µm per px as a person gives it; None: as the file says."""
MppFrom = Literal["file", "sheet", "unknown"]
"""Who says what a px measures: the file, a person, nobody."""


@dataclass(frozen=True)
class Box:
    """An axis-aligned rectangle: left, top, width, height, in the px of the frame its name says."""

    # int beside float: the shape checker of the tests does not take one for the other.
    x: float | int
    y: float | int
    width: float | int
    height: float | int

    @property
    def right(self) -> float | int:
        """Right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float | int:
        """Bottom edge."""
        return self.y + self.height

    def scaled(self, factor: float) -> Box:
        """The same rectangle in a frame with `factor` times as many px per length."""
        return Box(self.x * factor, self.y * factor, self.width * factor, self.height * factor)


def scaling(x: float, y: float | None = None) -> Float[np.ndarray, "3 3"]:
    """The matrix that multiplies x and y."""
    return np.diag([x, x if y is None else y, 1.0])


def translation(x: float, y: float) -> Float[np.ndarray, "3 3"]:
    """The matrix that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def apply_affine(matrix: Float[np.ndarray, "3 3"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points (x, y) through a 3 x 3 affine matrix."""
    moved: np.ndarray = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def sample_field(
    field: Float[np.ndarray, "2 h w"], points: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, "n 2"], np.ndarray]:
    """Bilinear samples of a displacement field at points in its own px, and which points lie inside.

    The outermost half px takes the value of the edge; beyond the field the displacement is 0.
    """
    height, width = field.shape[1:]
    inside = (points[:, 0] >= 0) & (points[:, 0] <= width) & (points[:, 1] >= 0) & (points[:, 1] <= height)
    x = np.clip(points[:, 0] - 0.5, 0, width - 1)
    y = np.clip(points[:, 1] - 0.5, 0, height - 1)
    x0 = np.minimum(x.astype(np.int64), max(width - 2, 0))
    y0 = np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    top = field[:, y0, x0] * (1 - fx) + field[:, y0, x1] * fx
    bottom = field[:, y1, x0] * (1 - fx) + field[:, y1, x1] * fx
    return ((top * (1 - fy) + bottom * fy) * inside).T, inside


@dataclass(frozen=True)
class Transform:
    """`ihc_from_he` or its inverse: for a point of the fixed slide its place on the moving one.

    `moving_px0 = affine @ fixed_px0 + field_um(fixed) / moving_mpp`, in px at level 0 of each slide.

    Attributes:
        affine: 3 x 3, moving px0 from fixed px0.
        field_um: Displacement (x, y) in µm of the moving slide on a grid over the fixed one; None for an affine.
        grid_um: Spacing of the field's grid, µm of the fixed slide; field px (0, 0) starts at the slide's corner.
        fixed_mpp: µm per px at level 0 of the fixed slide.
        moving_mpp: µm per px at level 0 of the moving slide.
    """

    affine: Float[np.ndarray, "3 3"]
    fixed_mpp: float
    moving_mpp: float
    field_um: Float[np.ndarray, "2 h w"] | None = None
    grid_um: float = 1.0

    def __call__(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Points (x, y) of the fixed slide, px0, as points of the moving slide, px0."""
        return self.trace(points)[0]

    def trace(self, points: Float[np.ndarray, "n 2"]) -> tuple[Float[np.ndarray, "n 2"], np.ndarray]:
        """Moved points, and which of them the field covers; the others follow the affine part alone."""
        moved = apply_affine(self.affine, points)
        if self.field_um is None:
            return moved, np.ones(len(points), bool)
        shift_um, inside = sample_field(self.field_um, points * (self.fixed_mpp / self.grid_um))
        return moved + shift_um / self.moving_mpp, inside


def identity(*, fixed_mpp: float, moving_mpp: float) -> Transform:
    """The transform of two slides whose corners and physical axes coincide."""
    return Transform(scaling(fixed_mpp / moving_mpp), fixed_mpp, moving_mpp)
