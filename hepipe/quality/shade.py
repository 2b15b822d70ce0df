"""Shade: light lost evenly over all colours, by vignetting, dust or a dark coverslip edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.quality.pixels import disk, low_pass, shrink
from hepipe.stains.deconvolution import WHITE, optical_density

WORK_MPP = 4.0
NEAR_UM = 24.0
FAR_UM = 40.0


def shade(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`shade_*`: OD lost in every colour in the darkest part of the tile; `veil_*`: in half of the tile.

    No stain absorbs every colour everywhere: between strongly stained membranes and nuclei there is always a lighter
    px, so that a 3+ tile stays low where a shaded one does not.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide.
        white_ihc: White point of the IHC slide.
    """
    found = {}
    for stain, rgb, white in (("he", he, white_he), ("ihc", ihc, white_ihc)):
        small, work_mpp = shrink(rgb, mpp, WORK_MPP)
        least = low_pass(optical_density(small, white).min(-1), 0.7)
        found[f"shade_{stain}"] = _floor_od(least, NEAR_UM / work_mpp, 95.0)
        found[f"veil_{stain}"] = _floor_od(least, FAR_UM / work_mpp, 50.0)
    return found


def _floor_od(least: Float32[np.ndarray, "h w"], reach_px: float, percentile: float) -> float:
    """A percentile of the least density within reach."""
    return float(max(0.0, np.percentile(cv2.erode(least, disk(reach_px)), percentile)))
