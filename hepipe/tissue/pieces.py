"""Pieces of tissue on a slide, numbered."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8

GAP_FRAC = 0.01
"""Parts nearer to each other than this share of the picture's longer side are one piece: a section breaks and frays by
that much, while the pieces that a person counts lie further apart. A share, since a pixel size may be unknown."""
LEAST_FRAC = 0.005
"""A piece with less of the slide's tissue than this is a crumb and has no number."""
LEAST_PX = 24
"""A piece has at least as many px: fewer show neither shape nor stain."""
REACH_FRAC = 0.25
"""A crumb further from every piece than this share of the picture's longer side belongs to none."""


def label_pieces(mask: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """Connected pieces numbered from 1, largest first; 0 is glass. Touching corners connect."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask, np.uint8), connectivity=8)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable") + 1
    number = np.zeros(count, np.int32)
    number[order] = np.arange(1, count, dtype=np.int32)
    found: np.ndarray = number[labels]
    return found


def group_pieces(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """The pieces that a person would count, numbered from 1, largest first; 0 is glass and crumbs.

    Parts with a small gap between are one piece. Of equal areas the one nearer to the top comes first, then the one
    nearer to the left. Where everything is crumbs, all of it is piece 1.
    """
    tissue = int(mask.sum())
    if tissue == 0:
        return np.zeros(mask.shape, np.uint8)
    reach = max(1, round(GAP_FRAC * max(mask.shape) / 2))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    count, groups = cv2.connectedComponents(cv2.dilate(np.ascontiguousarray(mask, np.uint8), disc), connectivity=8)
    areas = np.bincount(groups[mask], minlength=count)
    areas[0] = 0
    # Labels of connected components run from top to bottom, so a stable sort settles ties by place.
    large = [int(one) for one in np.argsort(-areas, kind="stable") if areas[one] >= max(LEAST_PX, LEAST_FRAC * tissue)]
    if not large:
        return mask.astype(np.uint8)
    number = np.zeros(count, np.uint8)
    # At most 1 / LEAST_FRAC pieces: they fit 8 bits.
    number[large] = np.arange(1, len(large) + 1, dtype=np.uint8)
    found: np.ndarray = np.where(mask, number[groups], 0).astype(np.uint8)
    return found


def spread_pieces(labels: UInt8[np.ndarray, "h w"], *, reach_px: float | None = None) -> UInt8[np.ndarray, "h w"]:
    """For each px the number of the piece nearest to it; 0 beyond `reach_px` of all (a quarter of the picture)."""
    if not labels.any():
        return labels.copy()
    reach = REACH_FRAC * max(labels.shape) if reach_px is None else reach_px
    distance, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV numbers the px of tissue in its own order: what each of its numbers stands for is read off at the tissue.
    inside = labels > 0
    stands_for = np.zeros(int(nearest.max()) + 1, np.uint8)
    stands_for[nearest[inside]] = labels[inside]
    found: np.ndarray = np.where(distance <= reach, stands_for[nearest], 0).astype(np.uint8)
    return found


def nearest_piece(
    labels: UInt8[np.ndarray, "h w"], *, shape: tuple[int, ...], scale: float
) -> UInt8[np.ndarray, "mh mw"]:
    """`spread_pieces` at another resolution: a picture of `shape`, whose px measure `scale` px of the labels."""
    rows, columns = (
        np.clip(((np.arange(side) + 0.5) * scale).astype(np.int64), 0, limit - 1)
        for side, limit in zip(shape, labels.shape, strict=True)
    )
    found: np.ndarray = spread_pieces(labels)[np.ix_(rows, columns)]
    return found
