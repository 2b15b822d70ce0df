"""The DAB mask of a tile.

After the masks of ATST-Net: blur, Otsu's threshold, erosion and dilation, closing; with DAB as optical density in place
of a grey picture, a floor under the threshold (Otsu finds two classes in an unstained tile too) and radii in µm.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from hepipe.specs.stains import StainsSpec

_BINS = 256
_MAX_OD = 3.0


def otsu_od(dab_od: Float32[np.ndarray, "h w"]) -> float:
    """Otsu's threshold of an optical density between 0 and 3, in steps of 3/256."""
    counts, edges = np.histogram(dab_od, bins=_BINS, range=(0.0, _MAX_OD))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    total = below[-1]
    moment = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_below = moment / below
        mean_above = (moment[-1] - moment) / (total - below)
        between = below * (total - below) * (mean_above - mean_below) ** 2
    if not np.isfinite(between).any():
        return 0.0
    return float(edges[int(np.nanargmax(np.where(np.isfinite(between), between, -1.0))) + 1])


def dab_mask(dab_od: Float32[np.ndarray, "h w"], *, mpp: float, spec: StainsSpec) -> Bool[np.ndarray, "h w"]:
    """Where a tile is DAB-positive.

    Args:
        dab_od: DAB as optical density.
        mpp: Of the tile.
        spec: Radii in µm; one that rounds to 0 px does nothing.
    """
    sigma = spec.dab_sigma_um / mpp
    smooth = cv2.GaussianBlur(dab_od, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) if sigma >= 0.2 else dab_od
    threshold = max(otsu_od(smooth), spec.dab_floor_od)
    mask = (smooth > threshold).astype(np.uint8)
    mask = _morph(mask, cv2.MORPH_OPEN, spec.dab_open_um / mpp)
    mask = _morph(mask, cv2.MORPH_CLOSE, spec.dab_close_um / mpp)
    return mask.astype(bool)


def _morph(mask: np.ndarray, operation: int, radius_px: float) -> np.ndarray:
    radius = round(radius_px)
    if radius == 0:
        return mask
    reach = np.arange(-radius, radius + 1)
    disk = (reach[:, None] ** 2 + reach[None] ** 2 <= radius * radius).astype(np.uint8)
    changed: np.ndarray = cv2.morphologyEx(mask, operation, disk)
    return changed
