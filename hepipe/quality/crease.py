"""Creases: tissue folded onto itself, twice as dense over a band, without a gap."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import disk, low_pass, shrink, total_od

WORK_MPP = 2.0
GAP_UM = 6.0
"""Ordinary tissue has a lighter place within this distance: cytoplasm beside a nucleus, a cleft beside a fibre."""


def crease(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`crease_he`, `crease_ihc`: optical density that a twentieth of the tile nowhere falls below."""
    return {"crease_he": dense_od(he, mpp), "crease_ihc": dense_od(ihc, mpp)}


def dense_od(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """95th percentile of the least optical density within 6 µm."""
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    od = low_pass(total_od(small), 1.0)
    return float(np.percentile(cv2.erode(od, disk(GAP_UM / work_mpp)), 95))
