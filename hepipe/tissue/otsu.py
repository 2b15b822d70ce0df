"""Tissue against glass: Otsu's threshold of optical density or saturation."""

from __future__ import annotations

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


def white_point(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " 3"]:
    """The glass colour: the 95th percentile of each channel among px that are not pure white, at least 128.

    Pure white is what readers put beyond a slide's edge, not glass.
    """
    pixels = rgb.reshape(-1, 3)
    scanned = pixels[(pixels < 255).any(axis=1)]
    if len(scanned) == 0:
        return np.full(3, 255.0)
    point: np.ndarray = np.maximum(np.percentile(scanned, 95, axis=0), 128.0)
    return point


def mean_od(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Optical density (base 10) against the glass, mean of the channels, 0 where brighter than the glass."""
    grey = np.maximum(np.arange(256), 1)[:, None]
    table = np.maximum(np.log10(white_point(rgb) / grey), 0).astype(np.float32)
    density = np.stack([table[:, channel][rgb[..., channel]] for channel in range(3)])
    mean: np.ndarray = density.mean(axis=0)
    return mean


def is_ink(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Black, green and saturated blue marks: colours that neither H&E nor haematoxylin with DAB makes.

    Black is every channel below 70 with a spread below 25; green exceeds red and blue by 20; blue has less than 0.4 of
    its blue in red. Red ink is not told from eosin here.
    """
    red, green, blue = (rgb[..., channel].astype(np.int16) for channel in range(3))
    top = rgb.max(axis=2).astype(np.int16)
    bottom = rgb.min(axis=2).astype(np.int16)
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
    if channel == "od":
        value, floor, ceiling = mean_od(rgb), OD_FLOOR, OD_CEILING
    else:
        top, bottom = rgb.max(axis=2).astype(np.float32), rgb.min(axis=2).astype(np.float32)
        value, floor, ceiling = (top - bottom) / np.maximum(top, 1), SATURATION_FLOOR, 1.0
    ink = is_ink(rgb)
    value = np.where(ink, 0, value).astype(np.float32)
    if smooth_px > 0:
        value = cv2.GaussianBlur(value, (0, 0), smooth_px)
    cut = max(_otsu(np.minimum(value, ceiling), ceiling), floor)
    found: np.ndarray = (value > cut) & ~ink
    return found


def _otsu(values: Float[np.ndarray, "h w"], ceiling: float) -> float:
    """The threshold that maximises the variance between two classes, over 256 bins up to `ceiling`."""
    counts, edges = np.histogram(values, bins=256, range=(0.0, ceiling))
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sum_below = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sum_below / below - (sum_below[-1] - sum_below) / above
        between = below * above * gap**2
    return float(edges[1:][np.argmax(np.nan_to_num(between))])
