"""Why a loss or a network that models share cannot do with a protocol, in words for the person who set it."""

from __future__ import annotations

from hepipe.losses.pyramid import BINOMIAL_LEAST_PX


def multiple_misfit(crop_px: int, multiple: int, *, of: str) -> str:
    """Of networks that halve the side as often as an option says, beyond what SIZE states of the preset.

    Args:
        crop_px: Side of the training crop.
        multiple: Its divisor.
        of: The option as it stands, such as `options.downs: 8`.
    """
    if crop_px % multiple == 0:
        return ""
    return f"training.crop_px: {crop_px} px, but with {of} the networks take multiples of {multiple} px"


def pyramid_misfit(crop_px: int) -> str:
    """Of L1 over a binomial pyramid weighted by the option `pyramid_weight`; empty where a crop is large enough."""
    if crop_px >= BINOMIAL_LEAST_PX:
        return ""
    return (
        f"training.crop_px: {crop_px} px, but the pyramid loss takes crops from {BINOMIAL_LEAST_PX} px on; set that, "
        "or options.pyramid_weight: 0"
    )
