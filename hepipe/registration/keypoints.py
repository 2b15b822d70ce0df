"""Starts from local features, which find any rotation, size and shift at once where both slides show the same things.

Features: Lowe, Distinctive image features from scale-invariant keypoints, International Journal of Computer Vision
2004, taken of the density that both stains share; agreement: Fischler and Bolles, RANSAC, 1981.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from hepipe.registration.overview import shrink_features

MATCH_PX = 1024
"""Longer side of the pictures that are matched."""
MOST_KEYPOINTS = 4000
REPROJECTION_PX = 3.0
MIN_AGREEING = 10
"""Matches that one placement explains. Among strangers a thousand random matches agree in five to eight."""


def match_starts(
    fixed: Float32[np.ndarray, "c fh fw"],
    moving: Float32[np.ndarray, "c mh mw"],
    *,
    flips: bool,
    scale_range: tuple[float, float],
) -> list[Float[np.ndarray, "3 3"]]:
    """Similarities that many matches agree on, `moving_from_fixed` in px of the pictures given; perhaps none.

    Args:
        fixed: Features of the H&E picture; the first channel is matched.
        moving: Features of the IHC picture.
        flips: Match its mirror image too.
        scale_range: Sizes that are believed.
    """
    factor = min(1.0, MATCH_PX / max(*fixed.shape[1:], *moving.shape[1:]))
    target, source = (_grey(shrink_features(part[:1], factor)[0]) for part in (fixed, moving))
    grow = np.diag([factor, factor, 1.0])
    described = _describe(target)
    found = []
    for mirrored in (False, True) if flips else (False,):
        similarity = _agree(described, _describe(source[:, ::-1] if mirrored else source))
        if similarity is None:
            continue
        low, high = scale_range
        if not low <= float(np.sqrt(np.linalg.det(similarity[:2, :2]))) <= high:
            continue
        if mirrored:
            similarity = np.array([[-1.0, 0.0, source.shape[1]], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ similarity
        found.append(np.linalg.inv(grow) @ similarity @ grow)
    return found


def _grey(density: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    grey: np.ndarray = np.clip(np.rint(density * 255), 0, 255).astype(np.uint8)
    return grey


def _describe(
    picture: UInt8[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n 128"]]:
    """Places (continuous px) and descriptors of the keypoints of a picture."""
    keypoints, descriptors = cv2.SIFT.create(nfeatures=MOST_KEYPOINTS).detectAndCompute(
        np.ascontiguousarray(picture), None
    )
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return np.array([point.pt for point in keypoints]) + 0.5, descriptors


def _agree(
    fixed: tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n 128"]],
    moving: tuple[Float[np.ndarray, "m 2"], Float32[np.ndarray, "m 128"]],
) -> Float[np.ndarray, "3 3"] | None:
    """The similarity that most mutual nearest neighbours agree on, if enough do."""
    if min(len(fixed[0]), len(moving[0])) < MIN_AGREEING:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(fixed[1], moving[1])
    if len(pairs) < MIN_AGREEING:
        return None
    one, other = fixed[0][[pair.queryIdx for pair in pairs]], moving[0][[pair.trainIdx for pair in pairs]]
    # Its random numbers start from one fixed seed.
    top, agreeing = cv2.estimateAffinePartial2D(
        one, other, ransacReprojThreshold=REPROJECTION_PX, maxIters=20_000, confidence=0.999
    )
    if top is None or int(agreeing.sum()) < MIN_AGREEING:
        return None
    return np.vstack([top, [0.0, 0.0, 1.0]])
