"""Over-stain: colour everywhere, so that no light place is left between nuclei, membranes and fibres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import disk, low_pass, shrink
from hepipe.stains.deconvolution import WHITE, optical_density

WORK_MPP = 2.0
REACH_UM = 8.0
"""Half a tumour cell: between its membrane and its nucleus even a 3+ cell has cytoplasm that is lighter."""
PERCENTILE = 75.0


def overstain(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`overstain_*`: OD of the lightest place within 8 µm, in the channel that is stained most, over most of the tile.

    The lightest place is taken of the most absorbing channel, so a strong but local stain stays low: DAB of a 3+ tile
    lies on membranes.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide.
        white_ihc: White point of the IHC slide.
    """
    return {"overstain_he": floor_od(he, mpp, white_he), "overstain_ihc": floor_od(ihc, mpp, white_ihc)}


def floor_od(rgb: UInt8[np.ndarray, "h w 3"], mpp: float, white: Sequence[float]) -> float:
    """75th percentile over the tile of the least density within reach, of the most absorbing channel."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    red, green, blue = cv2.split(optical_density(small, white))
    most = low_pass(np.maximum(np.maximum(red, green), blue), 0.7)
    return float(max(0.0, np.percentile(cv2.erode(most, disk(REACH_UM / work_mpp)), PERCENTILE)))
