"""Which tiles stay: limits on the raw measurements, applied to the table alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hepipe.errors import ConfigError
from hepipe.specs.quality import Alignment, AlignmentSpec, QualitySpec
from hepipe.status import OK, CaseStatus, failed, review
from hepipe.stores.tables import LEFT_OUT

ORDER = (
    "outside_frac", "unscanned", "white_frac", "lost_frac", "pen_blue", "pen_green", "pen_red", "pen_black", "pen",
    "bubble_um", "edge_um", "crease", "shade", "veil", "overstain", "black_frac", "burnt_frac", "blur", "doubling",
    "residual_eosin_od", "dab_saturated_frac", "shift_um", "ncc_peak", "beyond", "misaligned", "weak", "aligned",
)  # fmt: skip
"""What is named first as the reason: causes before what follows from them; H&E before IHC."""
SECTIONS = ("restained", "consecutive")
"""Kinds of section, which nothing here pools."""
CLASSES = ("beyond", "misaligned", "weak", "aligned")
"""Of alignment, worst first."""
UNREADABLE = "unreadable"
"""The reason of a tile whose pixels do not decode."""
ALARM_TILES = 5
"""Of fewer tiles half is no alarm."""
AT_THE_EDGE = 0.98
"""Of the search range: a best place there is only the nearest one to something outside."""


def grade(tiles: Sequence[Mapping[str, Any]], spec: QualitySpec) -> list[dict[str, Any]]:
    """A row of the verdict table for each tile, in the order given.

    Raises:
        ConfigError: A limit on a measurement that the tiles do not have.
    """
    limits = {section: spec.limits_of(section) for section in SECTIONS}
    names = {section: filter_names(spec, section) for section in SECTIONS}
    for section in names:
        _check_known(names[section], next((t for t in tiles if t["section"] == section and not t["problem"]), None))
    rows = []
    for tile in tiles:
        measured, section = tile["measurements"], tile["section"]
        aligned = alignment(measured, getattr(spec.alignment, section))
        if tile["problem"]:
            flags = [tile["problem"] if tile["problem"] in LEFT_OUT else UNREADABLE]
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


def filter_names(spec: QualitySpec, section: str) -> list[str]:
    """Every limit on tiles of a kind of section, in the order in which they are named as the reason."""
    return sorted(spec.limits_of(section), key=_rank)


def grade_status(verdicts: Sequence[Mapping[str, Any]], spec: QualitySpec) -> CaseStatus:
    """What the verdicts mean for the case: failed without a tile left.

    To be looked at when most are dropped, or when one filter alone drops many, whichever is named as their reason.
    """
    reasons = Counter(row["reason"] for row in verdicts if not row["keep"])
    dropped = sum(reasons.values())
    if not dropped:
        return OK
    most = ", ".join(f"{name} {count}" for name, count in reasons.most_common(3))
    if dropped == len(verdicts):
        return failed("quality", f"no tile of {dropped} passes ({most}); see quality.limits")
    told = []
    if dropped > spec.alarm_dropped_frac * len(verdicts):
        told.append(f"{dropped} of {len(verdicts)} tiles dropped ({most})")
    told += [
        f"{name} alone drops {count} of {len(verdicts)} tiles: {advice(name)}"
        for name, count in emptying(verdicts, spec).items()
    ]
    return review("quality", "; ".join(told)) if told else OK


def emptying(verdicts: Sequence[Mapping[str, Any]], spec: QualitySpec) -> dict[str, int]:
    """Filters that more than `alarm_filter_frac` of a case's tiles fail, and how many do; most first.

    A case of fewer than 5 tiles, such as a pair of an imported set, alarms nobody.
    """
    if len(verdicts) < ALARM_TILES:
        return {}
    failing = Counter(name for row in verdicts for name in row["flags"])
    most = spec.alarm_filter_frac * len(verdicts)
    return {name: count for name, count in sorted(failing.items(), key=lambda one: (-one[1], one[0])) if count > most}


def advice(name: str) -> str:
    """What a person can do about a filter that drops much."""
    if name in LEFT_OUT:
        return "the import left them out"
    if name == UNREADABLE:
        return "copy or scan the slide again"
    if name in CLASSES:
        return "look at the registration, or see quality.alignment"
    where = "quality.learned.drop" if name.startswith("learned_") else "quality.limits"
    return f"look at the slide, or see {name} in {where}"


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
