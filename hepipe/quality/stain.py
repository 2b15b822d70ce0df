"""Amounts of stain in a tile, with the slide's own vectors.

DAB does not obey Beer and Lambert: it is a deposit that scatters light, and what is laid down is not linear in antigen.
Its optical density is an index that orders px of one slide, so shares of area say more than means, and px where the
index has no meaning left (above 1, or black) are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.quality.pixels import tissue_mask, total_od
from hepipe.stains.deconvolution import Separator

POSITIVE_OD = (0.2, 0.4, 0.6)
"""QuPath's starting values for weak, moderate and strong DAB; they do not transfer between laboratories."""
SATURATED = 8
"""Grey value of the blue channel from which DAB cannot be told apart any more (OD 1.5)."""
OVER_OD = 1.0
"""A tenth of the light is left: above, glare and a scanner's black level decide what the index says."""

NOTES: Mapping[str, str] = {
    "dab_frac": "share of the IHC's tissue that is DAB-positive: DAB index of at least 0.2",
    "hscore_px": "pixel H-score, 0 to 300: 100 times the shares of tissue with a DAB index of 0.2, 0.4 and 0.6 or more",
    "dab_frac_cal": "as dab_frac, with the data set's calibrated threshold; only where the config gives thresholds",
    "hscore_px_cal": "as hscore_px, with the three calibrated thresholds; only where the config gives thresholds",
    "dab_over1_frac": "share of tissue with a DAB index above 1, where it means little",
    "dab_saturated_frac": "share of tissue whose blue channel is black (8 or less): its DAB cannot be told",
    "dab_mean_od": "mean DAB index over tissue: an optical density that is no measure of antigen",
    "h_mean_od": "mean optical density of haematoxylin over the IHC's tissue",
    "h_mean_od_he": "mean optical density of haematoxylin over the H&E's tissue",
    "e_mean_od": "mean optical density of eosin over the H&E's tissue",
}
"""What each number says; 0 without tissue."""


def tissue_of(rgb: UInt8[np.ndarray, "h w 3"], white: Sequence[float], mpp: float) -> Bool[np.ndarray, "h w"]:
    """Where a tile is tissue rather than glass of this white."""
    return tissue_mask(total_od(rgb, white), mpp)


def stain_amounts(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    of_he: Separator,
    of_ihc: Separator,
    thresholds_od: Sequence[float] | None = None,
) -> Mapping[str, float]:
    """Shares of tissue that DAB stains, the pixel H-score, and means of optical density over tissue.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        of_he: Gives haematoxylin and eosin.
        of_ihc: Gives haematoxylin and DAB.
        thresholds_od: Calibrated limits of weak, moderate and strong DAB, for a second set of columns.

    Returns:
        By the names of `NOTES`.
    """
    h_he, eosin = of_he(he)
    haematoxylin, dab = of_ihc(ihc)
    tissue_he = tissue_of(he, of_he.white, mpp)
    tissue = tissue_of(ihc, of_ihc.white, mpp)
    n_he, n = max(1, int(tissue_he.sum())), max(1, int(tissue.sum()))

    def share(of_tissue: np.ndarray) -> float:
        return float(np.count_nonzero(tissue & of_tissue)) / n

    shares = [share(dab >= level) for level in POSITIVE_OD]
    numbers = {
        "h_mean_od_he": float(h_he.sum(where=tissue_he, dtype=np.float64)) / n_he,
        "e_mean_od": float(eosin.sum(where=tissue_he, dtype=np.float64)) / n_he,
        "h_mean_od": float(haematoxylin.sum(where=tissue, dtype=np.float64)) / n,
        "dab_mean_od": float(dab.sum(where=tissue, dtype=np.float64)) / n,
        "dab_frac": shares[0],
        "hscore_px": 100 * sum(shares),
        "dab_over1_frac": share(dab > OVER_OD),
        "dab_saturated_frac": share(ihc[..., 2] <= SATURATED),
    }
    if thresholds_od is not None:
        calibrated = [share(dab >= level) for level in thresholds_od]
        numbers |= {"dab_frac_cal": calibrated[0], "hscore_px_cal": 100 * sum(calibrated)}
    return numbers
