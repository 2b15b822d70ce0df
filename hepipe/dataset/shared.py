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


def shared_tiles(judging: Path, split: Split, learned: Sequence[Path], *, is_chosen: bool) -> Shared:
    """What the tiles of a split share with those that a run was trained, and chosen, on.

    Args:
        judging: Index of the tiles that judge, its card beside it.
        split: Which of them.
        learned: Index that the run was trained on, its card beside it; then those of the runs that it builds on.
        is_chosen: Whether tiles of the first one's split val chose the checkpoint.

    Raises:
        StoreError: No such index.
    """
    own = [row for row in _rows(judging) if row["split"] == split]
    known = _Known(_slides(judging))
    for path in learned:
        known.add(path, "train", judging)
    chosen = _Known(_slides(judging))
    if is_chosen:
        chosen.add(learned[0], "val", judging)
    return Shared(n_tiles=len(own), trained=known.counts(own), chosen=chosen.counts(own))


class _Known:
    """What is in the tiles that a run has met."""

    def __init__(self, slides: Mapping[str, frozenset[str]]) -> None:
        self.own_slides = slides
        self.pixels: set[tuple[str, str]] = set()
        self.slides: set[str] = set()
        self.patients: set[tuple[str, str]] = set()
        self.of_this_set: set[tuple[str, str]] = set()

    def add(self, index: Path, split: Split, judging: Path) -> None:
        """Take in a split of an index."""
        slides, is_same = _slides(index), index.parent.resolve() == judging.parent.resolve()
        for row in _rows(index):
            if row["split"] != split:
                continue
            self.pixels.update(_contents(row))
            self.slides |= slides.get(row["case_id"] or "", frozenset())
            if row["patient_id"] is not None:
                patient = row["source_set"], row["patient_id"]
                (self.of_this_set if is_same else self.patients).add(patient)

    def counts(self, own: Iterable[Mapping[str, Any]]) -> dict[Kind, int]:
        """Tiles of which something is known, by the surest of it."""
        counts: Counter[Kind] = Counter()
        for row in own:
            patient = row["source_set"], row["patient_id"]
            if not self.pixels.isdisjoint(_contents(row)):
                counts["pixels"] += 1
            elif not self.slides.isdisjoint(self.own_slides.get(row["case_id"] or "", ())):
                counts["slide"] += 1
            elif patient in self.of_this_set or (row["source_set"] not in UNNAMED and patient in self.patients):
                counts["patient"] += 1
        return {kind: counts[kind] for kind in KINDS if counts[kind]}


def _rows(index: Path) -> list[dict[str, Any]]:
    return [row for row in read_table(index, INDEX, columns=_COLUMNS) if row["place"] == "inside"]


def _contents(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Digests of both stains' pixels; two empty tiles share nothing."""
    return [
        (stain, row[f"{stain}_sha256"])
        for stain in ("he", "ihc")
        if row[f"{stain}_sha256"] and row[f"{stain}_phash"] != EMPTY_HASH
    ]


def _slides(index: Path) -> dict[str, frozenset[str]]:
    """Case to the content of its slides, as far as the card beside the index knows."""
    card = index.parent / "dataset.json"
    made = read_card(card).made_of if card.is_file() else None
    return {} if made is None else {name: frozenset(case.slides.values()) for name, case in made.cases.items()}
