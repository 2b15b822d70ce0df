"""Which tiles stay: limits on the raw measurements, applied to the table alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hepipe.errors import ConfigError
from hepipe.specs.quality import Alignment, AlignmentSpec, QualitySpec
from hepipe.status import OK, CaseStatus, failed, review

ORDER = (
    "outside_frac", "white_frac", "lost_frac", "pen", "rim_um", "crease", "shade", "veil", "blur", "doubling",
    "dab_saturated_frac", "shift_um", "ncc_peak", "beyond", "misaligned", "weak", "aligned",
)  # fmt: skip
"""What is named first as the reason: causes before what follows from them; H&E before IHC."""
UNREADABLE = "unreadable"
"""The reason of a tile whose pixels do not decode."""
AT_THE_EDGE = 0.98
"""Of the search range: a best place there is only the nearest one to something outside."""


def grade(tiles: Sequence[Mapping[str, Any]], spec: QualitySpec) -> list[dict[str, Any]]:
    """A row of the verdict table for each tile, in the order given.

    Raises:
        ConfigError: A limit on a measurement that the tiles do not have.
    """
    limits = {section: getattr(spec.limits, section) for section in ("restained", "consecutive")}
    names = {section: sorted(own, key=_rank) for section, own in limits.items()}
    for section in names:
        _check_known(names[section], next((t for t in tiles if t["section"] == section and not t["problem"]), None))
    rows = []
    for tile in tiles:
        measured, section = tile["measurements"], tile["section"]
        aligned = alignment(measured, getattr(spec.alignment, section))
        if tile["problem"]:
            flags = [UNREADABLE]
        else:
            flags = [name for name in names[section] if not limits[section][name].passes(measured[name])]
            flags += [aligned] if aligned in spec.alignment.drop else []
        rows.append(
            {
                "tile_id": tile["tile_id"],
                "keep": not flags,
                "reason": flags[0] if flags else "",
                "flags": flags,
                "alignment": aligned,
            }
        )
    return rows


def alignment(measured: Mapping[str, float], spec: AlignmentSpec) -> Alignment:
    """How well the two tiles lie on each other; see `AlignmentSpec`.

    A shift or correlation that is undefined (nan) confirms nothing, so such a tile is weak at best. Tiles of a chain
    without refinement have no `untrusted_frac` and consecutive ones no `matched_frac`: those are then not asked for.
    """
    shift, peak = (measured.get(name, math.nan) for name in ("shift_um", "ncc_peak"))
    matched, untrusted = measured.get("matched_frac", 1.0), measured.get("untrusted_frac", math.nan)
    if shift >= AT_THE_EDGE * measured.get("search_um", math.inf) or matched < spec.beyond_matched_frac:
        return "beyond"
    if shift > spec.far_um or peak < spec.unlike_peak:
        return "misaligned"
    confirmed = shift <= spec.max_shift_um and peak >= spec.min_peak and matched >= spec.min_matched_frac
    return "aligned" if confirmed and not untrusted > spec.max_untrusted_frac else "weak"


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


def _check_known(names: Sequence[str], tile: Mapping[str, Any] | None) -> None:
    """All tiles of one kind of section have the same measurements, so any of them tells; None: there is none."""
    unknown = [] if tile is None else [name for name in names if name not in tile["measurements"]]
    if tile is not None and unknown:
        raise ConfigError(
            f"quality.limits.{tile['section']}: no measurement {', '.join(unknown)}; "
            f"there are {', '.join(sorted(tile['measurements']))}"
        )


def _rank(name: str) -> tuple[int, str]:
    for place, known in enumerate(ORDER):
        if name == known or name in (f"{known}_he", f"{known}_ihc"):
            return place, name
    return len(ORDER), name
