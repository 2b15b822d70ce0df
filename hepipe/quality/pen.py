"""Pen ink: blue, green, red or black areas too even and too far from the stains' colours to be tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import disk, low_pass, shrink
from hepipe.stains.deconvolution import WHITE, optical_density

WORK_MPP = 4.0
SMOOTH_UM = 6.0
"""Wider than a nucleus, so that single nuclei never look like ink."""
OPEN_UM = 8.0
MIN_OD = 0.1
COLORS = ("blue", "green", "red", "black")
OVERVIEW_MPP = 6.0
"""From here on a px is wider than a nucleus and a drop of blood is mixed with what lies around it."""


def pen(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`pen_he`, `pen_ihc`: share of the tile under ink, 0 to 1; `pen_blue_he` and so on: under ink of that colour.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide; a tinted background is no ink.
        white_ihc: White point of the IHC slide.
    """
    found = {}
    for stain, rgb, white in (("he", he, white_he), ("ihc", ihc, white_ihc)):
        small, work_mpp = shrink(rgb, mpp, WORK_MPP)
        labels = pen_mask(small, work_mpp, white=white)
        shares = np.bincount(labels.ravel(), minlength=len(COLORS) + 1) / labels.size
        found[f"pen_{stain}"] = float(shares[1:].sum())
        found |= {f"pen_{color}_{stain}": float(share) for color, share in zip(COLORS, shares[1:], strict=True)}
    return found


def pen_mask(
    rgb: UInt8[np.ndarray, "h w 3"], mpp: float, *, white: Sequence[float] = WHITE
) -> UInt8[np.ndarray, "h w"]:
    """Where ink is: 1 blue, 2 green, 3 red, 4 black, 0 none. For tiles at about 4 µm per px and for whole overviews.

    Stains absorb green at least 0.8 times as much as red and more than 0.12 times as much red as green; inks do not.
    The factors keep blue counterstains, eosin and blood apart: checked on H&E and IHC tiles of eight public slides,
    where dense blue nuclei have 1.43 times as much red as green and a level of 0.14. Thin red ink on tissue is too near
    to eosin and blood to be told in a tile: there it is found on glass and fat, and where it is dense. In an overview,
    where red cells do not fill a px, it is found on tissue too; that rule was set on the red pen of HistoQC.
    """
    od = low_pass(optical_density(rgb, white), SMOOTH_UM / mpp)
    red, green, blue = cv2.split(od)
    level = (red + green + blue) / 3
    if mpp >= OVERVIEW_MPP:
        red_ink = (level > 0.16) & (red < 0.36 * green) & (blue > 0.65 * green)
    else:
        thin = (level > 0.25) & (red < 0.12 * green) & (blue > 0.6 * green)
        dense = (level > 0.4) & (red < 0.3 * green) & (blue > 0.7 * green)
        red_ink = thin | dense | ((level > 0.3) & (red < 0.4 * green) & (blue > 0.8 * green))
    labels = np.zeros(level.shape, np.uint8)
    strong, pale = red > 1.35 * green, red > 1.5 * green
    labels[((level > 0.16) & strong | (level > MIN_OD) & pale) & (blue < 0.6 * green)] = 1
    labels[(level > MIN_OD) & (red > 1.3 * green) & (blue > 0.9 * green)] = 2
    labels[red_ink] = 3
    least = np.minimum(np.minimum(red, green), blue)
    labels[(level > 0.5) & (least > 0.75 * np.maximum(np.maximum(red, green), blue))] = 4
    stroke = cv2.morphologyEx((labels > 0).astype(np.uint8), cv2.MORPH_OPEN, disk(OPEN_UM / mpp))
    inked: np.ndarray = labels * stroke
    return inked
