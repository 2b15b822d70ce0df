"""Eosin that was not washed out before the same section was stained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import TISSUE_OD, low_pass, shrink
from hepipe.stains.deconvolution import WHITE, optical_density
from hepipe.stains.matrices import EOSIN

WORK_MPP = 4.0
SMOOTH_UM = 8.0
PERCENTILE = 75.0
PINK = (EOSIN[1] - max(EOSIN[0], EOSIN[2])) / float(np.linalg.norm(EOSIN))
"""How much more green than red and blue a unit of eosin absorbs."""


def residual(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`residual_eosin_od`: OD of eosin in the tissue of the IHC tile, 75th percentile; nan without tissue.

    Of restained pairs alone: the next section never saw eosin. Haematoxylin absorbs most of red and DAB most of blue,
    so green beyond both is eosin (or blood) whatever the slide's vectors are; unmixing three stains by vectors that
    were themselves found in such a slide gave more than 0.3 on clean drawn tiles. Where haematoxylin or DAB is strong
    it hides eosin.

    Args:
        he: Not used; a measure takes both tiles.
        ihc: IHC tile.
        mpp: Of both.
        white_he: Not used.
        white_ihc: White point of the IHC slide.
    """
    small, work_mpp = shrink(ihc, mpp, WORK_MPP)
    od = low_pass(optical_density(small, white_ihc), SMOOTH_UM / work_mpp)
    red, green, blue = cv2.split(od)
    tissue = (red + green + blue) / 3 > TISSUE_OD
    if not tissue.any():
        return {"residual_eosin_od": float("nan")}
    pink = (green - np.maximum(red, blue))[tissue]
    return {"residual_eosin_od": float(max(0.0, np.percentile(pink, PERCENTILE) / PINK))}
