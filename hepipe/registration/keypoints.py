"""Starts from local features, which find any rotation, size and shift at once where both slides show the same things.

Features: Lowe, Distinctive image features from scale-invariant keypoints, International Journal of Computer Vision
2004, taken of the density that both stains share; agreement: Fischler and Bolles, RANSAC, 1981.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float32

from hepipe.geometry import scaling, translation
from hepipe.registration.overview import shrink_features

Describe = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Places (n, 2) in continuous px and descriptors (n, d) of the keypoints of a density picture (h, w), 0 to 1."""

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
    describe: Describe | None = None,
    longest: int = MATCH_PX,
    quarters: tuple[int, ...] = (0,),
) -> list[Float[np.ndarray, "3 3"]]:
    """Similarities that many matches agree on, `moving_from_fixed` in px of the pictures given; perhaps none.

    Args:
        fixed: Features of the H&E picture; the first channel is matched.
        moving: Features of the IHC picture.
        flips: Match its mirror image too.
        scale_range: Sizes that are believed.
        describe: Keypoints and descriptors of a density picture; SIFT when None.
        longest: Longer side of the pictures that are matched.
        quarters: Quarter turns of the IHC picture that are matched, for descriptors that know no rotation.
    """
    describe = describe or describe_sift
    factor = min(1.0, longest / max(*fixed.shape[1:], *moving.shape[1:]))
    target, source = (shrink_features(part[:1], factor)[0] for part in (fixed, moving))
    grow = scaling(factor)
    described = describe(target)
    found = []
    for mirrored, quarter in itertools.product((False, True) if flips else (False,), quarters):
        turned = np.rot90(source[:, ::-1] if mirrored else source, quarter)
        similarity = _agree(described, describe(np.ascontiguousarray(turned)))
        if similarity is None:
            continue
        low, high = scale_range
        if not low <= float(np.sqrt(np.linalg.det(similarity[:2, :2]))) <= high:
            continue
        back = _unturned((source.shape[0], source.shape[1]), quarter)
        if mirrored:
            back = translation(float(source.shape[1]), 0.0) @ scaling(-1.0, 1.0) @ back
        found.append(np.linalg.inv(grow) @ back @ similarity @ grow)
    return found


def describe_sift(
    density: Float32[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n 128"]]:
    """Places (continuous px) and descriptors of the keypoints of a picture, 0 to 1."""
    grey = np.clip(np.rint(density * 255), 0, 255).astype(np.uint8)
    keypoints, descriptors = cv2.SIFT.create(nfeatures=MOST_KEYPOINTS).detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return np.array([point.pt for point in keypoints]) + 0.5, descriptors


def _unturned(shape: tuple[int, int], quarter: int) -> Float[np.ndarray, "3 3"]:
    """Where a point of `np.rot90(picture, quarter)` lies on the picture of this (height, width)."""
    height, width = shape
    back = np.eye(3)
    for _ in range(quarter):
        # rot90 turns anticlockwise: its row is the last column's distance, its column the row.
        back = back @ np.array([[0.0, -1.0, width], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        height, width = width, height
    return back


def _agree(
    fixed: tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n d"]],
    moving: tuple[Float[np.ndarray, "m 2"], Float32[np.ndarray, "m d"]],
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
