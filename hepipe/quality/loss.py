"""Glass, and tissue that is missing in one of the two stains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import disk, shrink, tissue_mask, total_od
from hepipe.stains.deconvolution import WHITE

WORK_MPP = 4.0
REACH_UM = 16.0
"""Gaps narrower than this on one side only are swelling, not loss."""


def loss(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`white_frac_*`: share of the tile that is glass; `lost_frac_*`: tissue in the other stain, glass in this one.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide; unstained tissue is hardly darker than glass, so it matters.
        white_ihc: White point of the IHC slide.
    """
    small, work_mpp = shrink(he, mpp, WORK_MPP)
    in_he = tissue_mask(total_od(small, white_he), work_mpp)
    in_ihc = tissue_mask(total_od(shrink(ihc, mpp, WORK_MPP)[0], white_ihc), work_mpp)
    reach = disk(REACH_UM / work_mpp)
    grown_he = cv2.dilate(in_he.astype(np.uint8), reach).astype(bool)
    grown_ihc = cv2.dilate(in_ihc.astype(np.uint8), reach).astype(bool)
    return {
        "white_frac_he": 1 - float(in_he.mean()),
        "white_frac_ihc": 1 - float(in_ihc.mean()),
        "lost_frac_he": float((in_ihc & ~grown_he).mean()),
        "lost_frac_ihc": float((in_he & ~grown_ihc).mean()),
    }
