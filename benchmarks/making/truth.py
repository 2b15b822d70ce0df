"""The known warp between two slides of a case: drawn, inverted for rendering, and stored for scoring."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import zarr
from jaxtyping import Float

from hepipe.geometry import Transform, apply_affine, sample_field, translation
from hepipe.synth.noise import Field

MAX_STRAIN = 0.2
"""No derivative of the displacement exceeds this: sections stretch by a few per cent, and nothing folds."""
_STEP_PX = 8


@dataclass(frozen=True)
class Waves:
    """A sum of plane waves: smooth to every order, and cheap on any grid, as a cosine of a sum splits into products."""

    frequency: Float[np.ndarray, "n 2"]
    amplitude: Float[np.ndarray, " n"]
    phase: Float[np.ndarray, " n"]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, shortest_um: float, longest_um: float, rms: float, count: int) -> Waves:
        """Waves of random direction and of lengths spread evenly on a logarithmic scale."""
        length = np.exp(rng.uniform(np.log(shortest_um), np.log(longest_um), count))
        angle = rng.uniform(0, 2 * np.pi, count)
        amplitude = rng.uniform(0.5, 1.5, count)
        amplitude *= rms / np.sqrt((amplitude**2).sum() / 2)
        frequency = 2 * np.pi / length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return cls(frequency, amplitude, rng.uniform(0, 2 * np.pi, count))

    def on(self, x_um: Float[np.ndarray, " w"], y_um: Float[np.ndarray, " h"]) -> Float[np.ndarray, "h w"]:
        """Their sum on a grid."""
        total = np.zeros((len(y_um), len(x_um)))
        for (kx, ky), amplitude, phase in zip(self.frequency, self.amplitude, self.phase, strict=True):
            along, down = kx * x_um + phase, ky * y_um
            total += amplitude * (np.cos(down)[:, None] * np.cos(along) - np.sin(down)[:, None] * np.sin(along))
        return total


def draw_warp(
    rng: np.random.Generator, size_um: tuple[float, float], *, grid_um: float, peak_um: float
) -> Float[np.ndarray, "2 h w"]:
    """A displacement in µm: waves of millimetres, some of 1 to 2 mm, and a little of 400 to 800 µm.

    The long ones span the slide, from 2.5 to 10 mm on a large one. The largest displacement is `peak_um`, or less where
    a derivative would exceed `MAX_STRAIN`.
    """
    columns, rows = (int(np.ceil(side / grid_um)) for side in size_um)
    x, y = (np.arange(columns) + 0.5) * grid_um, (np.arange(rows) + 0.5) * grid_um
    long = max(max(size_um), 1500.0)
    parts = (
        (long if long <= 4000 else 2500.0, 2 * min(long, 5000.0), 1.0, 10),
        (1000.0, 2000.0, 0.08, 10),
        (400.0, 800.0, 0.02, 10),
    )
    field = np.stack(
        [
            sum(
                Waves.draw(rng, shortest_um=low, longest_um=high, rms=rms / np.sqrt(2), count=count).on(x, y)
                for low, high, rms, count in parts
            )
            for _ in range(2)
        ]
    )
    field -= field.mean(axis=(1, 2), keepdims=True)
    strain = max(float(np.abs(np.diff(field, axis=axis)).max()) / grid_um for axis in (1, 2))
    peak = float(np.hypot(*field).max())
    return (field * min(peak_um / peak, MAX_STRAIN / strain)).astype(np.float32)


def turn(degrees: float, scale_x: float, scale_y: float, shear: float) -> Float[np.ndarray, "3 3"]:
    """Scale, shear, then turn."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    return np.asarray(rotation @ np.array([[scale_x, shear, 0], [0, scale_y, 0], [0, 0, 1.0]]))


def placed(
    transform: Transform, tissue: Float[np.ndarray, "n 2"], *, margin_px: float, whole_px: int, least_px: int
) -> tuple[Transform, tuple[int, int]]:
    """The transform moved so that the tissue's points have a margin on the other slide, and that slide's size.

    The size is a multiple of `whole_px` and at least `least_px`; what that adds is shared by both sides.
    """
    moved = transform(tissue)
    low, high = moved.min(axis=0) - margin_px, moved.max(axis=0) + margin_px
    size = np.ceil(np.maximum(high - low, least_px) / whole_px) * whole_px
    corner = low - (size - (high - low)) / 2
    affine = translation(-corner[0], -corner[1]) @ transform.affine
    return replace(transform, affine=affine), (int(size[0]), int(size[1]))


class Inverse:
    """For px of the moving slide their places on the fixed one; the exact inverse of what is stored.

    Solves `he = affine⁻¹ (ihc - field(he))` by repeating it, to 1e-3 px, at every 8th px; between them the shift, whose
    curvature the field's own grid bounds, is interpolated. Beyond the slide the field goes on with its edge's value
    (there is glass, and a jump would have no inverse).
    """

    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self._backward = np.linalg.inv(transform.affine)

    def points(self, moving: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Places on the fixed slide, px0."""
        start = apply_affine(self._backward, moving)
        field = self._transform.field_um
        if field is None:
            return start
        per_cell = self._transform.fixed_mpp / self._transform.grid_um
        limit = np.array(field.shape[:0:-1], float)
        linear = self._backward[:2, :2] / self._transform.moving_mpp
        found = start
        for _ in range(60):
            shift, _ = sample_field(field, np.clip(found * per_cell, 0, limit))
            better = start - shift @ linear.T
            change = float(np.abs(better - found).max())
            found = better
            if change < 1e-4:
                return found
        raise RuntimeError("the warp has no inverse: its derivative is too large")

    def grid(self, x: int, y: int, side: int) -> tuple[Field, Field]:
        """For every px centre of a square of the moving slide (side a multiple of 8) its place (x, y), px0."""
        cells = side // _STEP_PX + 2
        row, column = np.mgrid[0:cells, 0:cells]
        at = np.stack([x + (column.ravel() - 0.5) * _STEP_PX, y + (row.ravel() - 0.5) * _STEP_PX], axis=1)
        shift = (self.points(at) - apply_affine(self._backward, at)).reshape(cells, cells, 2)
        fine = cv2.resize(shift, None, fx=_STEP_PX, fy=_STEP_PX, interpolation=cv2.INTER_LINEAR)
        fine = fine[_STEP_PX:-_STEP_PX, _STEP_PX:-_STEP_PX]
        px, py = x + np.arange(side) + 0.5, (y + np.arange(side) + 0.5)[:, None]
        back = self._backward
        return (
            back[0, 0] * px + back[0, 1] * py + back[0, 2] + fine[..., 0],
            back[1, 0] * px + back[1, 1] * py + back[1, 2] + fine[..., 1],
        )


def write_truth(path: Path, transform: Transform, tissue: np.ndarray, *, tissue_mpp: float) -> None:
    """Store the transform as `hepipe synth case` does, and a map of the H&E's tissue.

    `tissue` is uint8 from the H&E slide's corner at `tissue_mpp`: 0 glass, 1 tissue, 2 tissue that the IHC lost.
    """
    group = zarr.open_group(path, mode="w")
    group.attrs.update(artefact="benchmark-truth", tissue_mpp=tissue_mpp)
    group.create_array("tissue", data=tissue)
    part = group.create_group("ihc_from_he")
    part.attrs.update(
        affine=transform.affine.tolist(),
        fixed_mpp=transform.fixed_mpp,
        moving_mpp=transform.moving_mpp,
        grid_um=transform.grid_um,
    )
    if transform.field_um is not None:
        part.create_array("field_um", data=transform.field_um)
