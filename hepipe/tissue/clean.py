"""Masks made whole: closing, holes filled, specks dropped, all in physical units."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool


def clean(
    mask: Bool[np.ndarray, "h w"], *, mpp: float, close_um: float, min_hole_um2: float, min_piece_um2: float
) -> Bool[np.ndarray, "h w"]:
    """A mask closed by a disc, without small holes and small pieces.

    Args:
        mask: Raw tissue.
        mpp: Its µm per px.
        close_um: Radius of the closing; less than half a px does nothing.
        min_hole_um2: Smaller holes are filled.
        min_piece_um2: Smaller pieces are dropped.
    """
    made = mask.astype(np.uint8)
    radius = round(close_um / mpp)
    if radius > 0:
        # Padded, so that the closing does not eat or grow tissue at the picture's edge.
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        wide = cv2.copyMakeBorder(made, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
        wide = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, disc, dst=wide)
        made = np.ascontiguousarray(wide[radius:-radius, radius:-radius])
        del wide
    tissue = _without_small(made.view(bool), least_px=min_piece_um2 / mpp**2, connectivity=8)
    del made
    glass = _without_small(~tissue, least_px=min_hole_um2 / mpp**2, connectivity=4)
    glass ^= True
    return glass


def _without_small(mask: Bool[np.ndarray, "h w"], *, least_px: float, connectivity: int) -> Bool[np.ndarray, "h w"]:
    plain = np.ascontiguousarray(mask).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(plain, connectivity=connectivity)
    large = stats[:, cv2.CC_STAT_AREA] >= least_px
    large[0] = False
    kept: np.ndarray = large[labels]
    return kept
