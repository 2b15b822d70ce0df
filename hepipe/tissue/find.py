"""Tissue on one slide: threshold, then clean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.specs.slides import TissueSpec
from hepipe.tissue.clean import clean
from hepipe.tissue.otsu import threshold_tissue


def find_tissue(rgb: UInt8[np.ndarray, "h w 3"], *, mpp: float, spec: TissueSpec) -> Bool[np.ndarray, "h w"]:
    """Tissue of a picture of a slide at `mpp`."""
    raw = threshold_tissue(rgb, channel=spec.channel)
    # Of a large slide the picture is as much memory as all that follows, unless the caller keeps it.
    del rgb
    return clean(raw, mpp=mpp, close_um=spec.close_um, min_hole_um2=spec.min_hole_um2, min_piece_um2=spec.min_piece_um2)
