"""What tiles that judge a run share with those that it was trained or chosen on, whatever sets both come from.

Within a data set the audit of its splits says it (`audit.py`); this is for a run that is evaluated on another set, such
as one made of the same slides, or a part of the set that it was trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hepipe.dataset.audit import EMPTY_HASH
from hepipe.dataset.card import read_card
from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split
from hepipe.stores.tables import INDEX, read_table

Kind = Literal["pixels", "slide", "patient"]
KINDS: tuple[Kind, ...] = ("pixels", "slide", "patient")
UNNAMED = ("folder", "aligned")
"""Kinds of imported sets whose ids are names within the one set: the same id in another says nothing."""
_COLUMNS = (
    "tile_id",
    "case_id",
    "patient_id",
    "split",
    "place",
    "source_set",
    "he_sha256",
    "ihc_sha256",
    "he_phash",
    "ihc_phash",
)


class Shared(Spec):
    """Tiles that judge a run and that it has met before, by the surest of what they share."""

    n_tiles: int = Field(description="Tiles that judge.")
    trained: Mapping[Kind, int] = Field(description="Of them in its training split.")
    chosen: Mapping[Kind, int] = Field({}, description="Of them in the split that chose its checkpoint.")

    @property
    def n_trained(self) -> int:
        """Tiles of which something is in the training split."""
        return sum(self.trained.values())

    @property
    def n_chosen(self) -> int:
        """Tiles of which something is in the split that chose the checkpoint."""
        return sum(self.chosen.values())

    def line(self) -> str:
        """What is shared with the training split, in words; empty for nothing."""
        words = {"pixels": "the same pixels", "slide": "the same slide", "patient": "the same patient"}
        found = [f"{self.trained[kind]:,} by {words[kind]}" for kind in KINDS if self.trained.get(kind)]
        return f"{self.n_trained:,} of {self.n_tiles:,} tiles met in training: {', '.join(found)}" if found else ""


def shared_tiles(judging: Path, split: Split, learned: Path, *, is_chosen: bool) -> Shared:
    """What the tiles of a split share with those that a run was trained, and chosen, on.

    Args:
        judging: Index of the tiles that judge, its card beside it.
        split: Which of them.
        learned: Index that the run was trained on, its card beside it.
        is_chosen: Whether tiles of its split val chose the checkpoint.

    Raises:
        StoreError: No such index.
    """
    own = [row for row in _rows(judging) if row["split"] == split]
    theirs = _rows(learned)
    slides = _slides(judging), _slides(learned)
    is_same = judging.parent.resolve() == learned.parent.resolve()

    def met(split: Split) -> dict[Kind, int]:
        return _counts(own, [row for row in theirs if row["split"] == split], slides, is_same=is_same)

    return Shared(n_tiles=len(own), trained=met("train"), chosen=met("val") if is_chosen else {})


def _rows(index: Path) -> list[dict[str, Any]]:
    return [row for row in read_table(index, INDEX, columns=_COLUMNS) if row["place"] == "inside"]


def _counts(
    own: Iterable[Mapping[str, Any]],
    theirs: Sequence[Mapping[str, Any]],
    slides: tuple[Mapping[str, frozenset[str]], Mapping[str, frozenset[str]]],
    *,
    is_same: bool,
) -> dict[Kind, int]:
    pixels = {content for row in theirs for content in _contents(row)}
    known = {digest for row in theirs for digest in slides[1].get(row["case_id"] or "", ())}
    patients = {_patient(row, is_same=is_same) for row in theirs} - {None}
    counts: Counter[Kind] = Counter()
    for row in own:
        if any(content in pixels for content in _contents(row)):
            counts["pixels"] += 1
        elif not known.isdisjoint(slides[0].get(row["case_id"] or "", ())):
            counts["slide"] += 1
        elif _patient(row, is_same=is_same) in patients:
            counts["patient"] += 1
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def _contents(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Digests of both stains' pixels; two empty tiles share nothing."""
    return [
        (stain, row[f"{stain}_sha256"])
        for stain in ("he", "ihc")
        if row[f"{stain}_sha256"] and row[f"{stain}_phash"] != EMPTY_HASH
    ]


def _patient(row: Mapping[str, Any], *, is_same: bool) -> tuple[str, str] | None:
    if row["patient_id"] is None or (row["source_set"] in UNNAMED and not is_same):
        return None
    return row["source_set"], row["patient_id"]


def _slides(index: Path) -> dict[str, frozenset[str]]:
    """Case to the content of its slides, as far as the card beside the index knows."""
    card = index.parent / "dataset.json"
    made = read_card(card).made_of if card.is_file() else None
    return {} if made is None else {name: frozenset(case.slides.values()) for name, case in made.cases.items()}
