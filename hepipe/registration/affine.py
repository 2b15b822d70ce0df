"""The affine part: local correlation climbed with Adam, coarse to fine."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32

from hepipe.geometry import Transform, scaling
from hepipe.registration.ncc import Adam, Comparison
from hepipe.registration.overview import positions, shrink_features

SCALES_PX = (128, 256)
"""Longer side of the pictures, coarse to fine (1/8 and 1/4 of the pictures that this was first tried on)."""
STEPS = 60
"""Per scale. Forty at the coarse one lost one of five real pairs."""
SIGMA_PX = 7.0
RIGIDITY = 0.2
"""Weight of the squared departure from a rigid placement. Both pictures have one physical resolution, and sections
differ by some per cent; without it, a cover slip's edge taken for tissue stretched one drawn section by 14 %. Where a
resolution is unknown, only the departure from a similarity counts."""


def refine_affine(
    fixed: Float32[np.ndarray, "c fh fw"],
    moving: Float32[np.ndarray, "c mh mw"],
    start: Float[np.ndarray, "3 3"],
    *,
    scales_px: tuple[int, ...] = SCALES_PX,
    steps: int = STEPS,
    free_scale: bool = False,
) -> Float[np.ndarray, "3 3"]:
    """The affine near `start` under which the features agree best, in px of the pictures given.

    Args:
        fixed: Features of the H&E picture.
        moving: Features of the IHC picture, same resolution.
        start: `moving_from_fixed`.
        scales_px: Longer side of the pictures compared, coarse to fine; none is enlarged.
        steps: Per scale.
        free_scale: Any size is as good as 1: one of the resolutions is not known.
    """
    found = start
    for longest in scales_px:
        factor = min(1.0, longest / max(fixed.shape[1:]))
        comparison = Comparison(shrink_features(fixed, factor), shrink_features(moving, factor), sigma=SIGMA_PX)
        shrink = scaling(factor)
        small = _climb(comparison, shrink @ found @ np.linalg.inv(shrink), steps=steps, free_scale=free_scale)
        found = np.linalg.inv(shrink) @ small @ shrink
    return found


def _climb(
    comparison: Comparison, start: Float[np.ndarray, "3 3"], *, steps: int, free_scale: bool
) -> Float[np.ndarray, "3 3"]:
    height, width = comparison.fixed.shape[1:]
    reach = max(height, width) / 2
    # Every parameter is a shift in px, of the whole picture or of its edge, so that one rate suits all.
    x, y = np.meshgrid((np.arange(width) + 0.5 - width / 2) / reach, (np.arange(height) + 0.5 - height / 2) / reach)
    basis = np.stack([np.ones_like(x), x, y]).astype(np.float32)
    parameters = np.zeros((2, 3))
    optimizer = Adam(parameters.shape)
    best, best_score = start, -math.inf
    for step in range(steps + 1):
        matrix = start @ _affine(parameters, width=width, height=height, reach=reach)
        at = positions(Transform(matrix, 1.0, 1.0), shape=(height, width))
        score, gradient = comparison.ascend(at)
        linear = matrix[:2, :2]
        departure, by_linear = _departure(linear, free_scale=free_scale)
        score -= RIGIDITY * departure
        if score > best_score:
            best, best_score = matrix, score
        by_shift = np.einsum("ab,ahw->bhw", start[:2, :2], gradient)
        by_parameter = np.einsum("bhw,phw->bp", by_shift, basis, dtype=np.float64)
        by_parameter[:, 1:] -= RIGIDITY * start[:2, :2].T @ by_linear / reach
        rate = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))
        parameters = parameters + optimizer.step(by_parameter, rate)
    return best


def _departure(linear: Float[np.ndarray, "2 2"], *, free_scale: bool) -> tuple[float, Float[np.ndarray, "2 2"]]:
    """Squared distance of `linearᵀ linear` (over its mean stretch, if that is free) from 1, and its gradient."""
    stretch = linear.T @ linear
    mean = float(np.trace(stretch)) / 2 if free_scale else 1.0
    beyond = stretch / mean - np.eye(2)
    by_stretch = 2 * beyond / mean
    if free_scale:
        by_stretch = by_stretch - np.eye(2) * float((beyond * stretch).sum()) / mean**2
    return float((beyond**2).sum()), 2 * linear @ by_stretch


def _affine(parameters: Float[np.ndarray, "2 3"], *, width: int, height: int, reach: float) -> Float[np.ndarray, "3 3"]:
    """The matrix of `x + t + M (x − centre) / reach`."""
    linear = parameters[:, 1:] / reach
    matrix = np.eye(3)
    matrix[:2, :2] += linear
    matrix[:2, 2] = parameters[:, 0] - linear @ np.array([width / 2, height / 2])
    return matrix
