"""How a data set is divided, what its splits share, and how good the division is: a part of its card in the report."""

from __future__ import annotations

from hepipe.dataset import strata
from hepipe.dataset.audit import KINDS, LeakAudit
from hepipe.dataset.card import DatasetCard, advice_of
from hepipe.report.html import Content, Html, fold, join, table, tag

LEAK = "leak: "
"""What a card's warnings of leaks begin with; they are told here in red, not among the others."""


def splits_section(card: DatasetCard) -> Html:
    """Leaks first; then every stratum, the staining batches, the proof and the advice to take folds."""
    parts: list[Content] = []
    if card.leaks is not None:
        parts.append(_leaks(card.leaks))
    for title, own in (("HER2 score by split", card.strata), ("HER2 score by staining batch", card.batches)):
        if own:
            head, rows = strata.table(own)
            parts.append(table(head, rows, caption=f"{title}: tiles | slides | patients"))
    if card.proof is not None:
        lines = tag("ul", *(tag("li", line) for line in card.proof.lines()))
        parts.append(fold(f"The division of patients: {card.proof.verdict}", lines))
    if advice := advice_of(card):
        parts.append(tag("p", advice, class_="note"))
    return join(parts)


def _leaks(audit: LeakAudit) -> Html:
    if not audit.n_leaks:
        return tag(
            "p",
            f"Leak audit of {audit.n_tiles:,} tiles: no patient, slide, pixels, field or near-duplicate in two splits "
            f"(near: up to {audit.near_bits} of 63 bits of a perceptual hash, turned and mirrored too).",
            class_="quiet",
        )
    counts = ", ".join(f"{audit.counts[kind]:,} by {kind}" for kind in KINDS if audit.counts[kind])
    whose = (
        "the splits are those that the set came with, and stay" if audit.official else "near-duplicates are accepted"
    )
    names = fold(
        f"{len(audit.leaks)} leaks by name", tag("ul", *(tag("li", leak.line()) for leak in audit.leaks))
    )  # fmt: skip
    return join([tag("p", tag("b", "Splits leak"), f": {counts}; {whose}.", class_="note red"), names])
