"""The non-rigid part: a spline field under strong smoothness, by local correlation and self-similarity.

Self-similarity: Heinrich et al., MIND: modality independent neighbourhood descriptor, Medical Image Analysis 2012; here
with eight neighbours in the plane. No torch: gradients are written out.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32

from hepipe.geometry import Transform, scaling
from hepipe.registration.ncc import Adam, Comparison, blur, slopes
from hepipe.registration.overview import lies_on, look, positions, sample, shrink_features
from hepipe.registration.transform import from_mapping

SCALES_PX = (128, 256, 512)
"""Longer side of the pictures, coarse to fine."""
STEPS = (80, 60, 40)
KNOT_PX = 16.0
"""Between control points, at each scale: the field gets finer with the picture."""
SIGMA_PX = 7.0
BENDING = 0.1
"""Weight of the second differences between control points."""
GRID_PX = 4.0
"""Spacing of the stored field, px of the finest scale: a quarter of its control points' spacing."""
NEIGHBOURS = ((2, 0), (-2, 0), (0, 2), (0, -2), (2, 2), (-2, 2), (2, -2), (-2, -2))


def refine_elastic(
    fixed: Float32[np.ndarray, "c fh fw"],
    moving: Float32[np.ndarray, "c mh mw"],
    start: Transform,
    *,
    smoothness: float,
    self_similarity: float = 1.0,
    scales_px: tuple[int, ...] = SCALES_PX,
    steps: tuple[int, ...] = STEPS,
) -> Transform:
    """A smooth field on top of `start`, a transform between the pictures given.

    Args:
        fixed: Features of the H&E picture; the last channel is its soft tissue mask.
        moving: The same of the IHC picture.
        start: Where to start.
        smoothness: Weight of the mean squared slope of the field; the similarity's own weight is 1 a channel.
        self_similarity: Weight of the self-similarity of the first channel.
        scales_px: Longer side of the pictures, coarse to fine.
        steps: Iterations at each of them.
    """
    height, width = fixed.shape[1:]
    field = np.zeros((2, height, width), np.float32)
    factor = 1.0
    for longest, count in zip(scales_px, steps, strict=True):
        factor = min(1.0, longest / max(height, width))
        small_fixed, small_moving = shrink_features(fixed, factor), shrink_features(moving, factor)
        shape = (small_fixed.shape[1], small_fixed.shape[2])
        base = positions(_scaled(start, factor), shape=shape)
        begun = np.stack([cv2.resize(plane * factor, shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in field])
        grown = _climb(
            Comparison(small_fixed, small_moving, sigma=SIGMA_PX, everywhere=True),
            _SelfSimilarity(small_fixed[0], small_moving[0]),
            base=base,
            begun=begun,
            steps=count,
            smoothness=smoothness,
            self_similarity=self_similarity,
        )
        field = np.stack(
            [cv2.resize(plane / factor, (width, height), interpolation=cv2.INTER_CUBIC) for plane in grown]
        )

    mpp = start.fixed_mpp
    return from_mapping(
        lambda points: start(points) + sample(field, points),
        start.affine,
        fixed_size_px0=(width, height),
        fixed_mpp=mpp,
        moving_mpp=start.moving_mpp,
        grid_um=GRID_PX / factor * mpp,
    )


def _scaled(start: Transform, factor: float) -> Transform:
    shrink = scaling(factor)
    affine = shrink @ start.affine @ np.linalg.inv(shrink)
    return Transform(affine, start.fixed_mpp / factor, start.moving_mpp / factor, start.field_um, start.grid_um)


def _climb(
    comparison: Comparison,
    likeness: _SelfSimilarity,
    *,
    base: Float32[np.ndarray, "2 h w"],
    begun: Float32[np.ndarray, "2 h w"],
    steps: int,
    smoothness: float,
    self_similarity: float,
) -> Float32[np.ndarray, "2 h w"]:
    height, width = base.shape[1:]
    down, across = _spline(height), _spline(width)
    knots = np.zeros((2, down.shape[1], across.shape[1]))
    # The field so far, as knots: coarse fields are splines already, so little is lost.
    fit_down, fit_across = np.linalg.pinv(down), np.linalg.pinv(across)
    for axis in range(2):
        knots[axis] = fit_down @ begun[axis] @ fit_across.T
    optimizer = Adam(knots.shape)
    channels = len(comparison.windows)
    for step in range(steps):
        field = np.stack([down @ plane @ across.T for plane in knots]).astype(np.float32)
        at = base + field
        _, gradient = comparison.ascend(at)
        uphill = gradient * channels + self_similarity * likeness.ascend(at, comparison.fixed[-1])
        by_knot = np.stack([down.T @ plane @ across for plane in uphill.astype(np.float64)])
        by_knot -= smoothness * _slope_penalty(knots) + BENDING * _bend_penalty(knots)
        rate = 0.05 + 0.45 * 0.5 * (1 + math.cos(math.pi * step / steps))
        knots = knots + optimizer.step(by_knot, rate)
    return np.stack([down @ plane @ across.T for plane in knots]).astype(np.float32)


def _spline(length: int) -> Float[np.ndarray, "length knots"]:
    """Cubic B-spline weights of the knots at each px centre; knots reach past both ends."""
    count = math.ceil(length / KNOT_PX) + 3
    place = (np.arange(length) + 0.5) / KNOT_PX + 1.0
    distance = np.abs(place[:, None] - np.arange(count)[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clip(min=0) ** 3 / 6
    weights: np.ndarray = np.where(distance < 1, near, far)
    return weights


def _slope_penalty(knots: Float[np.ndarray, "2 r c"]) -> Float[np.ndarray, "2 r c"]:
    """Gradient of the mean squared slope (px per px) between neighbouring knots."""
    out = np.zeros_like(knots)
    for axis in (1, 2):
        step = np.diff(knots, axis=axis) / KNOT_PX**2
        out += _adjoint_difference(step, axis)
    result: np.ndarray = 2 * out / (knots.shape[1] * knots.shape[2])
    return result


def _bend_penalty(knots: Float[np.ndarray, "2 r c"]) -> Float[np.ndarray, "2 r c"]:
    """Gradient of the mean squared second difference (px) between knots, along both axes."""
    out = np.zeros_like(knots)
    for axis in (1, 2):
        bend = np.diff(knots, n=2, axis=axis) / KNOT_PX**2
        out += _adjoint_difference(_adjoint_difference(bend, axis), axis)
    result: np.ndarray = 2 * out / (knots.shape[1] * knots.shape[2])
    return result


def _adjoint_difference(steps: np.ndarray, axis: int) -> np.ndarray:
    pad = [(0, 0)] * 3
    pad[axis] = (1, 1)
    spread: np.ndarray = -np.diff(np.pad(steps, pad), axis=axis)
    return spread


class _SelfSimilarity:
    """How alike the neighbourhoods of two pictures are, whatever their grey values."""

    def __init__(self, fixed: Float32[np.ndarray, "h w"], moving: Float32[np.ndarray, "mh mw"]) -> None:
        self.fixed = _descriptor(fixed)
        # One remap serves four channels: value and slopes of a neighbour each.
        self.moving = [np.dstack([plane, *slopes(plane)]) for plane in _descriptor(moving)]
        self.shape = moving.shape

    def ascend(
        self, at: Float32[np.ndarray, "2 h w"], tissue: Float32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "2 h w"]:
        """Gradient by place of minus the mean absolute difference over the tissue of the fixed picture."""
        weight = tissue * lies_on(at, (self.shape[0], self.shape[1])) / max(float(tissue.sum()), 1.0)
        gradient = np.zeros_like(at)
        for fixed, moving in zip(self.fixed, self.moving, strict=True):
            seen = look(moving, at)
            gradient += np.sign(fixed - seen[..., 0]) * weight * seen[..., 1:].transpose(2, 0, 1)
        result: np.ndarray = gradient / np.float32(len(self.fixed))
        return result


def _descriptor(image: Float32[np.ndarray, "h w"]) -> list[Float32[np.ndarray, "h w"]]:
    """exp(−patch distance to each neighbour / local mean of these distances), 0 to 1."""
    height, width = image.shape
    padded = cv2.copyMakeBorder(image, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    distances = [
        blur((image - padded[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]) ** 2, 1.5) for dx, dy in NEIGHBOURS
    ]
    spread = np.mean(distances, axis=0) + np.float32(1e-3)
    return [np.exp(-distance / spread) for distance in distances]
