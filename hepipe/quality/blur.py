"""Sharpness as the width of an equivalent edge, after the re-blur idea of Crete et al., The blur effect, SPIE 2007.

A step edge blurred by a Gaussian of width s has gradient energy proportional to 1/s. Blurring again by r leaves
1/sqrt(s^2 + r^2), so the ratio R of both energies gives s = r R / sqrt(1 - R^2), in µm and whatever the contrast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.quality.pixels import low_pass, tissue_mask, total_od
from hepipe.stains.deconvolution import WHITE

REBLUR_UM = 1.0
DENOISE_PX = 0.7
BLOCKS = 4
"""The tile is looked at in 4 x 4 blocks, since a blurred corner would vanish in the energy of a sharp rest."""


def blur(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`blur_he`, `blur_ihc`: width of the blurriest blocks, µm; higher is worse, nan without tissue.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide: on one of 230 glass would count as tissue, and glass has no edges.
        white_ihc: White point of the IHC slide.
    """
    return {"blur_he": edge_width_um(he, mpp, white_he), "blur_ihc": edge_width_um(ihc, mpp, white_ihc)}


def edge_width_um(rgb: UInt8[np.ndarray, "h w 3"], mpp: float, white: Sequence[float] = WHITE) -> float:
    """The second largest width among the blocks that are at least half tissue (the largest when there is one)."""
    od = total_od(rgb, white)
    tissue = tissue_mask(od, mpp)
    reblur_px = max(1.0, REBLUR_UM / mpp)
    once = low_pass(od, DENOISE_PX)
    before = _energy(once) * tissue
    after = _energy(low_pass(once, reblur_px)) * tissue
    widths = []
    for rows in np.array_split(np.arange(od.shape[0]), BLOCKS):
        for columns in np.array_split(np.arange(od.shape[1]), BLOCKS):
            place = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            if tissue[place].mean() < 0.5:
                continue
            ratio = min(float(after[place].sum() / max(before[place].sum(), 1e-9)), 0.999)
            widths.append(reblur_px * mpp * ratio / math.sqrt(1 - ratio * ratio))
    widths.sort()
    return widths[-2] if len(widths) > 1 else (widths[0] if widths else math.nan)


def _energy(plane: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    dx = cv2.Sobel(plane, cv2.CV_32F, 1, 0)
    dy = cv2.Sobel(plane, cv2.CV_32F, 0, 1)
    energy: np.ndarray = dx * dx + dy * dy
    return energy
