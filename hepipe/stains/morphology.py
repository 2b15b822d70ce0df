"""Opening and closing of masks by a disk (x² + y² <= r²) of any radius.

A dilation by a disk holds what lies within its radius of the mask, so a distance transform gives the same at one cost
for all radii; OpenCV goes through the disk's px, which is quicker for small ones (0.4 against 60 ms for 2 px and a tile
of 1024, 250 against 53 ms for 60 px). Beyond the border of a tile is neither foreground nor background; for a disk,
mirroring the tile there is the same.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool

SMALL_PX = 24


def close(mask: Bool[np.ndarray, "h w"], radius_px: int) -> Bool[np.ndarray, "h w"]:
    """Dilation and erosion: holes and gaps that no disk of this radius fits in are filled."""
    if radius_px <= SMALL_PX:
        return _by_disk(mask, cv2.MORPH_CLOSE, radius_px)
    return ~_dilated(~_dilated(mask, radius_px), radius_px)


def open_(mask: Bool[np.ndarray, "h w"], radius_px: int) -> Bool[np.ndarray, "h w"]:
    """Erosion and dilation: what no disk of this radius fits in goes."""
    if radius_px <= SMALL_PX:
        return _by_disk(mask, cv2.MORPH_OPEN, radius_px)
    return ~close(~mask, radius_px)


def _by_disk(mask: np.ndarray, operation: int, radius_px: int) -> np.ndarray:
    if radius_px == 0:
        return mask
    reach = np.arange(-radius_px, radius_px + 1)
    disk = (reach[:, None] ** 2 + reach[None] ** 2 <= radius_px * radius_px).astype(np.uint8)
    changed: np.ndarray = cv2.morphologyEx(mask.astype(np.uint8), operation, disk).astype(bool)
    return changed


def _dilated(mask: np.ndarray, radius_px: int) -> np.ndarray:
    # Without any, the distance to the nearest has no meaning.
    if not mask.any():
        return mask
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are whole numbers: the next above r² lies 1/(2r) beyond r.
    within: np.ndarray = distance < radius_px + 1 / (4 * radius_px)
    return within
