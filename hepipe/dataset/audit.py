"""What two splits share that they must not: patients, slides, pixels, fields of view, near-duplicate tiles.

The splits of slides that are divided here are hepipe's own, and so are the presets `by_slide` and `by_case` of imported
sets: a leak stops the data set. Published splits stay as they are, since their tables must be reproducible: a leak is a
red flag in the card and in the report.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from hepipe.dataset.near import hash_bits, near_pairs
from hepipe.errors import ConfigError, SlideError, StoreError
from hepipe.specs.base import Spec

Kind = Literal["patient", "slide", "pixels", "overlap", "near-duplicate"]
KINDS: tuple[Kind, ...] = ("patient", "slide", "pixels", "overlap", "near-duplicate")
SHOWN = 20
"""Leaks of a kind that are named; all are counted."""
CONFIRMED = 400
"""Pairs of near-duplicates whose pixels are looked at."""
TOUCH_PX0 = 2
"""Neighbours on a grid may share this much where corners are rounded, px at level 0."""
SAME_NCC = 0.25
"""Correlation of fine structure from which two tiles show the same field.

Of 500 pairs of different tiles the highest was 0.22 among drawn ones and 0.14 among real ones (`docs/splits.md`).
"""
_SIDE, _REACH, _COARSE, _FLAT = 128, 8, 4.0, 0.05
EMPTY_HASH = "0" * 16
"""Perceptual hash of a tile without structure, whose likeness says nothing."""
_TRY = {
    "patient": "give all slides of a patient one patient_id; with column split, one word",
    "slide": "one slide stands in the sheet twice under two patients: correct patient_id, or take one row out",
    "pixels": "the same field was scanned or named twice: correct patient_id of the cases, or take one row out",
    "overlap": "the same slide stands under two patients: correct patient_id, or take one row out",
    "near-duplicate": "look at the pairs: if they show the same tissue correct patient_id of the cases or drop one of "
    "each by curation; if they do not, splits.near_duplicates: warn, or a lower splits.near_bits",
}

Pixels = Callable[[Mapping[str, Any]], UInt8[np.ndarray, "h w 3"]]


class Leak(Spec):
    """One thing that two splits share."""

    kind: Kind
    what: str = Field(description="Patient or slide; for tiles the first one's id.")
    other: str = Field("", description="Id of the tile that it is in the other split.")
    splits: tuple[str, str]
    detail: str = ""

    def line(self) -> str:
        """In words."""
        first, second = self.splits
        if not self.other:
            return f"{self.kind} {self.what} is in {first} and in {second}{self.detail}"
        word = {
            "pixels": "has the pixels of",
            "overlap": "overlaps",
            "near-duplicate": "is a near-duplicate of",
        }[self.kind]
        return f"tile {self.what} ({first}) {word} {self.other} ({second}){self.detail}"


class LeakAudit(Spec):
    """What was looked for and what was found."""

    n_tiles: int = Field(description="Tiles looked at.")
    n_hashed: int = Field(description="Those with a perceptual hash and enough structure for it.")
    near_bits: int
    official: bool = Field(description="Whether the splits are those that an imported set was published with.")
    counts: Mapping[Kind, int] = Field(description="Leaks by kind; every kind is named.")
    leaks: tuple[Leak, ...] = Field(description="Up to 20 of each kind.")
    alike: int = Field(0, description="Pairs with like hashes whose fine structure differs: no leak.")
    unread: int = Field(0, description="Near-duplicates whose pixels were not looked at.")
    notes: tuple[str, ...] = ()

    @property
    def n_leaks(self) -> int:
        """Of all kinds."""
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """What was found, in words; the first of each kind by name."""
        found = []
        for kind in KINDS:
            own = [leak for leak in self.leaks if leak.kind == kind]
            if own:
                count = self.counts[kind]
                more = f" (the first of {count:,})" if count > 1 else ""
                found.append(f"{own[0].line()}{more}")
        return found


def refuse(audit: LeakAudit, *, near_duplicates: Literal["fail", "warn"]) -> None:
    """Stop a data set of our own splits that leak.

    Raises:
        ConfigError: With the leaks by name and what to do. Nothing is written; tiles, verdicts, decisions stay.
    """
    if audit.official:
        return
    kinds = [kind for kind in KINDS if audit.counts[kind]]
    if near_duplicates == "warn":
        kinds = [kind for kind in kinds if kind != "near-duplicate"]
    if not kinds:
        return
    lines = []
    for kind in kinds:
        lines += [leak.line() for leak in audit.leaks if leak.kind == kind]
        if audit.counts[kind] > SHOWN:
            lines.append(f"and {audit.counts[kind] - SHOWN:,} more of this kind")
        lines.append(f"what to do: {_TRY[kind]}")
    raise ConfigError("splits leak, so no data set is written (tiles stay as they are):\n  " + "\n  ".join(lines))


@dataclass
class _Found:
    counts: Counter[Kind] = field(default_factory=Counter)
    leaks: list[Leak] = field(default_factory=list)
    alike: int = 0
    unread: int = 0

    def add(self, leak: Leak) -> None:
        self.counts[leak.kind] += 1
        if self.counts[leak.kind] <= SHOWN:
            self.leaks.append(leak)


def audit(
    rows: Sequence[Mapping[str, Any]],
    *,
    slides: Mapping[str, Mapping[str, str]],
    sides_px0: Mapping[str, float],
    near_bits: int,
    official: bool,
    pixels: Pixels | None = None,
) -> LeakAudit:
    """Everything that two splits (or folds) share.

    Args:
        rows: Of the index.
        slides: Case to stain to the digest of the slide's content.
        sides_px0: Case, or `imported`, to the side of its tiles in px of level 0, where known.
        near_bits: Perceptual hashes are near up to so many bits.
        official: Whether the splits came with the set.
        pixels: Reads a row's H&E tile, to tell near-duplicates from tiles that are alike at a coarse look only.
    """
    found = _Found()
    _shared(found, "patient", rows, "patient_id")
    notes = _slides(found, rows, slides)
    _same_pixels(found, rows)
    _overlaps(found, rows, slides, sides_px0)
    hashed = [row for row in rows if row.get("he_phash") not in (None, "", EMPTY_HASH)]
    _near(found, hashed, near_bits, pixels)
    return LeakAudit(
        n_tiles=len(rows),
        n_hashed=len(hashed),
        near_bits=near_bits,
        official=official,
        counts={kind: found.counts[kind] for kind in KINDS},
        leaks=tuple(found.leaks),
        alike=found.alike,
        unread=found.unread,
        notes=tuple(notes),
    )


def group_of(row: Mapping[str, Any]) -> str:
    """What a tile may not share with another: its fold, or its split."""
    fold = row.get("fold")
    return str(row["split"]) if fold is None else f"fold {fold}"


def _shared(found: _Found, kind: Kind, rows: Iterable[Mapping[str, Any]], column: str) -> None:
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.get(column) is not None:
            groups[row[column]].add(group_of(row))
    for name, seen in sorted(groups.items()):
        if len(seen) > 1:
            first, *others = sorted(seen)
            found.add(Leak(kind=kind, what=name, splits=(first, " and ".join(others))))


def _slides(found: _Found, rows: Sequence[Mapping[str, Any]], slides: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Slides in two splits, by their content or by the id of an imported set; those of two patients are noted."""
    _shared(found, "slide", [row for row in rows if row["case_id"] not in slides], "slide_id")
    cases: dict[str, str] = {row["case_id"]: group_of(row) for row in rows if row["case_id"] in slides}
    patients = {row["case_id"]: row["patient_id"] for row in rows if row["case_id"] in slides}
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case_id in sorted(cases):
        for stain, content in slides[case_id].items():
            holders[stain, content].append(case_id)
    notes = []
    for (stain, content), own in sorted(holders.items()):
        groups = sorted({cases[case_id] for case_id in own})
        detail = f": {stain} slide of cases {', '.join(own)}"
        if len(groups) > 1:
            first, *others = groups
            leak = Leak(kind="slide", what=content[:12], splits=(first, " and ".join(others)), detail=detail)
            found.add(leak)
        elif len({patients[case_id] for case_id in own}) > 1:
            notes.append(f"slide {content[:12]} stands under several patients, by chance in one split{detail}")
    return notes


def _same_pixels(found: _Found, rows: Sequence[Mapping[str, Any]]) -> None:
    """Tiles of two splits with the same pixels of a stain: a leak, whatever the ids say."""
    for stain in ("he", "ihc"):
        first: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
        for row in rows:
            content = row.get(f"{stain}_sha256")
            # Two empty tiles share nothing.
            if content is None or row.get(f"{stain}_phash") == EMPTY_HASH:
                continue
            seen, own = first[content], group_of(row)
            for group, other in seen.items():
                if group != own:
                    found.add(_of_tiles("pixels", other, row, f": {'H&E' if stain == 'he' else 'IHC'}"))
                    break
            seen.setdefault(own, row)


def _overlaps(
    found: _Found,
    rows: Sequence[Mapping[str, Any]],
    slides: Mapping[str, Mapping[str, str]],
    sides_px0: Mapping[str, float],
) -> None:
    """Tiles of two splits that show the same part of one slide."""
    by_slide: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        slide = slides.get(row["case_id"] or "", {}).get("he") or row.get("slide_id")
        if slide is not None and row.get("x_px0") is not None and _side(row, sides_px0) > TOUCH_PX0:
            by_slide[slide].append(row)
    for slide in sorted(by_slide):
        own = by_slide[slide]
        if len({group_of(row) for row in own}) < 2:
            continue
        # Cells as large as the largest tile: what overlaps lies in the same or a neighbouring cell.
        cell = max(_side(row, sides_px0) for row in own)
        cells: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
        for row in own:
            x, y = int(row["x_px0"] // cell), int(row["y_px0"] // cell)
            for other in (other for dy in (-1, 0, 1) for dx in (-1, 0, 1) for other in cells.get((x + dx, y + dy), ())):
                if group_of(other) != group_of(row) and (share := _common(row, other, sides_px0)) > 0:
                    found.add(_of_tiles("overlap", other, row, f" by {share:.0%} of slide {slide[:12]}'s field"))
            cells[x, y].append(row)


def _side(row: Mapping[str, Any], sides_px0: Mapping[str, float]) -> float:
    return sides_px0.get(row["case_id"] or "", sides_px0.get("imported", 0.0))


def _common(one: Mapping[str, Any], other: Mapping[str, Any], sides_px0: Mapping[str, float]) -> float:
    """Share of the smaller tile that both show; 0 for neighbours that touch."""
    sides = _side(one, sides_px0), _side(other, sides_px0)
    spans = []
    for axis in ("x_px0", "y_px0"):
        low = max(one[axis], other[axis])
        high = min(one[axis] + sides[0], other[axis] + sides[1])
        spans.append(float(high - low))
    if min(spans) <= TOUCH_PX0:
        return 0.0
    return spans[0] * spans[1] / min(sides) ** 2


def _near(found: _Found, rows: Sequence[Mapping[str, Any]], bits: int, pixels: Pixels | None) -> None:
    """Tiles of two splits whose H&E looks the same, turned or mirrored too; same pixels were told before."""
    # One tile of each hash and split stands for all: copies within a split are no leak.
    firsts: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        firsts.setdefault((row["he_phash"], group_of(row)), row)
    picked = list(firsts.values())
    names = sorted({group for _, group in firsts})
    groups = np.array([names.index(group) for _, group in firsts], np.int64)
    hashes = hash_bits([phash for phash, _ in firsts])
    looked = 0
    for one, other, distance, (turns, mirrored) in near_pairs(hashes, groups, bits=bits):
        first, second = picked[one], picked[other]
        if first["he_sha256"] == second["he_sha256"]:
            continue
        detail = f": {distance} of 63 bits differ"
        if mirrored or turns:
            detail += f"; {'mirrored, ' if mirrored else ''}turned by {90 * turns}°"
        if pixels is None or looked >= CONFIRMED:
            found.unread += 1
            found.add(_of_tiles("near-duplicate", first, second, f"{detail}; pixels not compared"))
            continue
        looked += 1
        try:
            ncc = fine_likeness(pixels(first), pixels(second), turns=turns, mirrored=mirrored)
        except (StoreError, SlideError, OSError):
            found.unread += 1
            found.add(_of_tiles("near-duplicate", first, second, f"{detail}; pixels could not be read"))
            continue
        if ncc < SAME_NCC:
            found.alike += 1
        else:
            found.add(_of_tiles("near-duplicate", first, second, f"{detail}; fine structure correlates by {ncc:.2f}"))


def fine_likeness(
    one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h2 w2 3"], *, turns: int, mirrored: bool
) -> float:
    """Correlation, -1 to 1, of what is finer than the perceptual hash sees, at the best shift of up to a 16th.

    Args:
        one: Is laid like the other first: mirrored left to right, then turned by quarters.
        other: At any size.
        turns: As `np.rot90` counts.
        mirrored: Whether it is mirrored.
    """
    laid = np.ascontiguousarray(np.rot90(one[:, ::-1] if mirrored else one, turns))
    inner, whole = np.ascontiguousarray(_fine(laid)[_REACH:-_REACH, _REACH:-_REACH]), _fine(other)
    # Without fine structure there is nothing to compare; OpenCV would say 1.
    if min(float(inner.std()), float(whole.std())) < _FLAT:
        return 0.0
    return float(cv2.matchTemplate(whole, inner, cv2.TM_CCOEFF_NORMED).max())


def _fine(rgb: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    way = cv2.INTER_AREA if rgb.shape[0] >= _SIDE else cv2.INTER_LINEAR
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=way).astype(np.float32)
    fine: np.ndarray = grey - cv2.GaussianBlur(grey, (0, 0), _COARSE)
    return fine


def _of_tiles(kind: Kind, one: Mapping[str, Any], other: Mapping[str, Any], detail: str) -> Leak:
    first, second = sorted((one, other), key=lambda row: str(row["tile_id"]))
    return Leak(
        kind=kind,
        what=first["tile_id"],
        other=second["tile_id"],
        splits=(group_of(first), group_of(second)),
        detail=detail,
    )
