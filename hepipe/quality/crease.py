"""Creases: tissue folded onto itself, twice as dense over a band, without a gap."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import TISSUE_OD, disk, low_pass, shrink, total_od

WORK_MPP = 2.0
GAP_UM = 4.0
"""Ordinary tissue has a lighter place within this distance: cytoplasm beside a nucleus, a cleft beside a fibre."""
CONTEXT_UM = 4.0


def crease(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`crease_he`, `crease_ihc`: how much denser than its surroundings the densest 2 % of the tile is, OD.

    Evenly strong staining is no crease: without the comparison with the tile's own median a dense H&E tile reads like
    a fold in a pale one.
    """
    return {"crease_he": dense_od(he, mpp), "crease_ihc": dense_od(ihc, mpp)}


def dense_od(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """98th percentile of the least optical density within 4 µm, less the median density of the tissue."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    od = low_pass(total_od(small), 1.0)
    usual = low_pass(od, CONTEXT_UM / work_mpp)
    tissue = usual > TISSUE_OD
    median = float(np.median(usual[tissue])) if tissue.any() else 0.0
    return float(np.percentile(cv2.erode(od, disk(GAP_UM / work_mpp)), 98)) - median
