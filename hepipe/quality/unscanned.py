"""Fields that the scanner left out and a viewer fills: one grey, or two in a chequer."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.quality.pixels import disk, shrink

WORK_MPP = 1.0
REACH_PX = 2
MOST_SPREAD = 0
"""Grey levels within reach and between channels: no scanner's noise is that small over a whole field."""
MAX_GREY = 250
"""Brighter even areas are glass that a scanner, or its software, made white: no field is missing there."""
OPEN_UM = 1.0


def unscanned(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`unscanned_he`, `unscanned_ihc`: share of the tile that is one even grey, 0 to 1.

    A chequer of grey and white counts with its grey half, which is enough for a limit of a few per cent.
    """
    return {
        "unscanned_he": float(filled(shrink(he, mpp, WORK_MPP)[0], mpp=max(mpp, WORK_MPP)).mean()),
        "unscanned_ihc": float(filled(shrink(ihc, mpp, WORK_MPP)[0], mpp=max(mpp, WORK_MPP)).mean()),
    }


def filled(rgb: UInt8[np.ndarray, "h w 3"], *, mpp: float) -> Bool[np.ndarray, "h w"]:
    """Px in an even grey area, 7 µm wide at least."""
    kernel = np.ones((2 * REACH_PX + 1, 2 * REACH_PX + 1), np.uint8)
    red, green, blue = cv2.split(rgb)
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    even = (cv2.dilate(most, kernel) - cv2.erode(least, kernel) <= MOST_SPREAD) & (most <= MAX_GREY)
    opened: np.ndarray = cv2.morphologyEx(even.astype(np.uint8), cv2.MORPH_OPEN, disk(OPEN_UM / mpp)).astype(bool)
    return opened
