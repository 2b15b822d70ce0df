"""A ghost: every structure twice, a few µm apart (a shaken scan, stitched strips that do not meet).

The echo of a picture x(p) + r x(p - d) multiplies its spectrum by 1 + r exp(-i w d), so the logarithm of the power
holds a ripple 2 r cos(w d), whatever x is. Its inverse transform, the power cepstrum (Bogert, Healy and Tukey, The
quefrency alanysis of time series for echoes, 1963), peaks at d with a height near r.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np
import scipy.fft
from jaxtyping import Float32, Int, UInt8

from hepipe.quality.pixels import shrink, total_od

WORK_MPP = 0.5
WINDOW_PX = 96
"""48 µm: a ghost over a part of the tile fills a window. Four neighbours are averaged, against chance."""
NEAR_UM, FAR_UM = 3.6, 20.0
"""Lags looked at; nearer ones belong to the structures themselves: lamellae and fibres of public pictures echo at 3."""
LOW, HIGH = 0.03, 0.8
"""Of the band, cycles per µm: uneven tissue below, the camera's noise above."""
MOST_LOG = 3.0
"""Single coefficients near 0 would ring in all lags."""
JPEG_PX = 8
"""Side of a block of JPEG: in a nearly empty tile of a scan that is stored so, the blocks are the clearest structure.
Lags along the axes by whole blocks are left out."""
BESIDE_PX = 3
"""What lies nearer to a peak is the peak."""


def doubling(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`doubling_he`, `doubling_ihc`: the clearest echo in any part of the tile, 0 to 1; about 0.03 for none."""
    return {"doubling_he": echo(he, mpp), "doubling_ihc": echo(ihc, mpp)}


def echo(rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> float:
    """How far the highest peak of the cepstrum between 3.6 and 20 µm leads the next one; nan for a flat tile.

    Fibres and rows of nuclei have many peaks of one height, a ghost has one. An even mixture of a picture and its copy
    has the highest echo.
    """
    small, work_mpp = shrink(rgb, mpp, WORK_MPP)
    od = total_od(small)
    side = min(WINDOW_PX, *(length // 2 * 2 for length in od.shape))
    band, ring, weights, bins, window = _plan(side, work_mpp, JPEG_PX * mpp / work_mpp)
    if od.std() < 1e-3 or not len(ring):
        return math.nan
    rows, columns = (range(0, length - side + 1, side // 2) for length in od.shape)
    windows = np.stack([od[y : y + side, x : x + side] for y in rows for x in columns])
    windows = (windows - windows.mean(axis=(1, 2), keepdims=True)) * window
    power = np.log(np.abs(scipy.fft.rfft2(windows)[:, band]) ** 2 + np.float32(1e-9))
    # The round shape of nuclei, alike in all directions, is taken out.
    totals = np.bincount(bins, weights)
    shape = np.stack([np.bincount(bins, weights * one) / totals for one in power])
    flat = np.zeros((len(power), *band.shape), np.float32)
    flat[:, band] = np.clip(power - shape[:, bins], -MOST_LOG, MOST_LOG)
    mean = _neighbours(flat.reshape(len(rows), len(columns), *band.shape))
    lags = scipy.fft.irfft2(mean, (side, side)) * np.float32(side * side / weights.sum())
    return float(np.clip(_best_lead(lags.reshape(len(lags), -1)[:, ring], ring // side, ring % side, side), 0, 1))


def _best_lead(
    lags: Float32[np.ndarray, "n r"], row: Int[np.ndarray, " r"], column: Int[np.ndarray, " r"], side: int
) -> float:
    """Of all windows, the most that the highest lag leads the next; what lies beside it or its opposite belongs to it.

    A lead is no higher than its peak, so lower peaks than the best lead are not looked at.
    """
    places = lags.argmax(axis=1)
    peaks = lags[np.arange(len(lags)), places]
    most = 0.0
    for window in np.argsort(-peaks, kind="stable"):
        if peaks[window] <= most:
            break
        others = lags[window].copy()
        for sign in (1, -1):
            down, right = ((sign * at[places[window]] - at + side // 2) % side - side // 2 for at in (row, column))
            others[(np.abs(down) <= BESIDE_PX) & (np.abs(right) <= BESIDE_PX)] = 0
        most = max(most, float(peaks[window]) - max(float(others.max()), 0.0))
    return most


def _neighbours(grid: Float32[np.ndarray, "r c h w"]) -> Float32[np.ndarray, "n h w"]:
    """Means of two by two neighbours, or of as many as there are."""
    for axis in (0, 1):
        if grid.shape[axis] > 1:
            count = grid.shape[axis] - 1
            grid = (np.take(grid, range(count), axis) + np.take(grid, range(1, count + 1), axis)) / 2
    return grid.reshape(-1, *grid.shape[2:])


@functools.lru_cache(maxsize=4)
def _plan(
    side: int, mpp: float, block_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Float32[np.ndarray, "h w"]]:
    """Of a window: the band, places in the ring of lags, weight and distance of each coefficient, and the taper."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    band = (frequency > LOW * mpp) & (frequency < HIGH * mpp)
    lag = np.minimum(np.arange(side), side - np.arange(side)) * mpp
    distance = np.hypot(lag[:, None], lag[None])
    far = (distance >= max(NEAR_UM, 2 * mpp)) & (distance <= min(FAR_UM, (side / 2 - 1) * mpp))
    steps = np.arange(side)
    blocks = np.abs(steps / block_px - np.rint(steps / block_px)) * block_px <= 1
    axis = np.minimum(steps, side - steps) <= 1
    far &= ~(np.outer(axis, blocks) | np.outer(blocks, axis))
    far[side // 2 + 1 :] = False  # the cepstrum is the same at opposite lags
    ring = np.flatnonzero(far)
    half = np.arange(side // 2 + 1)
    twice = np.where((half > 0) & (half < side // 2), 2.0, 1.0)[None] * np.ones((side, 1))
    bins = np.unique(np.rint(frequency[band] * side).astype(int), return_inverse=True)[1]
    hann = np.hanning(side).astype(np.float32)
    return band, ring, twice[band], bins, np.outer(hann, hann)
