"""Amounts of stain in a tile, with the slide's own vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from hepipe.quality.pixels import tissue_mask, total_od
from hepipe.stains.deconvolution import Separator

POSITIVE_OD = (0.2, 0.4, 0.6)
"""QuPath's starting values for weak, moderate and strong DAB; they do not transfer between laboratories."""
SATURATED = 8
"""Grey value of the blue channel from which DAB cannot be told apart any more (OD 1.5)."""


def stain_amounts(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    of_he: Separator,
    of_ihc: Separator,
) -> Mapping[str, float]:
    """Means of optical density over tissue, DAB-positive shares and the pixel H-score.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        of_he: Gives haematoxylin and eosin.
        of_ihc: Gives haematoxylin and DAB.

    Returns:
        `h_mean_od_he`, `e_mean_od`, `h_mean_od`, `dab_mean_od` (OD over tissue; 0 without), `dab_frac` (share of
        tissue with DAB of at least 0.2), `hscore_px` (0 to 300), `dab_saturated_frac` (share of tissue).
    """
    h_he, eosin = of_he(he)
    haematoxylin, dab = of_ihc(ihc)
    tissue_he = tissue_mask(total_od(he, of_he.white), mpp)
    tissue = tissue_mask(total_od(ihc, of_ihc.white), mpp)
    n_he, n = max(1, int(tissue_he.sum())), max(1, int(tissue.sum()))
    shares = [float((tissue & (dab >= level)).sum()) / n for level in POSITIVE_OD]
    return {
        "h_mean_od_he": float(h_he.sum(where=tissue_he, dtype=np.float64)) / n_he,
        "e_mean_od": float(eosin.sum(where=tissue_he, dtype=np.float64)) / n_he,
        "h_mean_od": float(haematoxylin.sum(where=tissue, dtype=np.float64)) / n,
        "dab_mean_od": float(dab.sum(where=tissue, dtype=np.float64)) / n,
        "dab_frac": shares[0],
        "hscore_px": 100 * sum(shares),
        "dab_saturated_frac": float((tissue & (ihc[..., 2] <= SATURATED)).sum()) / n,
    }
