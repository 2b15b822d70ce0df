"""Opening and closing of masks by a disk of any radius, at the same cost for all radii.

A dilation by a disk holds what lies within its radius of the mask, so a distance transform gives it exactly. Beyond the
border of a tile is neither foreground nor background, as in OpenCV; for a disk, mirroring the tile there is the same.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool


def close(mask: Bool[np.ndarray, "h w"], radius_px: int) -> Bool[np.ndarray, "h w"]:
    """Dilation and erosion: holes and gaps that no disk of this radius (x² + y² <= r²) fits in are filled."""
    return ~_dilated(~_dilated(mask, radius_px), radius_px)


def open_(mask: Bool[np.ndarray, "h w"], radius_px: int) -> Bool[np.ndarray, "h w"]:
    """Erosion and dilation: what no disk of this radius fits in goes."""
    return ~close(~mask, radius_px)


def _dilated(mask: np.ndarray, radius_px: int) -> np.ndarray:
    # Without any, the distance to the nearest has no meaning.
    if radius_px == 0 or not mask.any():
        return mask
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are whole numbers: the next above r² lies 1/(2r) beyond r.
    within: np.ndarray = distance < radius_px + 1 / (4 * radius_px)
    return within
