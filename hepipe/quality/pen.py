"""Pen ink: blue, green, red or black areas too even and too far from the stains' colours to be tissue."""

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
OPEN_UM = 8.0
MIN_OD = 0.1


def pen(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`pen_he`, `pen_ihc`: share of the tile under ink, 0 to 1."""
    return {"pen_he": ink_frac(he, mpp), "pen_ihc": ink_frac(ihc, mpp)}


def ink_frac(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """Share of px whose low-passed optical density has the colour of ink."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    return float(ink(small, work_mpp).mean())


def ink(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> Bool[np.ndarray, "h w"]:
    """Where ink is.

    Stains absorb green at least 0.8 times as much as red and more than 0.12 times as much red as green; inks do not.
    The factors keep blue counterstains (red 1.3 times green), eosin and blood apart: checked on H&E and IHC tiles of
    eight public slides. Red ink on tissue is too near to eosin and blood: it is found on glass and fat only.
    """
    od = low_pass(optical_density(rgb), SMOOTH_UM / mpp)
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    level = od.mean(-1)
    green_ink = (level > MIN_OD) & (red > 1.3 * green) & (blue > 0.9 * green)
    blue_ink = (level > MIN_OD) & (red > 1.35 * green) & (blue < 0.6 * green)
    red_ink = (level > 0.25) & (red < 0.12 * green) & (blue > 0.6 * green)
    black_ink = (level > 0.5) & (od.min(-1) > 0.75 * od.max(-1))
    found = green_ink | blue_ink | red_ink | black_ink
    opened: np.ndarray = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, disk(OPEN_UM / mpp))
    inked: np.ndarray = opened.astype(bool)
    return inked
