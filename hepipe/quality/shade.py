"""Shade: light lost evenly over all colours, by vignetting, dust or a dark coverslip edge."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import disk, low_pass, shrink
from hepipe.stains.deconvolution import optical_density

WORK_MPP = 4.0
REACH_UM = 24.0


def shade(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`shade_he`, `shade_ihc`: optical density that the darkest part of the tile has in every colour everywhere."""
    return {"shade_he": shade_od(he, mpp), "shade_ihc": shade_od(ihc, mpp)}


def shade_od(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """95th percentile of the least density (any channel, within 24 µm).

    No stain absorbs red light everywhere: between strongly stained membranes and nuclei there is always a lighter px,
    so that a 3+ tile stays low where a shaded one does not.
    """
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    least = low_pass(optical_density(small).min(-1), 0.7)
    floor = cv2.erode(least, disk(REACH_UM / work_mpp))
    return float(max(0.0, np.percentile(floor, 95)))
