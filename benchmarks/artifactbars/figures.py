"""Recall by severity, the severity that is found half of the time, and precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

BINS = ((0.0, 1 / 3, "faint < 1/3"), (1 / 3, 2 / 3, "medium"), (2 / 3, 1.01, "gross > 2/3"))
RIDGE = 0.02
"""Keeps a fit finite when found and missed do not overlap."""


def half_found(severity: Sequence[float], found: Sequence[bool]) -> float:
    """Severity at which a logistic curve passes 0.5; -inf and inf where it lies beyond what was planted."""
    x, y = np.asarray(severity, float), np.asarray(found, float)
    if not len(x):
        return math.nan
    if y.all() or not y.any():
        return -math.inf if y.all() else math.inf

    def loss(parts: np.ndarray) -> float:
        slope, middle = np.exp(parts[0]), parts[1]
        score = slope * (x - middle)
        return float(np.mean(np.logaddexp(0, np.where(y > 0, -score, score))) + RIDGE * (parts[0] - 2) ** 2)

    middle = float(minimize(loss, np.array([2.0, 0.4]), method="Nelder-Mead").x[1])
    if not x.min() <= middle <= x.max():
        return -math.inf if middle < x.min() else math.inf
    return middle


def share(found: Sequence[bool]) -> str:
    """`recall of n`, or a dash without any."""
    return f"{np.mean(found):.2f} of {len(found)}" if len(found) else "-"


def by_severity(severity: Sequence[float], found: Sequence[bool]) -> list[str]:
    """A cell for each bin, one for the upper two thirds, and the severity of half."""
    x, y = np.asarray(severity, float), np.asarray(found, bool)
    cells = [share(y[(x >= low) & (x < high)]) for low, high, _ in BINS]
    half = half_found(x, y)
    told = {-math.inf: "below", math.inf: "above"}.get(half, "-" if math.isnan(half) else f"{half:.2f}")
    return [*cells, share(y[x >= 1 / 3]), told]


HEAD = (*(name for _, _, name in BINS), "upper 2/3", "half found at")
