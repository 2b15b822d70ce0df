"""Tissue that is missing in one of the two stains: torn, folded away or washed off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import disk, low_pass, shrink, total_od
from hepipe.stains.deconvolution import WHITE

WORK_MPP = 4.0
SMOOTH_UM = 4.0
REACH_UM = 16.0
"""Of the next section: gaps narrower than twice this on one side only are its own clefts and swelling, not loss."""
SAME_SECTION_REACH_UM = 4.0
"""Of the same section stained again: its clefts are the same, and registration is off by less."""
BARE_OD = 0.012
TISSUE_OD = {"he": 0.05, "ihc": 0.03}
"""Low-passed over 4 µm, on this slide and, by stain, on the other: between them lies pale tissue, which says nothing.
Set on drawn cohorts of seeds 2 and 3."""


def loss(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
    reach_um: float = REACH_UM,
) -> Mapping[str, float]:
    """`lost_frac_he`, `lost_frac_ihc`: share of the tile that is tissue in the other stain and bare glass in this one.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide; unstained tissue is hardly darker than glass, so it matters.
        white_ihc: White point of the IHC slide.
        reach_um: How far from anything on this slide a place must lie to count as lost.
    """
    small_he, work_mpp = shrink(he, mpp, WORK_MPP)
    small_ihc, _ = shrink(ihc, mpp, WORK_MPP)
    reach = disk(reach_um / work_mpp)
    shares = {}
    for stain, this, white_this, other, white_other, least_od in (
        ("he", small_he, white_he, small_ihc, white_ihc, TISSUE_OD["ihc"]),
        ("ihc", small_ihc, white_ihc, small_he, white_he, TISSUE_OD["he"]),
    ):
        bare = low_pass(total_od(this, white_this), SMOOTH_UM / work_mpp) < BARE_OD
        covered = cv2.dilate((~bare).astype(np.uint8), reach).astype(bool)
        tissue = low_pass(total_od(other, white_other), SMOOTH_UM / work_mpp) > least_od
        shares[f"lost_frac_{stain}"] = float((tissue & ~covered).mean())
    return shares
