"""Tissue against glass: Otsu's threshold of optical density or saturation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

OD_CEILING = 0.08
"""Mean OD is cut here before the threshold is sought: otherwise Otsu parts dark tissue from pale tissue (strong cortex
and pale medulla of a kidney) instead of tissue from glass."""
OD_FLOOR = 0.02
"""Below this a threshold separates two shades of glass, not tissue."""
SATURATION_FLOOR = 0.03
STRIP_PX = 1_000_000
KEPT_STRIPS = 4


def white_point(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " 3"]:
    """The glass colour: the 95th percentile of each channel among px that are not pure white, at least 128.

    Pure white is what readers put beyond a slide's edge, not glass.
    """
    counts = np.zeros((3, 256), np.int64)
    for rows in strips(rgb.shape):
        part = rgb[rows]
        for channel in range(3):
            counts[channel] += cv2.calcHist([part], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        counts[:, 255] -= cv2.countNonZero(cv2.inRange(part, (255, 255, 255), (255, 255, 255)))
    if not counts.any():
        return np.full(3, 255.0)
    return np.maximum([_percentile(one, 0.95) for one in counts], 128.0)


def _percentile(counts: np.ndarray, share: float) -> float:
    """Of values 0, 1, … that come that often, linear between neighbours as `numpy.percentile` is."""
    place = share * (int(counts.sum()) - 1)
    below = math.floor(place)
    low, high = (int(np.searchsorted(np.cumsum(counts), at, side="right")) for at in (below, math.ceil(place)))
    return low + (high - low) * (place - below)


def mean_od(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Optical density (base 10) against the glass, mean of the channels, 0 where brighter than the glass."""
    return _mean_od(rgb, white_point(rgb))


def _mean_od(rgb: UInt8[np.ndarray, "h w 3"], white: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "h w"]:
    grey = np.maximum(np.arange(256), 1)[:, None]
    table = np.maximum(np.log10(white / grey), 0).astype(np.float32)
    density = cv2.LUT(np.ascontiguousarray(rgb), table[None])
    mean: np.ndarray = (density[..., 0] + density[..., 1] + density[..., 2]) / np.float32(3)
    return mean


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows that hold about a million px: a slide at 8 µm may have 20, and each is worked on as several floats."""
    step = max(1, STRIP_PX // shape[1])
    return (slice(top, min(top + step, shape[0])) for top in range(0, shape[0], step))


def is_ink(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Black, green and saturated blue marks: colours that neither H&E nor haematoxylin with DAB makes.

    Black is every channel below 70 with a spread below 25; green exceeds red and blue by 20; blue has less than 0.4 of
    its blue in red. Red ink is not told from eosin here.
    """
    red, green, blue = (rgb[..., channel].astype(np.int16) for channel in range(3))
    top, bottom = (limit(limit(red, green), blue) for limit in (np.maximum, np.minimum))
    black = (top < 70) & (top - bottom < 25)
    leafy = (green - red > 20) & (green - blue > 20)
    # Dense haematoxylin keeps about half of its blue in red.
    inky = (blue > 90) & (red < 0.4 * blue) & (green < 0.75 * blue)
    marks: np.ndarray = black | leafy | inky
    return marks


def threshold_tissue(
    rgb: UInt8[np.ndarray, "h w 3"], *, channel: Literal["saturation", "od"] = "od", smooth_px: float = 1.0
) -> Bool[np.ndarray, "h w"]:
    """Where there is tissue; nothing where the whole picture is glass.

    Args:
        rgb: A slide at low resolution.
        channel: What the threshold is taken of.
        smooth_px: Gaussian before it, px.
    """
    white = white_point(rgb) if channel == "od" else np.full(3, 255.0)
    floor, ceiling = (OD_FLOOR, OD_CEILING) if channel == "od" else (SATURATION_FLOOR, 1.0)
    # A blur of 32-bit floats takes in so many rows above and below.
    reach = (round(smooth_px * 8 + 1) | 1) // 2 if smooth_px > 0 else 0

    def look(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        top, bottom = max(0, rows.start - reach), min(rgb.shape[0], rows.stop + reach)
        part = rgb[top:bottom]
        ink = is_ink(part)
        value = np.where(ink, 0, _mean_od(part, white) if channel == "od" else _saturation(part)).astype(np.float32)
        if smooth_px > 0:
            value = cv2.GaussianBlur(value, (0, 0), smooth_px)
        own = slice(rows.start - top, rows.stop - top)
        return value[own], ink[own]

    parts = list(strips(rgb.shape))
    # Of a large slide it is memory that is dear, and every strip is worked out twice.
    known = [look(rows) for rows in parts] if len(parts) <= KEPT_STRIPS else None
    counts = np.zeros(256, np.int64)
    for value, _ in known or map(look, parts):
        counts += np.histogram(np.minimum(value, ceiling), bins=256, range=(0.0, ceiling))[0]
    cut = max(_otsu(counts, ceiling), floor)
    found = np.empty(rgb.shape[:2], bool)
    for rows, (value, ink) in zip(parts, known or map(look, parts), strict=True):
        found[rows] = (value > cut) & ~ink
    return found


def _saturation(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    top, bottom = rgb.max(axis=2).astype(np.float32), rgb.min(axis=2).astype(np.float32)
    share: np.ndarray = (top - bottom) / np.maximum(top, 1)
    return share


def _otsu(counts: np.ndarray, ceiling: float) -> float:
    """The threshold that maximises the variance between two classes of values, counted in 256 bins up to `ceiling`."""
    edges = np.linspace(0.0, ceiling, 257)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sum_below = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sum_below / below - (sum_below[-1] - sum_below) / above
        between = below * above * gap**2
    return float(edges[1:][np.argmax(np.nan_to_num(between))])
