"""The page of the pairs that need a person: what the verdict is, what it looks like, and what to do about it."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hepipe.errors import StoreError
from hepipe.registration.formats import PAIR_COLUMNS
from hepipe.report.html import JPEG_QUALITY, Content, Html, facts, join, missing, table, tag
from hepipe.report.parts import part, style
from hepipe.status import CaseStatus
from hepipe.stores.cases import CheckedCase, read_checked

MAX_SHOWN = 60
"""Pairs with all their pictures, about 1.5 MB each."""
MAX_FINE = 200
THUMB_PX = 320
VIEWS = {
    "flicker": "H&E and IHC in turn",
    "after": "checkerboard",
    "edges": "H&E outlines on the IHC",
    "deformation": "deformation",
    "residuals": "residual shifts",
    "before": "before registration",
    "tissue": "common tissue, regions and tiles",
    "pieces_he": "pieces, H&E",
    "pieces_ihc": "pieces, IHC",
    "he": "H&E",
    "ihc": "IHC as scanned",
}
EXPLAIN = {
    "flicker": "Structures that jump between the two frames lie wrong. The slider mixes both.",
    "after": "Squares of H&E and IHC in turn: tissue that runs on over the edges lies right.",
    "edges": "Outlines of the H&E's tissue and holes (blue) and dense parts (pink): the IHC's own should follow them.",
    "deformation": "A grid as the registration bends it, over the local change of area. Even bending is believable; "
    "knots and strong colours inside tissue are not.",
    "residuals": "What windows still see after registration. Arrows that agree over an area show a shift that is left; "
    "a grey veil lies where nothing supports the registration.",
    "before": "The slides as they were scanned, corner on corner.",
    "tissue": "Tissue of both slides, regions and tiles; the legend below says what is what.",
    "pieces_he": "Pieces of tissue by number, with what was made of them.",
    "pieces_ihc": "Pieces of tissue by number, with what was made of them.",
    "he": "As scanned.",
    "ihc": "As scanned.",
}


LIKENESS = (
    ("similarity", "similarity", "{:.2f}"),
    ("tissue_dice", "tissue overlap (Dice)", "{:.2f}"),
    ("nmi", "mutual information (NMI)", "{:.3f}"),
    ("ncc_od_lp", "density correlation", "{:.2f}"),
)


@dataclass(frozen=True)
class Pair:
    """A case as its pictures' record tells of it."""

    case_id: str
    status: CaseStatus
    registration: Mapping[str, Any]
    pictures: Mapping[str, Path]
    checked: CheckedCase | None


def write_review(folder: Path, cases: Sequence[str], *, page: Path) -> str:
    """Write the page of one data set; returns a line on what was written.

    Args:
        folder: The data set's folder in the results: `pictures/` and `checked/` are read.
        cases: Ids of its pairs.
        page: HTML file; `landmarks/{case}.html` beside it is linked.

    Raises:
        StoreError: The pictures of a case are missing.
    """
    pairs = [_read(folder, case_id) for case_id in cases]
    text = render(page.parent.name if page.parent.name else "pairs", pairs)
    page.parent.mkdir(parents=True, exist_ok=True)
    beside = page.with_name(f".{page.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, page)
    open_ones = sum(pair.status.state != "ok" for pair in pairs)
    return f"review: {len(pairs)} pairs, {open_ones} of them to look at, {len(text) / 1e6:.1f} MB"


def _read(folder: Path, case_id: str) -> Pair:
    at = folder / "pictures" / case_id
    try:
        record = json.loads((at / "facts.json").read_text(encoding="utf-8"))
        status = CaseStatus.model_validate(record["status"])
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{at}: no readable facts.json ({type(error).__name__}); run picture_case again") from error
    pictures = {name: at / f"{name}.jpg" for name in record["pictures"] if (at / f"{name}.jpg").is_file()}
    try:
        checked = read_checked(folder / "checked" / f"{case_id}.json")
    except StoreError:
        checked = None
    return Pair(case_id, status, record["registration"], pictures, checked)


def render(dataset: str, pairs: Sequence[Pair]) -> str:
    """The page as text."""
    rank = {"review": 0, "failed": 1}
    doubtful = sorted((pair for pair in pairs if pair.status.state != "ok"), key=lambda one: rank[one.status.state])
    fine = [pair for pair in pairs if pair.status.state == "ok"]
    counts = ", ".join(
        f"{sum(pair.status.state == state for pair in pairs)} {word}"
        for state, word in (("review", "in review"), ("failed", "failed"), ("ok", "ok"))
    )
    head = tag("header", tag("h1", f"Review of {dataset}"), tag("p", f"{len(pairs)} pairs: {counts}."))
    parts: list[Content] = [tag("section", *_open_ones(doubtful), id="open"), tag("section", *_fine(fine), id="fine")]
    links = [
        tag("a", pair.case_id, href=f"#case-{pair.case_id}", class_=pair.status.state) for pair in doubtful[:MAX_SHOWN]
    ]
    nav = tag(
        "nav", tag("b", "hepipe"), tag("a", "Pairs to look at", href="#open"), *links, tag("a", "ok", href="#fine")
    )
    zoom = tag("dialog", tag("img", alt=""), id="zoom")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{tag('title', f'Review of {dataset}')}<style>{style('report.css', 'review.css')}</style></head>"
        f"<body>{nav}{tag('main', head, *parts)}{zoom}<script>{part('review.js')}</script></body></html>\n"
    )


def _open_ones(doubtful: Sequence[Pair]) -> list[Content]:
    parts: list[Content] = [tag("h2", "Pairs to look at")]
    if not doubtful:
        return [*parts, missing("None: every pair passed its limits.")]
    rows = [
        [
            tag("a", pair.case_id, href=f"#case-{pair.case_id}") if place < MAX_SHOWN else pair.case_id,
            _chip(pair.status),
            pair.status.stage or "",
            pair.status.reason,
        ]
        for place, pair in enumerate(doubtful)
    ]
    parts.append(table(["case", "state", "stage", "reason"], rows, numeric_from=9))
    if len(doubtful) > MAX_SHOWN:
        parts.append(tag("p", f"The first {MAX_SHOWN} are shown below; settle these and run again.", class_="note"))
    return [*parts, *(_shown(pair) for pair in doubtful[:MAX_SHOWN])]


def _shown(pair: Pair) -> Html:
    about = [pair.checked.section, pair.checked.marker] if pair.checked else []
    title = tag("h3", pair.case_id, " ", _chip(pair.status), tag("small", ", ".join(about)))
    return tag(
        "article",
        title,
        tag("p", pair.status.reason, class_="reason"),
        *(tag("p", note, class_="note") for note in _notes(pair)),
        tag(
            "div",
            _viewer(pair),
            tag("div", _to_do(pair), facts(numbers(pair.registration)), class_="side"),
            class_="pair",
        ),
        _details(pair),
        id=f"case-{pair.case_id}",
        class_="card",
    )


def _to_do(pair: Pair) -> Html:
    page = f"landmarks/{pair.case_id}.html"
    empty = "data:text/csv;base64," + base64.b64encode((",".join(PAIR_COLUMNS) + "\n").encode()).decode("ascii")
    landmarks = join(
        [
            tag("a", "set landmarks", href=page, class_="button"),
            ", save them, name the file in the column ",
            tag("code", "landmarks"),
            " and write ",
            tag("code", "landmarks"),
            " into the column ",
            tag("code", "start"),
            " (",
            tag("a", "empty table", href=empty, download=f"{pair.case_id}-landmarks.csv"),
            "; other programs: ",
            tag("code", "hepipe landmarks"),
            ")",
        ]
    )
    word = tag("code", "accepted")
    if pair.status.stage not in ("registration", "tissue"):
        steps: list[Content] = [join(["Put right what the reason says, or leave the pair out of the sheet."])]
    elif pair.status.state == "review":
        steps = [
            join(["It lies right: write ", tag("code", "yes"), " into the column ", word, "."]),
            join(["It lies wrong and cannot be saved: write ", tag("code", "no"), "."]),
            join(["It could lie better: ", landmarks, "."]),
        ]
    else:
        steps = [
            join(["The two slides are no pair: correct the row of the sheet."]),
            join(["They are a pair: ", landmarks, "."]),
        ]
    again = tag("p", "Then run the workflow again: this pair alone is made anew.", class_="quiet")
    return tag("div", tag("h4", "What to do"), tag("ul", *(tag("li", step) for step in steps)), again, class_="todo")


def _viewer(pair: Pair) -> Html:
    has = dict(pair.pictures)
    views = [name for name in VIEWS if name in has or (name == "flicker" and {"he", "warped"} <= has.keys())]
    if not views:
        return missing("There are no pictures of this pair.")
    buttons = [
        tag("button", VIEWS[name], type="button", data_view=name, title=EXPLAIN[name], class_="on" if not place else "")
        for place, name in enumerate(views)
    ]
    # The flicker's frames stand once; the other views are their own picture.
    names = [*(["he", "warped"] if views[0] == "flicker" else []), *(v for v in views if v not in ("flicker", "he"))]
    names += ["he"] if "he" in views and "he" not in names else []
    layers = [_picture(has[name], alt=f"{name} of {pair.case_id}", data_name=name) for name in names]
    tools = tag(
        "div",
        tag("button", "flicker", type="button", class_="play", title="Space"),
        tag("label", "H&E ", tag("input", type="range", min="0", max="100", value="50", class_="mix"), " IHC"),
        class_="mixing",
    )
    how = "Click, then the wheel zooms; drag moves; double-click zooms in and out; Space flickers"
    stage = tag("div", tag("div", *layers, class_="layers"), class_="stage", tabindex="0", title=how)
    return tag(
        "div",
        tag("div", *buttons, class_="views"),
        tools,
        stage,
        tag("p", EXPLAIN[views[0]], class_="quiet explain"),
        class_="viewer",
        data_view=views[0],
    )


def _details(pair: Pair) -> Html:
    """Places seen near, both slides on top of each other; they flicker under the pointer."""
    found = []
    for number in range(1, 10):
        frames = [pair.pictures.get(f"detail{number}_{name}") for name in ("he", "warped")]
        if None in frames:
            break
        layers = [
            _picture(frame, alt=f"place {number} of {pair.case_id}, {name}")
            for frame, name in zip(frames, ("H&E", "IHC"), strict=True)
            if frame is not None
        ]
        found.append(tag("div", *layers, class_="near", tabindex="0"))
    if not found:
        return Html("")
    note = tag(
        "p", "Places seen near, 1 µm per px where the slides are finer: point at one, and it flickers.", class_="quiet"
    )
    return tag("div", note, tag("div", *found, class_="details"))


def _fine(fine: Sequence[Pair]) -> list[Content]:
    parts: list[Content] = [tag("h2", "Pairs that passed")]
    if not fine:
        return [*parts, missing("None.")]
    figures = []
    for pair in fine[:MAX_FINE]:
        name = next((name for name in ("after", "before", "he") if name in pair.pictures), None)
        shown = (
            missing("no picture") if name is None else _picture(pair.pictures[name], alt=pair.case_id, longest=THUMB_PX)
        )
        similarity = pair.registration.get("similarity")
        caption = join(
            [
                tag("a", pair.case_id, href=f"landmarks/{pair.case_id}.html", title="Set landmarks"),
                "" if similarity is None else f" similarity {similarity:.2f}",
            ]
        )
        figures.append(tag("figure", shown, tag("figcaption", caption)))
    left = len(fine) - len(figures)
    rest = tag("p", f"{left} further ones are not shown.", class_="quiet") if left else None
    return [*parts, tag("details", tag("summary", f"{len(fine)} pairs"), tag("div", *figures, class_="passed"), rest)]


def numbers(summary: Mapping[str, Any]) -> dict[str, Content]:
    """What was measured of a registration, in words; what is not there is left out."""
    unit = summary.get("unit", "µm")
    found: dict[str, Content] = {}
    for key, name, form in LIKENESS:
        if _is_number(summary.get(key)):
            before = summary.get(f"{key}_before")
            start = f"{form.format(before)} → " if _is_number(before) else ""
            found[name] = start + form.format(summary[key])
    landmarks = summary.get("landmarks") or {}
    before, after = (landmarks.get(name) or {} for name in ("tre_before_um", "tre_um"))
    if "median" in before and "median" in after:
        found["landmark error"] = (
            f"median {before['median']:.3g} → {after['median']:.3g} {unit}, 90th percentile {after['p90']:.3g} {unit} "
            f"({landmarks.get('n')} pairs)"
        )
    residuals = summary.get("residuals") or {}
    if _is_number(residuals.get("p50_um")):
        found["left in windows"] = (
            f"median {residuals['p50_um']:.2g} {unit}, 90th percentile {residuals['p90_um']:.2g} {unit}; "
            f"{residuals['kept_frac']:.0%} of {residuals['n']} windows agree"
        )
    if _is_number(summary.get("rotation_deg")):
        mirrored = ", mirrored" if summary.get("mirrored") else ""
        found["placement"] = f"turned by {summary['rotation_deg']:.1f}°{mirrored}, scale {summary.get('scale', 1):.3f}"
    if _is_number(summary.get("fold_frac")):
        span = [summary.get(key) for key in ("jac_min", "jac_max")]
        area = f", area × {span[0]:.2f} to {span[1]:.2f}" if all(_is_number(value) for value in span) else ""
        found["folded"] = f"{summary['fold_frac']:.2%} of the slide{area}"
    if steps := summary.get("chain"):
        found["steps"] = "; ".join(step["step"] + ("" if step["kept"] else f" ({step['note']})") for step in steps)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _notes(pair: Pair) -> list[str]:
    """Remarks of the registration and on the landmarks."""
    landmarks = pair.registration.get("landmarks") or {}
    return [*pair.registration.get("notes", []), *landmarks.get("notes", [])]


def _chip(status: CaseStatus) -> Html:
    return tag("span", status.state, class_=f"chip {status.state}")


def _picture(path: Path, *, alt: str, longest: int | None = None, **attributes: str) -> Html:
    """A JPEG as it lies there, or smaller."""
    with Image.open(path) as picture:
        size = picture.size
        if longest is not None and max(size) > longest:
            small = picture.convert("RGB")
            small.thumbnail((longest, longest))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=JPEG_QUALITY)
            content, size = buffer.getvalue(), small.size
        else:
            content = path.read_bytes()
    source = "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
    element = tag("img", alt=alt, width=size[0], height=size[1], decoding="async", **attributes)
    return Html(element.markup.removesuffix("</img>").replace("<img", f'<img src="{source}"', 1))
