"""Glass: how much of a tile shows no tissue at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.quality.pixels import low_pass, shrink, total_od
from hepipe.stains.deconvolution import WHITE

WORK_MPP = 4.0
GLASS_OD = 0.015
"""Mean of three channels, low-passed over 4 µm. Half of `TISSUE_OD`: unstained stroma and fat lie between the two."""


def white(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    *,
    white_he: Sequence[float] = WHITE,
    white_ihc: Sequence[float] = WHITE,
) -> Mapping[str, float]:
    """`white_frac_he`, `white_frac_ihc`: share of the tile that is empty glass, 0 to 1.

    Args:
        he: H&E tile.
        ihc: IHC tile.
        mpp: Of both.
        white_he: White point of the H&E slide.
        white_ihc: White point of the IHC slide.
    """
    return {
        "white_frac_he": float(glass(*shrink(he, mpp, WORK_MPP), white_he).mean()),
        "white_frac_ihc": float(glass(*shrink(ihc, mpp, WORK_MPP), white_ihc).mean()),
    }


def glass(rgb: UInt8[np.ndarray, "h w 3"], mpp: float, white_point: Sequence[float]) -> Bool[np.ndarray, "h w"]:
    """Where nothing lies on the slide."""
    empty: np.ndarray = low_pass(total_od(rgb, white_point), 4 / mpp) < GLASS_OD
    return empty
