"""What several measurements start from: optical density at a resolution that suits them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from hepipe.stains.deconvolution import WHITE, optical_density

TISSUE_OD = 0.03
"""Mean optical density of three channels above the slide's white, low-passed: above is tissue. Unstained stroma of
public HER2 slides has no more than 0.04."""


def shrink(rgb: UInt8[np.ndarray, "h w 3"], mpp: float, wanted_mpp: float) -> tuple[UInt8[np.ndarray, "a b 3"], float]:
    """Area means over whole numbers of px, as near `wanted_mpp` as they come; never finer than `mpp`."""
    factor = max(1, min(round(wanted_mpp / mpp), min(rgb.shape[:2]) // 8))
    if factor == 1:
        return rgb, mpp
    height, width = (side // factor for side in rgb.shape[:2])
    whole = np.ascontiguousarray(rgb[: height * factor, : width * factor])
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), mpp * factor


def total_od(rgb: UInt8[np.ndarray, "h w 3"], white: Sequence[float] = WHITE) -> Float32[np.ndarray, "h w"]:
    """Mean optical density of the three channels."""
    mean: np.ndarray = cv2.transform(optical_density(rgb, white), np.full((1, 3), 1 / 3, np.float32))
    return mean


def low_pass(plane: Float32[np.ndarray, "*s"], sigma_px: float) -> Float32[np.ndarray, "*s"]:
    """Gaussian; nothing happens below a fifth of a px."""
    if sigma_px < 0.2:
        return plane
    smooth: np.ndarray = cv2.GaussianBlur(plane, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return smooth


def tissue_mask(od: Float32[np.ndarray, "h w"], mpp: float) -> Bool[np.ndarray, "h w"]:
    """Where a tile holds tissue, gaps of a few µm closed by a low-pass of 4 µm."""
    mask: np.ndarray = low_pass(od, 4 / mpp) > TISSUE_OD
    return mask


def disk(radius_px: float) -> UInt8[np.ndarray, "s s"]:
    """A round structuring element."""
    radius = max(0, round(radius_px))
    reach = np.arange(-radius, radius + 1)
    return (reach[:, None] ** 2 + reach[None] ** 2 <= radius * radius).astype(np.uint8)
