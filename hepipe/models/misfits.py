"""Why a loss that several models share cannot be computed under a protocol, in words for the person who set it."""

from __future__ import annotations

from hepipe.losses.pyramid import BINOMIAL_LEAST_PX


def pyramid_misfit(crop_px: int) -> str:
    """Of L1 over a binomial pyramid weighted by the option `pyramid_weight`; empty where a crop is large enough."""
    if crop_px >= BINOMIAL_LEAST_PX:
        return ""
    return (
        f"training.crop_px: {crop_px} px, but the pyramid loss takes crops from {BINOMIAL_LEAST_PX} px on; set that, "
        "or options.pyramid_weight: 0"
    )
