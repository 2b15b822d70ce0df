"""A ghost: every structure twice, a few µm apart (a shaken scan, stitched strips that do not meet)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.quality.pixels import low_pass, shrink, total_od

WORK_MPP = 0.5
NEAR_UM, FAR_UM = 4.0, 20.0
"""Lags looked at; nearer ones belong to the structures themselves."""


def doubling(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`doubling_he`, `doubling_ihc`: the highest echo, 0 to 1, in the autocorrelation of fine structure."""
    return {"doubling_he": echo(he, mpp), "doubling_ihc": echo(ihc, mpp)}


def echo(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """How far a peak between 4 and 20 µm stands out of the ring of its distance; nan for a flat tile.

    An even mixture of a picture and its copy has the highest echo.
    """
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    od = total_od(small)
    fine = low_pass(od, 1.0) - low_pass(od, 3.0)
    fine = fine * np.outer(np.hanning(fine.shape[0]), np.hanning(fine.shape[1])).astype(np.float32)
    power = np.abs(np.fft.rfft2(fine)) ** 2
    # Whitened in part: otherwise the round shape of nuclei spreads over all short lags.
    lags = np.fft.irfft2(np.sqrt(power), fine.shape)
    if lags[0, 0] < 1e-6:
        return math.nan
    lags = np.fft.fftshift(lags / lags[0, 0]).astype(np.float32)
    return _peak(lags, NEAR_UM / work_mpp, FAR_UM / work_mpp)


def _peak(lags: Float32[np.ndarray, "h w"], near_px: float, far_px: float) -> float:
    height, width = lags.shape
    y, x = np.ogrid[:height, :width]
    radius = np.hypot(y - height // 2, x - width // 2)
    far = min(far_px, min(height, width) / 2 - 1)
    ring = (radius >= max(near_px, 2.0)) & (radius <= far)
    if not ring.any():
        return math.nan
    return float(np.clip(lags[ring].max() - np.median(lags[ring]), 0, 1))
