"""Which tiles a person should look at first, and why: near a limit, unlike the others, or flagged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepipe.specs.quality import Limit

NEAR = 0.9
"""A value from here on, as a share of its limit, is near it; one up to 1 / NEAR times its limit is just beyond."""
FAR_MADS = 6.0
"""Robust standard deviations from the median of its kind of section from which a tile is unlike the others: of 20,000
normal values none."""
MIN_TILES = 30
"""Fewer tiles tell nothing of what is usual."""
ALSO = {"shift_um": Limit(max=math.inf), "ncc_peak": Limit(min=-math.inf)}
"""Measurements that no limit stands on by default, with their bad side. Amounts of stain are none: strong DAB is rare
and sound."""


@dataclass(frozen=True)
class Suggestion:
    """Why a person should look at a tile.

    Attributes:
        weight: 0: no reason; larger is more suspicious.
        why: The reasons, the strongest first.
    """

    weight: float = 0.0
    why: tuple[str, ...] = ()


def suggest(
    tiles: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    limits: Mapping[str, Mapping[str, Limit]],
) -> list[Suggestion]:
    """A suggestion for each tile, in the order given: drop a kept one, look again at a dropped one.

    Args:
        tiles: Rows of the tile table.
        verdicts: Rows of the verdict table, on the same tiles in the same order.
        limits: Kind of section to measurement to limit; kinds are never pooled.
    """
    usual = {section: _usual(tiles, verdicts, section, of) for section, of in limits.items()}
    found = []
    for tile, verdict in zip(tiles, verdicts, strict=True):
        own, measured = limits.get(tile["section"], {}), tile["measurements"]
        if not verdict["keep"]:
            found.append(_second_look(measured, verdict["flags"], own))
            continue
        reasons = [(1.0, f"flagged {flag}") for flag in verdict["flags"]]
        reasons += [(0.5, "alignment is weak")] if verdict["alignment"] == "weak" else []
        for name, limit in own.items():
            share = _share(measured.get(name, math.nan), limit)
            if share >= NEAR:
                reasons.append(((share - NEAR) / (1 - NEAR), f"{name} at {share:.0%} of its limit"))
        for name, (middle, spread, sign) in usual.get(tile["section"], {}).items():
            value = measured.get(name, math.nan)
            off = sign * (value - middle) / spread
            if off >= FAR_MADS:
                reasons.append((min(1.0, off / (4 * FAR_MADS)), f"{name} is {value:.3g}, usual is {middle:.3g}"))
        found.append(_weighed(reasons))
    return found


def _usual(
    tiles: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]], section: str, limits: Mapping[str, Limit]
) -> dict[str, tuple[float, float, int]]:
    """Measurement to its median, robust deviation and bad side (1: large, -1: small), of the kept tiles of a kind."""
    kept = [
        tile["measurements"]
        for tile, verdict in zip(tiles, verdicts, strict=True)
        if verdict["keep"] and tile["section"] == section
    ]
    found = {}
    for name, limit in {**ALSO, **limits}.items():
        values = np.array([measured.get(name, math.nan) for measured in kept], float)
        values = values[np.isfinite(values)]
        if len(values) < MIN_TILES:
            continue
        middle = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - middle)))
        if spread > 0:
            found[name] = (middle, spread, 1 if limit.max is not None else -1)
    return found


def _second_look(measured: Mapping[str, float], flags: Sequence[str], limits: Mapping[str, Limit]) -> Suggestion:
    """A tile that one filter drops by little may be sound."""
    if len(flags) != 1 or flags[0] not in limits:
        return Suggestion()
    share = _share(measured.get(flags[0], math.nan), limits[flags[0]])
    if not 1 < share <= 1 / NEAR:
        return Suggestion()
    return Suggestion(
        (1 / NEAR - share) / (1 / NEAR - 1), (f"dropped by little: {flags[0]} at {share:.0%} of its limit",)
    )


def _share(value: float, limit: Limit) -> float:
    """A value as a share of its limit, over 1 beyond it; nan where that says nothing."""
    if limit.max is not None and 0 < limit.max < math.inf and not value <= 0:
        return value / limit.max
    if limit.min is not None and limit.min > 0 and value > 0:
        return limit.min / value
    return math.nan


def _weighed(reasons: Sequence[tuple[float, str]]) -> Suggestion:
    if not reasons:
        return Suggestion()
    ranked = sorted(reasons, key=lambda one: (-one[0], one[1]))
    # Several weak reasons weigh more than one.
    weight = 1 - math.prod(1 - min(one, 0.95) for one, _ in ranked)
    return Suggestion(weight, tuple(why for _, why in ranked))
