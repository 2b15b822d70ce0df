"""Shade: light lost evenly over all colours, by vignetting, dust, a veil of mounting medium or a coverslip's edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.quality.pixels import disk, low_pass, shrink
from hepipe.stains.deconvolution import WHITE, optical_density

WORK_MPP = 4.0
NEAR_UM, NEAR_PERCENTILE = 16.0, 95.0
FAR_UM, FAR_PERCENTILE = 40.0, 50.0
PINK, BROWN = 2.0, 1.6
"""What haematoxylin with eosin and what DAB leave in the lightest places of dense tissue is coloured: more green than
blue absorbed, or more than 1.6 times as much blue as red. A shade is not, so colour counts against it, pink twice.
Set on drawn cohorts of seeds 2 and 3 and on 18 sound public pictures."""


def shade(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`shade_*` in the darkest part of the tile, `veil_*` in half of it: grey OD of the lightest place nearby.

    Nearby is 16 µm for a shade and 40 µm for a veil.

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
        od = low_pass(optical_density(small, white), 0.7)
        for name, reach_um, percentile in (
            ("shade", NEAR_UM, NEAR_PERCENTILE),
            ("veil", FAR_UM, FAR_PERCENTILE),
        ):
            floor = grey(cv2.erode(od, disk(reach_um / work_mpp)))
            found[f"{name}_{stain}"] = float(max(0.0, np.percentile(floor, percentile)))
    return found


def grey(od: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """What of a density is the same in all colours; below 0 where colour outweighs it."""
    red, green, blue = cv2.split(od)
    least = np.minimum(np.minimum(red, green), blue)
    neutral: np.ndarray = least - PINK * np.maximum(green - blue, 0) - np.maximum(blue - BROWN * red, 0)
    return neutral
