"""How well the two tiles match: correlation of low-passed optical density over a bounded window of shifts.

Total density and not haematoxylin: on real consecutive pairs raw haematoxylin correlates at 0.0 to 0.2 even where the
outlines match. Bounded: phase correlation returns shifts of more than 100 px on such pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.quality.pixels import low_pass, shrink, total_od

SIGMA_UM = 4.0
WINDOW_UM = 25.0
WORK_MPP = 2.0


def misalignment(he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float) -> Mapping[str, float]:
    """`ncc_peak` (-1 to 1, higher is better) and `shift_um` (0 and up, lower is better).

    A shift as large as the window (25 µm, or a quarter of a small tile) means: beyond the search range. Both are
    undefined (nan) where a tile is flat.
    """
    planes = []
    for rgb in (he, ihc):
        small, work_mpp = shrink(rgb, mpp, WORK_MPP)
        planes.append(low_pass(total_od(small), SIGMA_UM / work_mpp))
    peak, shift_px = best_shift(*planes, window_px=max(1, round(WINDOW_UM / work_mpp)))
    return {"ncc_peak": peak, "shift_um": shift_px * work_mpp}


def best_shift(
    fixed: Float32[np.ndarray, "h w"], moving: Float32[np.ndarray, "h w"], *, window_px: int
) -> tuple[float, float]:
    """The largest correlation over shifts within a window, and that shift's length, px.

    The middle of `fixed` is compared with every place of `moving`, so each shift sees as many px.
    """
    window = min(window_px, min(fixed.shape) // 4)
    middle = np.ascontiguousarray(fixed[window : fixed.shape[0] - window, window : fixed.shape[1] - window])
    if middle.std() < 1e-4 or moving.std() < 1e-4:
        return math.nan, math.nan
    scores = cv2.matchTemplate(moving, middle, cv2.TM_CCOEFF_NORMED)
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    dy = row + _vertex(scores[:, column], int(row)) - window
    dx = column + _vertex(scores[row], int(column)) - window
    return float(scores[row, column]), float(math.hypot(dx, dy))


def _vertex(line: Float32[np.ndarray, " n"], place: int) -> float:
    """Offset of the parabola's top through three neighbours; 0 at the ends."""
    if not 0 < place < len(line) - 1:
        return 0.0
    before, here, after = (float(v) for v in line[place - 1 : place + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else 0.5 * (before - after) / bend
