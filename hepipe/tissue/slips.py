"""Mistakes that outlines carry: positions in another order, unit or level than px of level 0, [x, y] from above.

None is mended on its own account: what is found is told, with what would put it right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "n 2"]
LEVELS = (2, 4, 8, 16, 32, 64)
"""How much smaller the level of a slide may be that somebody counted px on."""


@dataclass(frozen=True)
class Slip:
    """One mistake.

    Attributes:
        found: Beginning of a sentence that ends with what would be if it were undone.
        remedy: What to do.
        move: `(points, width and height, µm per px)` to where the points were meant.
    """

    found: str
    remedy: str
    move: Callable[[Points, np.ndarray, float], Points]


def _smaller_level(factor: int) -> Slip:
    return Slip(
        f"as px of a level {factor} times smaller",
        f"positions are px of level 0: export from QuPath, or multiply by {factor}",
        lambda points, size_px0, mpp: points * factor,
    )


SLIPS = (
    Slip(
        "with x and y changed over",
        "GeoJSON's positions are [x, y]: change them over, or export from QuPath",
        lambda points, size_px0, mpp: points[:, ::-1],
    ),
    Slip(
        "with the sign of y turned",
        "y grows downwards from the slide's upper edge: turn the sign, or export from QuPath",
        lambda points, size_px0, mpp: points * (1, -1),
    ),
    Slip(
        "as µm",
        "positions are px of level 0: divide by the slide's µm per px, or export from QuPath",
        lambda points, size_px0, mpp: points / mpp,
    ),
)
"""Those that one outline beside the slide shows by itself."""
ON_TISSUE = (
    *SLIPS,
    Slip(
        "with y counted from the lower edge",
        "y grows downwards from the slide's upper edge: take it from the slide's height, or export from QuPath",
        lambda points, size_px0, mpp: points * (1, -1) + (0, size_px0[1]),
    ),
    *(_smaller_level(factor) for factor in LEVELS),
)
"""Those that show only by the tissue that outlines miss."""
