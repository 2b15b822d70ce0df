"""The coverslip's edge in the overview of a slide: shadows and cracks, grey or black and long."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.stains.deconvolution import WHITE, optical_density

MIN_OD = 0.11
"""Of the lightest channel: shadow, not the veil of mounting medium."""
NEUTRAL = 0.7
"""Least part of the darkest channel's density that the lightest one has; stained tissue has at most half."""
MIN_LENGTH_UM = 200.0


def edge_mask(
    rgb: UInt8[np.ndarray, "h w 3"], mpp: float, *, white: Sequence[float] = WHITE
) -> Bool[np.ndarray, "h w"]:
    """Where an overview at about 4 to 16 µm per px shows a coverslip's edge or cracks of the mounting medium.

    Black ink looks alike: ask `pen_mask` too. The constants were set on the coverslip edge of HistoQC.

    Args:
        rgb: The overview; in a tile an edge is a thin rim (`rim.py`) or all shade (`shade.py`).
        mpp: Of it.
        white: What empty glass shows.
    """
    density = optical_density(rgb, white)
    red, green, blue = cv2.split(density)
    least = np.minimum(np.minimum(red, green), blue)
    dark = (least > MIN_OD) & (least > NEUTRAL * np.maximum(np.maximum(red, green), blue))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(dark.astype(np.uint8), connectivity=8)
    long = np.array([part > 0 and math.hypot(*boxes[part, 2:4]) * mpp >= MIN_LENGTH_UM for part in range(count)])
    mask: np.ndarray = long[labels]
    return mask
