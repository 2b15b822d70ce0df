"""What two registered pictures have in common: shared information, density without detail, structure in its place.

Structure in its place is what tells a pair from two strangers of like outline. A field that may bend lets strangers
correlate too, and outlines correlate wherever they are laid on each other; but partners lose nearly all their likeness
when one is moved aside by a few windows, strangers only little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from hepipe.registration.ncc import FixedWindows, blur

BINS = 100
"""As scikit-image's `normalized_mutual_information`."""
LOW_PASS_UM = 4.0
"""About a nucleus: what is finer differs between the next section and this one."""
OUTLINE_PX = 10
"""The edge of the tissue that is left out, and the gaps closed before there is an edge, px of the scored picture."""
STRUCTURE_SIGMA_PX = 6.0
"""Of the windows that look for structure. Wider than the score's, since the next section's structure is not quite in
place before the deformable steps: at 3 px a true section of lung leads by 0.029 and drawn strangers by 0.025, at 6 px
by 0.049 and 0.035."""
ASIDE_PX = (16.0, 26.0)
"""How far the picture is moved aside: beyond the windows, within the tissue."""
MIN_PX = 500
"""Fewer px of common tissue say nothing."""


def mutual_information(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b) of paired samples: 1 nothing in common, 2 the same.

    Studholme, Hill and Hawkes 1998, with scikit-image's 100 bins; nan for fewer than `MIN_PX` samples. Few samples
    read too high: compare values of one area only.
    """
    if len(a) < MIN_PX:
        return math.nan
    counts, _, _ = np.histogram2d(a, b, bins=BINS)
    joint = counts / counts.sum()
    together = _entropy(joint)
    return 2.0 if together == 0 else (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / together


def correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation of paired samples, -1 to 1; nan for fewer than `MIN_PX` samples or a constant."""
    if len(a) < MIN_PX or min(float(a.std()), float(b.std())) < 1e-6:
        return math.nan
    return float(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1])


def low_pass(density: Float32[np.ndarray, "h w"], *, mpp: float) -> Float32[np.ndarray, "h w"]:
    """Density without detail; a picture coarser than 4 µm per px has none."""
    smooth: np.ndarray = blur(density, LOW_PASS_UM / mpp) if mpp < LOW_PASS_UM else density
    return smooth


def within(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Tissue away from its outer edge, small gaps counted in: where likeness is not that of two outlines."""
    side = 2 * OUTLINE_PX + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = np.pad(mask.astype(np.uint8), OUTLINE_PX)
    solid = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disk, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    inner = cv2.erode(solid, disk, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.ascontiguousarray(inner[OUTLINE_PX:-OUTLINE_PX, OUTLINE_PX:-OUTLINE_PX] > 0)


def structure_lead(
    fixed: Float32[np.ndarray, "c h w"],
    seen: Float32[np.ndarray, "c h w"],
    parts: Sequence[Bool[np.ndarray, "h w"]] = (),
) -> list[float]:
    """How much more alike the inner structure is in place than moved aside: the lead over the best of 16 moves.

    Args:
        fixed: Feature channels of the H&E picture, the last its soft tissue mask.
        seen: The same of the IHC picture, seen through the registration.
        parts: Areas to be looked at on their own.

    Returns:
        Of the whole picture, then of each part: difference of two mean local correlations, -2 to 2; nan where the
        pictures share too little tissue there. Higher is better; partners in their place have more than strangers at
        any place.
    """
    area = within(fixed[-1] > 0.5) & within(seen[-1] > 0.5)
    if int(area.sum()) < MIN_PX:
        return [math.nan] * (1 + len(parts))
    areas = [area, *(area & part for part in parts)]
    windows = [FixedWindows(channel, sigma=STRUCTURE_SIGMA_PX) for channel in fixed]

    def alike(x: float, y: float) -> list[float]:
        maps = [window.correlation(_aside(channel, x, y)) for window, channel in zip(windows, seen, strict=True)]
        return [
            float(np.mean([one[area].mean() for one in maps])) if int(area.sum()) >= MIN_PX else math.nan
            for area in areas
        ]

    turns = np.arange(8) * math.pi / 4
    # The second circle is turned, so that structure of one period cannot meet itself on both.
    moves = [(ASIDE_PX[0], turn) for turn in turns] + [(ASIDE_PX[1], turn + math.pi / 8) for turn in turns]
    aside = [alike(r * math.cos(turn), r * math.sin(turn)) for r, turn in moves]
    return [here - max(away) for here, *away in zip(alike(0.0, 0.0), *aside, strict=True)]


def _aside(channel: Float32[np.ndarray, "h w"], x: float, y: float) -> Float32[np.ndarray, "h w"]:
    if x == 0 and y == 0:
        return channel
    matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
    moved: np.ndarray = cv2.warpAffine(channel, matrix, (channel.shape[1], channel.shape[0]))
    return moved


def _entropy(p: np.ndarray) -> float:
    some = p[p > 0]
    return float(-(some * np.log(some)).sum())
