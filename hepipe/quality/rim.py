"""Rims: thin lines that are dark in every colour, straight along a coverslip's edge and round along an air bubble."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from hepipe.quality.pixels import low_pass, shrink
from hepipe.stains.deconvolution import optical_density

WORK_MPP = 2.0
WIDTH_UM = 3.0
MIN_RIDGE_OD = 0.10
"""How much darker, in its lightest channel, a rim is than what lies 10 µm to either side."""
MIN_LENGTH_UM = 40.0
BENT = 0.08
"""Height of an arc over its chord from which a rim is round: an arc of 100 µm on a bubble of 150 µm radius."""


def rim(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`edge_um_*`, `bubble_um_*`: extent of the longest straight and of the longest bent rim, µm; 0 for none.

    A short arc of a large bubble is straight, so the two names are a hint; both are artifacts.
    """
    found: dict[str, float] = {}
    for stain, rgb in (("he", he), ("ihc", ihc)):
        straight, bent = longest_rims_um(rgb, mpp)
        found |= {f"edge_um_{stain}": straight, f"bubble_um_{stain}": bent}
    return found


def longest_rims_um(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> tuple[float, float]:
    """Extent of the longest straight and of the longest bent line."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    ridge = rims(optical_density(small).min(-1), work_mpp)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(ridge.astype(np.uint8), connectivity=8)
    longest = [0.0, 0.0]
    for part in range(1, count):
        length = math.hypot(*boxes[part, 2:4]) * work_mpp
        if length < MIN_LENGTH_UM:
            continue
        left, top, width, height = boxes[part, :4]
        bent = _is_bent(labels[top : top + height, left : left + width] == part)
        longest[bent] = max(longest[bent], length)
    return longest[0], longest[1]


def rims(least_od: Float32[np.ndarray, "h w"], mpp: float) -> Bool[np.ndarray, "h w"]:
    """Where the least density of three channels has a ridge."""
    sigma = max(0.7, WIDTH_UM / mpp)
    ridge: np.ndarray = low_pass(least_od, sigma) - low_pass(least_od, 3 * sigma) > MIN_RIDGE_OD
    return ridge


def _is_bent(part: Bool[np.ndarray, "h w"]) -> bool:
    """Whether a line leaves its own axis by more than its width and a part of its length."""
    points = np.argwhere(part).astype(np.float64)
    points -= points.mean(axis=0)
    _, axes = np.linalg.eigh(points.T @ points)
    aside, along = np.ptp(points @ axes[:, 0]), max(float(np.ptp(points @ axes[:, 1])), 1.0)
    return bool(aside - len(points) / along > BENT * along)
