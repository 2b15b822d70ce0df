"""Which tiles stay: limits on the raw measurements, applied to the table alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hepipe.config import QualitySpec
from hepipe.errors import ConfigError
from hepipe.status import OK, CaseStatus, failed, review

ORDER = (
    "outside_frac", "white_frac", "lost_frac", "pen", "rim_um", "crease", "shade", "veil", "blur", "doubling",
    "dab_saturated_frac", "shift_um", "ncc_peak",
)  # fmt: skip
"""What is named first as the reason: causes before what follows from them; H&E before IHC."""


def grade(tiles: Sequence[Mapping[str, Any]], spec: QualitySpec) -> list[dict[str, Any]]:
    """A row of the verdict table for each tile, in the order given.

    Raises:
        ConfigError: A limit on a measurement that the tiles do not have.
    """
    names = sorted(spec.limits, key=_rank)
    if tiles:
        known = set(tiles[0]["measurements"])
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(
                f"quality.limits: no measurement {', '.join(unknown)}; there are {', '.join(sorted(known))}"
            )
    rows = []
    for tile in tiles:
        flags = [name for name in names if not spec.limits[name].passes(tile["measurements"][name])]
        rows.append(
            {"tile_id": tile["tile_id"], "keep": not flags, "reason": flags[0] if flags else "", "flags": flags}
        )
    return rows


def grade_status(verdicts: Sequence[Mapping[str, Any]], spec: QualitySpec) -> CaseStatus:
    """What the verdicts mean for the case: failed without a tile left, to be looked at when most are dropped."""
    reasons = Counter(row["reason"] for row in verdicts if not row["keep"])
    dropped = sum(reasons.values())
    if not dropped:
        return OK
    most = ", ".join(f"{name} {count}" for name, count in reasons.most_common(3))
    if dropped == len(verdicts):
        return failed("quality", f"no tile of {dropped} passes ({most}); see quality.limits")
    if dropped > spec.alarm_dropped_frac * len(verdicts):
        return review("quality", f"{dropped} of {len(verdicts)} tiles dropped ({most})")
    return OK


def _rank(name: str) -> tuple[int, str]:
    for place, known in enumerate(ORDER):
        if name == known or name in (f"{known}_he", f"{known}_ihc"):
            return place, name
    return len(ORDER), name
