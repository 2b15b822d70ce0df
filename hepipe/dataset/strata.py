"""What lies where: HER2 score by split, and score by staining batch, as tiles, slides and patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from hepipe.dataset.audit import group_of
from hepipe.dataset.cases import INSIDE
from hepipe.sheet import SCORES
from hepipe.specs.base import Spec

UNKNOWN = "unknown"


class Stratum(Spec):
    """Kept tiles of one score in one split (or fold, or staining batch), and where they come from."""

    score: str = Field(description="0, 1+, 2+, 3+ or unknown.")
    group: str = Field(description="Split, `fold 0`, or a batch of the sheet.")
    tiles: int
    slides: int = Field(description="0 where nobody says from which slides they are.")
    patients: int = Field(description="0 where unknown.")

    @property
    def counts(self) -> str:
        """`tiles | slides | patients`."""
        return " | ".join(
            "–" if not count and self.tiles else f"{count:,}" for count in (self.tiles, self.slides, self.patients)
        )


def by_split(rows: Sequence[Mapping[str, Any]], wanted: Iterable[str] = ()) -> tuple[Stratum, ...]:
    """Every score in every split or fold that has tiles or was wanted; tiles from beside the tumour are not counted."""
    return _strata(rows, group_of, wanted)


def by_batch(rows: Sequence[Mapping[str, Any]]) -> tuple[Stratum, ...]:
    """Every score in every staining batch; empty where the sheet names no batch."""
    if all(row.get("batch") is None for row in rows):
        return ()
    return _strata(rows, lambda row: row["batch"] or UNKNOWN)


def batch_warnings(strata: Sequence[Stratum]) -> list[str]:
    """Batches that hold one score alone: nobody can tell the batch from the score."""
    batches: dict[str, list[str]] = defaultdict(list)
    for stratum in strata:
        if stratum.tiles and UNKNOWN not in (stratum.group, stratum.score):
            batches[stratum.group].append(stratum.score)
    if len({score for scores in batches.values() for score in scores}) < 2:
        return []
    return [
        f"staining batch {batch} holds score {scores[0]} alone: batch and score are confounded, so that a model may "
        "learn the batch's colours in place of the score"
        for batch, scores in sorted(batches.items())
        if len(scores) == 1
    ]


def table(strata: Sequence[Stratum]) -> tuple[list[str], list[list[str]]]:
    """Groups as columns, scores as rows, `tiles | slides | patients` in between: column names and rows."""
    groups = list(dict.fromkeys(stratum.group for stratum in strata))
    cells = {(stratum.score, stratum.group): stratum.counts for stratum in strata}
    scores = list(dict.fromkeys(stratum.score for stratum in strata))
    return ["HER2", *groups], [[score, *(cells[score, group] for group in groups)] for score in scores]


def _strata(
    rows: Sequence[Mapping[str, Any]], group: Callable[[Mapping[str, Any]], str], wanted: Iterable[str] = ()
) -> tuple[Stratum, ...]:
    inside = [row for row in rows if row["place"] == INSIDE]
    members: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in inside:
        members[row["her2_score"] or UNKNOWN, group(row)].append(row)
    scores = [score for score in (*SCORES, UNKNOWN) if any(score == own for own, _ in members)]
    # A split that has no tile of a score is shown, and so is one that has none at all.
    groups = sorted({*wanted, *(name for _, name in members)}, key=_order)
    return tuple(
        Stratum(
            score=score,
            group=name,
            tiles=len(own := members.get((score, name), [])),
            slides=len({row.get("slide_id") or row["case_id"] for row in own} - {None}),
            patients=len({row["patient_id"] for row in own} - {None}),
        )
        for score in scores
        for name in groups
    )


def _order(group: str) -> tuple[int, str]:
    first = ("train", "val", "test")
    if group in first:
        return first.index(group), ""
    word, _, number = group.rpartition(" ")
    return len(first), f"{word} {int(number):03d}" if word == "fold" and number.isdigit() else group
