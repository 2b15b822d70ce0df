"""Eosin that was not washed out before the same section was stained again."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hepipe.quality.pixels import TISSUE_OD, low_pass, shrink
from hepipe.stains.deconvolution import optical_density

WORK_MPP = 4.0
SMOOTH_UM = 8.0
PERCENTILE = 75.0


def residual(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    amounts_from_od: Float[np.ndarray, "3 3"],
    white: tuple[float, float, float],
) -> Mapping[str, float]:
    """`residual_eosin_od`: OD of eosin in the tissue of the IHC tile, less any DAB; nan without tissue.

    Of restained pairs alone: the next section never saw eosin.

    Args:
        he: Not used; a measure takes both tiles.
        ihc: IHC tile.
        mpp: Of both.
        amounts_from_od: `residual_matrix` of the pair's vectors.
        white: White point of the IHC slide.
    """
    small, work_mpp = shrink(ihc, mpp, WORK_MPP)
    od = low_pass(optical_density(small, white), SMOOTH_UM / work_mpp)
    tissue = cv2.transform(od, np.full((1, 3), 1 / 3, np.float32)) > TISSUE_OD
    if not tissue.any():
        return {"residual_eosin_od": float("nan")}
    eosin = cv2.transform(od, amounts_from_od[2:].astype(np.float32))
    return {"residual_eosin_od": float(max(0.0, np.percentile(eosin[tissue], PERCENTILE)))}


def residual_matrix(
    haematoxylin: tuple[float, float, float], dab: tuple[float, float, float], eosin: tuple[float, float, float]
) -> Float[np.ndarray, "3 3"]:
    """From optical density to amounts of haematoxylin and DAB of the IHC slide and eosin of the H&E slide."""
    stains = np.array([haematoxylin, dab, eosin], np.float64)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    inverse: np.ndarray = np.linalg.inv(stains.T)
    return inverse
