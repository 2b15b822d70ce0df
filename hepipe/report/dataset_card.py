"""The card of a data set for people: a page and a Markdown file with the same words, and pictures of eight pairs."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hepipe.dataset.card import DatasetCard, read_card
from hepipe.dataset.fingerprint import PARTS, Fingerprint
from hepipe.dataset.strata import table as strata_table
from hepipe.errors import StoreError
from hepipe.quality.funnel import Funnel, read_funnel
from hepipe.report.figures import with_outline
from hepipe.report.filters import SHOWN_NAMES
from hepipe.report.html import Content, Html, figure, fold, image, join, table, tag
from hepipe.report.parts import style
from hepipe.stores.tables import INDEX, read_table, store_beside
from hepipe.stores.tiles import TileStore

N_PAIRS = 8
PAIR_PX = 256
"""Longest side of a tile in a picture."""
GAP_PX = 6
JPEG_QUALITY = 88
MAX_CASES = 2000
RESEARCH_ONLY = "Research use only. Not a diagnostic test."
NO_TERMS = (
    "No terms are known for these slides. That is no permission: whoever passes them on settles it with their owner."
)
PART_WORDS = {
    "slides": "content of both slides: level 0's tiles as they are stored",
    "transforms": "the stored registrations",
    "readers": "who decodes each slide, and into which colours",
    "sections": "the config section that each stage ran with",
    "stains": "stain vectors and white points",
    "tiles": "which tiles are in, and their pixels",
    "labels": "scores, markers and kinds of section",
    "curation": "decisions of people",
    "splits": "the section splits, and which tile is in which split",
    "versions": "of hepipe that each stage ran with",
}
COLUMNS = (
    "tile_id", "case_id", "patient_id", "store", "row_in_store", "split", "place", "her2_score", "marker", "section",
    "mpp", "source_set", "measurements",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str
    is_warning: bool = False


@dataclass(frozen=True)
class Rows:
    """A table; columns from `numeric_from` on are numbers, and a page has a bar of `bars`, 0 to 1, behind each row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | int]]
    numeric_from: int = 1
    bars: Sequence[float] = ()


@dataclass(frozen=True)
class Code:
    """Settings as they are, folded away on the page."""

    summary: str
    text: str


@dataclass(frozen=True)
class Picture:
    """One pair: H&E, IHC, and the IHC with the edge of its DAB mask."""

    name: str
    caption: str
    pixels: UInt8[np.ndarray, "h w 3"]


Block = Text | Rows | Code | Picture
Section = tuple[str, Sequence[Block]]


def write_dataset_card(folder: Path, out: Path) -> list[str]:
    """Write `card.html`, `README.md` and `pictures/` of a data set and return their names.

    The page holds everything; the Markdown file names the pictures beside it.

    Args:
        folder: With `dataset.json`, `index.parquet`, and `funnel.json` where it was counted.
        out: Folder of what is written.

    Raises:
        StoreError: No card or no index.
    """
    card = read_card(folder / "dataset.json")
    sections = list(_sections(folder, card))
    pictures = [block for _, blocks in sections for block in blocks if isinstance(block, Picture)]
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        Image.fromarray(picture.pixels).save(out / "pictures" / picture.name, "JPEG", quality=JPEG_QUALITY)
    _write(out / "card.html", as_html(card, sections))
    _write(out / "README.md", as_markdown(card, sections))
    return ["card.html", "README.md", *(f"pictures/{picture.name}" for picture in pictures)]


def _sections(folder: Path, card: DatasetCard) -> Iterator[Section]:
    rows = read_table(folder / "index.parquet", INDEX, columns=COLUMNS)
    yield "What it is", _facts(card, rows)
    if card.warnings:
        yield "Warnings", [Text(warning, is_warning=True) for warning in card.warnings]
    yield "Splits", list(_splits(card))
    yield "Pairs", list(_pictures(folder, card, rows))
    try:
        funnel = read_funnel(folder / "funnel.json")
    except StoreError:
        funnel = None
    yield "From cells to tiles", list(_drops(card, funnel))
    yield "Cases", [_cases(card)]
    yield "Terms", list(_terms(card))
    yield "Fingerprint", list(_fingerprint(card))


def _facts(card: DatasetCard, rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    def of(column: str) -> str:
        return ", ".join(sorted({str(row[column]) for row in rows if row[column] not in (None, "")})) or "unknown"

    facts = [
        ("tiles kept", f"{card.n_kept:,} of {card.n_tiles:,}"),
        ("tiles beside the tumour, for tests alone", f"{card.n_outside:,}" if card.n_outside else ""),
        ("cases", str(len(card.cases))),
        ("patients", str(len({row["patient_id"] for row in rows} - {None}) or "unknown")),
        ("µm per px", of("mpp")),
        ("markers", of("marker")),
        ("sections", of("section")),
        ("imported from", of("source_set") if any(row["source_set"] for row in rows) else ""),
        *((name, str(said)) for name, said in (card.imported or {}).items() if isinstance(said, str | int)),
        ("fingerprint", card.fingerprint),
        ("hepipe", card.provenance.version),
        ("state", card.provenance.status.state),
    ]
    return [Text(RESEARCH_ONLY), Rows(("", ""), [fact for fact in facts if fact[1]], numeric_from=2)]


def _splits(card: DatasetCard) -> Iterator[Block]:
    lines: list[list[str | int]] = []
    for split, part in card.splits.items():
        scores = ", ".join(f"{score}: {count}" for score, count in part.by_score.items())
        none: str | int = "unknown" if part.tiles else 0
        lines.append([split, scores, part.tiles, part.patients or none, part.cases or none, part.outside])
    unit = "patients by score" if any(part.patients for part in card.splits.values()) else "tiles by score"
    yield _filled(("split", unit, "tiles", "patients", "cases", "beside the tumour"), lines, numeric_from=2)
    for strata, by in ((card.strata, "split"), (card.batches, "staining batch")):
        if strata:
            head, rows = strata_table(strata)
            yield Text(f"HER2 score by {by}, as tiles | slides | patients:")
            yield Rows(head, rows)
    if card.proof is not None:
        yield from (Text(line) for line in card.proof.lines())
    if card.leaks is not None and card.leaks.n_leaks:
        yield from (Text(line, is_warning=True) for line in card.leaks.lines())


def _cases(card: DatasetCard) -> Rows:
    head = (
        "case", "HER2", "split", "state", "stage and reason", "tiles", "kept", "beside the tumour", "held back",
    )  # fmt: skip
    rows: list[list[str | int]] = [
        [
            case.case_id,
            case.her2_score or "unknown",
            case.split or "none",
            case.status.state,
            f"{case.status.stage}: {case.status.reason}" if case.status.reason else "",
            case.n_tiles,
            case.n_kept,
            case.n_outside,
            case.n_held,
        ]
        for case in card.cases[:MAX_CASES]
    ]
    return _filled(head, rows, numeric_from=5)


def _filled(head: Sequence[str], rows: Sequence[Sequence[str | int]], *, numeric_from: int) -> Rows:
    """A table without the columns that are empty or 0 in every row."""
    used = [place for place in range(len(head)) if place == 0 or any(row[place] not in ("", 0) for row in rows)]
    first = sum(place < numeric_from for place in used)
    return Rows([head[place] for place in used], [[row[place] for place in used] for row in rows], first)


def _drops(card: DatasetCard, funnel: Funnel | None) -> Iterator[Block]:
    """The funnel, and what people dropped."""
    if funnel is None:
        yield Text("The steps were not counted: funnel.json does not lie beside the card.")
    else:
        for section, steps in funnel.whole.items():
            yield Text(f"{section or 'Kind of section unknown'}:".capitalize())
            head = ("step", "dropped", "left", "of all")
            shown = [step for step in steps if step.dropped or step.name in ("cells", "kept")]
            shares = [step.left / max(1, steps[0].left) for step in shown]
            rows = [
                [SHOWN_NAMES.get(step.name, step.name), step.dropped or "", step.left, f"{share:.1%}"]
                for step, share in zip(shown, shares, strict=True)
            ]
            yield Rows(head, rows, bars=shares)
        for share in funnel.flagged:
            yield Text(share.told, is_warning=True)
    if card.curation is not None:
        made = card.curation
        reasons = ", ".join(f"{name} {count}" for name, count in made.by_reason.items())
        yield Text(
            f"People decided about {made.n_decisions} pairs ({made.n_files} files, rule {made.rule}): "
            f"{made.n_dropped} tiles dropped{f' ({reasons})' if reasons else ''}, {made.n_brought_back} brought back, "
            f"{made.n_changed + made.n_gone} decisions match no tile."
        )


def _terms(card: DatasetCard) -> Iterator[Block]:
    terms: Sequence[Any] = getattr(card, "terms", ())
    if not terms:
        yield Text(NO_TERMS)
    for one in terms:
        yield Text(f"{one.source_set}: {one.line}")
        for name, text in one.texts.items():
            yield Code(f"{one.source_set}, {name}", text)


def _fingerprint(card: DatasetCard) -> Iterator[Block]:
    made = card.made_of
    if made is None:
        yield Text(f"{card.fingerprint}; what it is of is not told: assemble the data set again.")
        return
    yield Text(f"{card.fingerprint} is the SHA-256 of these parts; hepipe dataset verify computes them again.")
    yield Rows(("part", "of", "SHA-256"), [(part, PART_WORDS[part], made.parts[part][:16]) for part in PARTS], 3)
    yield from _settings(made)


def _settings(made: Fingerprint) -> Iterator[Block]:
    used: dict[str, dict[str, list[str]]] = {}
    for case_id, parts in made.cases.items():
        for stage, key in parts.sections.items():
            used.setdefault(stage, {}).setdefault(key, []).append(case_id)
    used["splits"] = {made.splits: list(made.cases)}
    for stage, by_key in sorted(used.items()):
        for key, cases in sorted(by_key.items()):
            whom = "" if len(by_key) == 1 else f", {len(cases)} cases: {', '.join(cases[:5])}"
            yield Code(f"{stage}{whom}", json.dumps(made.sections.get(key, {}), indent=1, ensure_ascii=False))


def example_rows(rows: Sequence[Mapping[str, Any]], count: int = N_PAIRS) -> list[Mapping[str, Any]]:
    """Tiles that stand for a data set: scores in turn, cases of a score in turn, and of a case by a hash of the id."""
    of: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        if row["place"] == "inside" and row["row_in_store"] is not None:
            cases = of.setdefault(str(row["her2_score"]), {})
            cases.setdefault(str(row["case_id"]), []).append(row)

    def drawn(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    queues = []
    for _, by_case in sorted(of.items()):
        columns = [
            sorted(by_case[key], key=lambda row: drawn(str(row["tile_id"]))) for key in sorted(by_case, key=drawn)
        ]
        longest = max(map(len, columns))
        queues.append([column[turn] for turn in range(min(longest, count)) for column in columns if turn < len(column)])
    chosen: list[Mapping[str, Any]] = []
    for turn in range(count):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
    return chosen[:count]


def _pictures(folder: Path, card: DatasetCard, rows: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    yield Text(
        "H&E, IHC, and the IHC with the edge of its DAB mask. Scores in turn, cases in turn, "
        "and of each case by a hash of the ids."
    )
    index = folder / "index.parquet"
    shown = 0
    for number, row in enumerate(example_rows(rows), start=1):
        try:
            store = TileStore(store_beside(index, row["store"]))
            he, ihc = (store.read(stain, row["row_in_store"]) for stain in ("he", "ihc"))
            parts = [he, ihc]
            if "dab_mask" in store.names():
                parts.append(with_outline(ihc, store.read_mask("dab_mask", row["row_in_store"])))
        except StoreError:
            continue
        shown += 1
        share = row["measurements"].get("dab_frac")
        dab = "" if share is None else f", DAB {share:.0%}"
        score = "no score" if row["her2_score"] is None else f"HER2 {row['her2_score']}"
        yield Picture(f"pair-{number}.jpg", f"{row['tile_id']}: {score}, {row['split']}{dab}", _beside(parts))
    if not shown:
        yield Text("The stores do not lie here, so there are no pictures.")


def _beside(tiles: Sequence[np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    """Tiles in a row on white, at most `PAIR_PX` high."""
    side = min(PAIR_PX, tiles[0].shape[0])
    small = [cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA) for tile in tiles]
    whole = np.full((side, side * len(small) + GAP_PX * (len(small) - 1), 3), 255, np.uint8)
    for place, tile in enumerate(small):
        left = place * (side + GAP_PX)
        whole[:, left : left + side] = tile
    return whole


def as_html(card: DatasetCard, sections: Sequence[Section]) -> str:
    """The page: one file with everything in it."""
    body = join(tag("section", tag("h2", title), _html_blocks(blocks)) for title, blocks in sections)
    main = tag("main", tag("header", tag("h1", card.name)), body, class_="alone")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{tag('title', card.name)}<style>{style('report.css', 'dataset_card.css')}</style></head>"
        f"<body>{main}</body></html>\n"
    )


def _html_blocks(blocks: Sequence[Block]) -> Html:
    pictures = [block for block in blocks if isinstance(block, Picture)]
    parts: list[Content] = []
    for block in blocks:
        if isinstance(block, Text):
            parts.append(tag("p", block.words, class_="note warn" if block.is_warning else "quiet"))
        elif isinstance(block, Rows):
            parts.append(_html_table(block))
        elif isinstance(block, Code):
            parts.append(fold(block.summary, tag("pre", block.text)))
    shown = [
        figure(image(one.pixels, alt=one.caption, longest_px=3 * PAIR_PX + 2 * GAP_PX), one.caption) for one in pictures
    ]
    return join([*parts, tag("div", *shown, class_="pairs") if shown else None])


def _html_table(block: Rows) -> Html:
    if not block.bars:
        return table(block.head, block.rows, numeric_from=block.numeric_from)
    drawn = [tag("span", class_="bar", style=f"width: {12 * share:.2f}rem") for share in block.bars]
    rows: list[list[Content]] = [[*row, bar] for row, bar in zip(block.rows, drawn, strict=True)]
    return table([*block.head, ""], rows, numeric_from=block.numeric_from)


def as_markdown(card: DatasetCard, sections: Sequence[Section]) -> str:
    """The same as Markdown; whatever comes from data is escaped, as Markdown may hold HTML."""
    lines = [f"# {_escaped(card.name)}", ""]
    for title, blocks in sections:
        lines += [f"## {title}", ""]
        for block in blocks:
            if isinstance(block, Text):
                mark = "**Warning:** " if block.is_warning else ""
                lines += [f"{mark}{_escaped(block.words)}", ""]
            elif isinstance(block, Rows):
                lines += [*_markdown_table(block), ""]
            elif isinstance(block, Code):
                fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
                lines += [_escaped(block.summary), "", fence, block.text, fence, ""]
            else:
                caption = _escaped(block.caption)
                lines += [f"![{caption}](pictures/{block.name})", "", caption, ""]
    return "\n".join(lines)


def _markdown_table(block: Rows) -> Iterator[str]:
    yield "| " + " | ".join(_escaped(name) for name in block.head) + " |"
    yield "|" + "|".join(" ---: " if place >= block.numeric_from else " --- " for place in range(len(block.head))) + "|"
    for row in block.rows:
        yield "| " + " | ".join(_escaped(str(cell)) for cell in row) + " |"


def _escaped(text: str) -> str:
    """A text in Markdown, which shows as it is: no markup, no HTML, no line of its own."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", plain)


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
