"""Where crops lie in a larger tile, and how much each counts at a place, so that seams do not show."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from hepipe.specs.training import StitchSpec

USUAL = StitchSpec()


def starts(side_px: int, crop_px: int, *, overlap_frac: float = USUAL.overlap_frac) -> list[int]:
    """Left edges of crops that cover a side evenly; the first starts at 0, the last ends at the side's end."""
    if crop_px > side_px:
        raise ValueError(f"a crop of {crop_px} px does not fit into {side_px} px")
    advance = max(1, int(crop_px * (1 - overlap_frac)))
    n_crops = 1 + -(-(side_px - crop_px) // advance)
    return [round(i * (side_px - crop_px) / max(n_crops - 1, 1)) for i in range(n_crops)]


def weights(crop_px: int, *, stitch: StitchSpec = USUAL) -> Float[np.ndarray, "crop crop"]:
    """How much a crop counts at each of its px: 1 inside, falling linearly, never to 0, over the margin; or 1."""
    if stitch.blend == "mean":
        return np.ones((crop_px, crop_px), np.float32)
    margin = max(1, int(crop_px * stitch.overlap_frac))
    edge = np.minimum(np.arange(1, crop_px + 1), np.arange(crop_px, 0, -1))
    ramp = np.minimum(edge / (margin + 1), 1.0)
    product: np.ndarray = np.outer(ramp, ramp).astype(np.float32)
    return product
