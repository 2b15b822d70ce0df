"""Pixels that the camera could not hold: burnt out, or black in every channel."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

EVERY = 2
"""Of rows and columns that are looked at: shares need no more, and means of px would hide single ones."""
BURNT = 255
COLORED = 6
"""Grey levels between the channels of a px that is tissue: white glass at 255 is how most scanners are set."""
BLACK = 8
"""Optical density 1.5 in every channel. DAB of a 3+ membrane leaves red far above: its blue alone is at the floor."""


def saturation(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`burnt_frac_*`: share of px that are coloured and have a channel at 255; `black_frac_*`: black in every channel.

    Both 0 to 1 of the tile. How much DAB is saturated is another question: `dab_saturated_frac`.
    """
    found = {}
    for stain, rgb in (("he", he), ("ihc", ihc)):
        red, green, blue = cv2.split(np.ascontiguousarray(rgb[::EVERY, ::EVERY]))
        most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
        burnt = (most >= BURNT) & (least < BURNT - COLORED)
        found[f"burnt_frac_{stain}"] = float(burnt.mean())
        found[f"black_frac_{stain}"] = float((most <= BLACK).mean())
    return found
