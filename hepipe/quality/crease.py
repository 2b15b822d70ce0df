"""Creases: tissue folded onto itself, twice as dense over a band, without a gap."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import disk, low_pass, shrink, total_od

WORK_MPP = 2.0
GAP_UM = 4.0
"""Ordinary tissue has a lighter place within this distance: cytoplasm beside a nucleus, a cleft beside a fibre."""
AROUND_UM = 40.0


def crease(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`crease_he`, `crease_ihc`: how much denser than its surroundings the densest 2 % of the tile is, OD.

    Evenly strong staining is no crease. What lies within 40 µm is asked, not the tile's median: a tumour beside pale
    stroma is denser than the tile, a fold is denser than the tumour that it lies in.
    """
    return {"crease_he": dense_od(he, mpp), "crease_ihc": dense_od(ihc, mpp)}


def dense_od(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """98th percentile of the least optical density within 4 µm, less the mean density of the surroundings."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    od = low_pass(total_od(small), 1.0)
    coarse, coarse_mpp = cv2.resize(od, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), 4 * work_mpp
    around = cv2.resize(low_pass(coarse, AROUND_UM / coarse_mpp), od.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return float(np.percentile(cv2.erode(od, disk(GAP_UM / work_mpp)) - around, 98))
