"""Fields that the scanner left out and a viewer fills: one grey, or two in a chequer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.quality.pixels import disk, shrink
from hepipe.stains.deconvolution import WHITE

WORK_MPP = 0.5
REACH_PX = 2
"""All px this near, and all channels of them, have one grey level: no scanner's noise does that over a field."""
BELOW_WHITE = 6
"""Grey levels: brighter even areas are glass that JPEG, or the scanner, made even. Glass varies by about 4."""
OPEN_UM = 0.5
MIN_FRAC = 0.01
"""Of grey px: tissue has hardly any, and need not be looked at further."""


def unscanned(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`unscanned_he`, `unscanned_ihc`: share of the tile that is one even grey, 0 to 1.

    A chequer of grey and white counts with its grey half, which is enough for a limit of a few per cent.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide.
        white_ihc: White point of the IHC slide.
    """
    return {
        "unscanned_he": float(filled(*shrink(he, mpp, WORK_MPP), white=white_he).mean()),
        "unscanned_ihc": float(filled(*shrink(ihc, mpp, WORK_MPP), white=white_ihc).mean()),
    }


def filled(rgb: UInt8[np.ndarray, "h w 3"], mpp: float, *, white: Sequence[float] = WHITE) -> Bool[np.ndarray, "h w"]:
    """Px in an even grey area, 7 px wide at least."""
    kernel = np.ones((2 * REACH_PX + 1, 2 * REACH_PX + 1), np.uint8)
    red, green, blue = cv2.split(rgb)
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    if np.count_nonzero(most == least) < MIN_FRAC * most.size:
        return np.zeros(most.shape, bool)
    even = (cv2.dilate(most, kernel) == cv2.erode(least, kernel)) & (most <= min(white) - BELOW_WHITE)
    opened = cv2.morphologyEx(even.astype(np.uint8), cv2.MORPH_OPEN, disk(OPEN_UM / mpp))
    area: np.ndarray = cv2.dilate(opened, kernel).astype(bool)
    return area
