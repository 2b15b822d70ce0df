"""Pen ink: blue, green or black areas too even and too far from the stains' colours to be tissue."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.quality.pixels import disk, low_pass, shrink
from hepipe.stains.deconvolution import optical_density

WORK_MPP = 4.0
SMOOTH_UM = 6.0
"""Wider than a nucleus, so that single nuclei never look like ink."""
MIN_OD = 0.12


def pen(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`pen_he`, `pen_ihc`: share of the tile under ink, 0 to 1."""
    return {"pen_he": ink_frac(he, mpp), "pen_ihc": ink_frac(ihc, mpp)}


def ink_frac(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """Share of px whose low-passed optical density has the colour of ink."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    return float(ink(small, work_mpp).mean())


def ink(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> Bool[np.ndarray, "h w"]:
    """Where ink is. Haematoxylin, eosin and DAB all absorb green more than red; inks do not."""
    od = low_pass(optical_density(rgb), SMOOTH_UM / mpp)
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    level = od.mean(-1)
    green_ink = (red > 1.15 * green) & (blue > 0.6 * green)
    blue_ink = (red > 1.15 * green) & (green > blue)
    black_ink = (od.min(-1) > 0.75 * od.max(-1)) & (level > 0.55)
    found = ((level > MIN_OD) & (green_ink | blue_ink)) | black_ink
    opened: np.ndarray = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, disk(2 * SMOOTH_UM / mpp))
    inked: np.ndarray = opened.astype(bool)
    return inked
