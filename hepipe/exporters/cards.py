"""What travels with every export: the data set's card, its terms, and a page that says what the files are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hepipe.exporters.growing import MANIFEST, RECORD
from hepipe.exporters.selection import SPLITS, Selection

NO_TERMS = (
    "The data set's card names no terms. That is no permission: whoever passes this export on has to settle it with "
    "the owner of the slides."
)
TERMS = "TERMS.txt"


def terms_of(selection: Selection) -> list[str]:
    """The terms that the data set's card carries, a line for each set, which it begins with."""
    return [one.line for one in selection.card.terms]


def terms_text(selection: Selection) -> str:
    """The terms with the licence texts that lay with the sets."""
    parts = []
    for line, one in zip(terms_of(selection), selection.card.terms, strict=True):
        parts.append(line)
        parts += [f"--- {name} of {one.source_set} ---\n{text.strip()}" for name, text in sorted(one.texts.items())]
    return "\n\n".join(parts or [NO_TERMS]) + "\n"


def travelling(
    selection: Selection,
    *,
    what: str,
    files: Sequence[tuple[str, str]],
    page: str = "CARD.md",
    head: str = "",
    terms: str = TERMS,
) -> dict[str, bytes]:
    """The files beside the tiles, by name.

    Args:
        selection: What is exported.
        what: The layout in a sentence or two.
        files: Name or pattern of files, and what they are.
        page: Name of the page.
        head: What the page begins with.
        terms: Name of the file of terms.
    """
    return {
        "dataset.json": selection.card_file.read_bytes(),
        terms: terms_text(selection).encode(),
        page: (head + page_of(selection, what=what, files=[*files, (terms, "the terms above")])).encode(),
    }


def record_of(selection: Selection) -> dict[str, Any]:
    """What an export's record says of the data set."""
    return {
        "dataset": selection.card.name,
        "fingerprint": selection.card.fingerprint,
        "tile_px": selection.tile_px,
        "mpp": selection.mpp,
        "tiles": {split: len(selection.in_split(split)) for split in SPLITS},
        "terms": terms_of(selection),
    }


def page_of(selection: Selection, *, what: str, files: Sequence[tuple[str, str]]) -> str:
    """The page in Markdown."""
    card = selection.card
    markers = sorted({str(row["marker"]) for row in selection.rows})
    lines = [
        f"# {_plain(card.name)}",
        "",
        f"Pairs of tiles, H&E and {_plain(', '.join(markers))}: {len(selection.rows):,} of {selection.tile_px} px at "
        f"{selection.mpp:g} µm per px, of {card.n_kept:,} that the data set keeps. {what}",
        "",
        f"Fingerprint of the data set: `{card.fingerprint}`.",
        "",
        "| split | tiles | patients | cases | by score |",
        "| --- | --- | --- | --- | --- |",
        *(_split_line(selection.in_split(split), split) for split in SPLITS),
        "",
        _sections(selection.rows),
        "",
        "## Terms",
        "",
        *(f"> {_plain(text)}" for text in (terms_of(selection) or [NO_TERMS])),
        "",
        "## Files",
        "",
        *(f"- `{name}`: {meaning}" for name, meaning in files),
        f"- `{MANIFEST}`: each file with the tile that it shows, and its SHA-256",
        "- `dataset.json`: the data set's own card, with its cases, splits, warnings and versions",
        f"- `{RECORD}`: what was exported, how, and by which version",
        "",
        "## Warnings of the data set",
        "",
        *([f"- {_plain(warning)}" for warning in card.warnings] or ["None."]),
        "",
        "Research use only. Not a diagnostic test.",
    ]
    return "\n".join(lines) + "\n"


def _split_line(rows: Sequence[Mapping[str, Any]], split: str) -> str:
    scores = Counter(str(row["her2_score"] or "unknown") for row in rows)
    by_score = ", ".join(f"{score}: {count}" for score, count in sorted(scores.items()))
    patients, cases = (_counted({row[name] for row in rows}) for name in ("patient_id", "case_id"))
    return f"| {split} | {len(rows)} | {patients} | {cases} | {by_score} |"


def _counted(ids: set[str | None]) -> str:
    """How many there are, and whether some tiles are of unknown ones."""
    known = len(ids - {None})
    if None not in ids:
        return str(known)
    return f"{known} and unknown ones" if known else "unknown"


def _sections(rows: Sequence[Mapping[str, Any]]) -> str:
    sections = Counter(str(row["section"]) for row in rows)
    warped = Counter(str(row["warped_stain"] or "not said") for row in rows)
    said = ", ".join(f"{count} {section}" for section, count in sorted(sections.items()))
    moved = ", ".join(f"{stain} in {count}" for stain, count in sorted(warped.items()))
    return f"Sections: {said}. Interpolated by registration: {moved}."


def _plain(text: str) -> str:
    """Text from elsewhere on one line, without what Markdown or HTML would read as more than text."""
    one_line = " ".join(text.split())
    for sign in "\\`*<>|[]":
        one_line = one_line.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return one_line
