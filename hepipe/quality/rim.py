"""Rims: thin lines that are dark in every colour, round around an air bubble and straight along a coverslip's edge."""

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


def rim(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`rim_um_he`, `rim_um_ihc`: extent of the longest thin line that is dark in all colours, µm; 0 for none."""
    return {"rim_um_he": longest_rim_um(he, mpp), "rim_um_ihc": longest_rim_um(ihc, mpp)}


def longest_rim_um(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """Diagonal of the bounding box of the longest such line."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    ridge = rims(optical_density(small).min(-1), work_mpp)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(ridge.astype(np.uint8), connectivity=8)
    longest = max((math.hypot(*boxes[part, 2:4]) * work_mpp for part in range(1, count)), default=0.0)
    return longest if longest >= MIN_LENGTH_UM else 0.0


def rims(least_od: Float32[np.ndarray, "h w"], mpp: float) -> Bool[np.ndarray, "h w"]:
    """Where the least density of three channels has a ridge."""
    sigma = max(0.7, WIDTH_UM / mpp)
    ridge: np.ndarray = low_pass(least_od, sigma) - low_pass(least_od, 3 * sigma) > MIN_RIDGE_OD
    return ridge
