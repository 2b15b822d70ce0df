"""The part of the page on the funnel: what each filter drops, in all, by case and by HER2 score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hepipe.quality.funnel import CaseFunnel, Funnel, ScoreShare, Step
from hepipe.quality.verdict import SECTIONS
from hepipe.report.figures import stacked_bars
from hepipe.report.gather import DatasetView, Gathered
from hepipe.report.html import Content, Html, fold, join, missing, table, tag
from hepipe.sheet import SCORES
from hepipe.specs.quality import Limit

MAX_BARS = 80
"""Cases in the figure; the table and the CSV file have all."""
MAX_ROWS = 2000
"""Cases in the table; the CSV file has all."""
MAX_REASONS = 7
"""Reasons with a colour of their own."""
OTHER = "other reasons"
SHOWN_NAMES = {
    "cells": "cells of the grid",
    "glass": "too little tissue",
    "regions": "not in the regions to use",
    "failed": "case failed while tiles were cut",
    "unreadable": "pixels do not decode",
    "curation": "dropped by a person",
    "held": "pair waits for a person's word",
    "no_split": "in no split",
    "kept": "kept",
}
REPLAY = (
    "Limits are applied to the stored measurements: after a change of quality.limits, quality.alignment or a reader's "
    "decisions the verdicts are taken again and nothing is cut or read anew. `hepipe grade --index "
    "results/{}/tiles/CASE.parquet --verdict other.parquet --spec '{{\"limits\": …}}'` tells of one case what "
    "other limits would keep, beside the pipeline."
)


def filters(found: Gathered) -> Html:
    """The funnel of each data set."""
    parts: list[Content] = []
    for dataset in found.datasets:
        parts.append(tag("h3", dataset.name))
        if dataset.funnel is None:
            parts.append(missing("Not counted yet: this data set was not assembled."))
        else:
            parts += _of_dataset(dataset, dataset.funnel)
    return join(parts) if parts else missing("No data set in this report.")


def _of_dataset(dataset: DatasetView, funnel: Funnel) -> list[Content]:
    parts: list[Content] = [tag("p", share.told, class_="note warn") for share in funnel.flagged]
    alarms = [case for case in funnel.cases if case.alarms]
    if alarms:
        named = "; ".join(f"{case.case_id}: {', '.join(case.alarms)}" for case in alarms[:20])
        more = f" and {len(alarms) - 20} more" if len(alarms) > 20 else ""
        parts.append(tag("p", f"Filters that empty a slide: {named}{more}.", class_="note warn"))
    for section in [*SECTIONS, ""]:
        if section in funnel.whole:
            parts += _of_section(section, funnel)
    parts.append(fold("By case", _case_table(funnel.cases), is_open=len(funnel.cases) <= 30))
    parts.append(tag("p", REPLAY.format(dataset.name), class_="quiet"))
    return parts


def _of_section(section: str, funnel: Funnel) -> list[Content]:
    """Restained and consecutive pairs stand apart, as their limits do."""
    cases = [case for case in funnel.cases if case.section == section]
    limits = funnel.limits.get(section, {})
    title = f"{section or 'kind of section unknown'}, {len(cases)} {'case' if len(cases) == 1 else 'cases'}"
    rows: list[list[Content]] = [
        [
            _shown(step.name),
            _limit(limits.get(step.name)),
            "" if step.name in ("cells", "kept") else step.dropped,
            "" if step.fail is None else step.fail,
            "" if step.only is None else step.only,
            step.left,
        ]
        for step in funnel.whole[section]
        if step.name in ("cells", "kept") or step.dropped or step.fail
    ]
    head = ["step", "limit", "dropped here", "fail it", "fail it alone", "left"]
    parts: list[Content] = [tag("h4", title), table(head, rows)]
    parts.append(
        tag(
            "p",
            "A tile is dropped at the first filter that it fails; without a filter those stay that fail it alone.",
            class_="quiet",
        )
    )
    parts.append(_bars(cases))
    shares = [share for share in funnel.scores if share.section == section]
    if shares:
        parts += [tag("h4", "By HER2 score"), _score_table(shares)]
    return parts


def _bars(cases: Sequence[CaseFunnel]) -> Html:
    """What becomes of the tiles of each case; those of which most is dropped first."""
    counts = {case.case_id: _fates(case) for case in cases}
    most: Counter[str] = Counter()
    for fates in counts.values():
        most.update({name: count for name, count in fates.items() if name != "kept"})
    named = [name for name, _ in most.most_common(MAX_REASONS)]
    bars = {}
    for case_id, fates in counts.items():
        rest = sum(count for name, count in fates.items() if name != "kept" and name not in named)
        bars[case_id] = {**{name: fates.get(name, 0) for name in named}, OTHER: rest, "kept": fates["kept"]}
    lost = {case_id: 1 - fates["kept"] / max(1, sum(fates.values())) for case_id, fates in bars.items()}
    order = sorted(bars, key=lambda case_id: (-lost[case_id], case_id))[:MAX_BARS]
    shown = {case_id: {_shown(name): count for name, count in bars[case_id].items()} for case_id in order}
    rest_of = len(bars) - len(order)
    note = f" The {MAX_BARS} cases that lose most; {rest_of} more are in the table." if rest_of > 0 else ""
    caption = f"What becomes of the tiles of each case, by the first reason to drop them.{note}"
    return join([stacked_bars(shown, kept=_shown("kept")), tag("p", caption, class_="quiet")])


def _fates(case: CaseFunnel) -> dict[str, int]:
    """Reason to tiles of the tile table, and `kept`."""
    fates = {step.name: step.dropped for step in case.steps if step.kind != "grid" and step.dropped}
    return {**fates, "kept": case.steps[-1].left}


def _case_table(cases: Sequence[CaseFunnel]) -> Html:
    found = Counter[str]()
    for case in cases:
        found.update({step.name: step.dropped for step in case.steps if step.dropped})
    names = [step.name for case in cases[:1] for step in case.steps if found[step.name]]
    names += [name for name in found if name not in names]
    rows: list[list[Content]] = []
    for case in cases[:MAX_ROWS]:
        dropped = {step.name: step.dropped for step in case.steps}
        cells, kept = case.steps[0].left, case.steps[-1].left
        share = f"{kept / tiles:.0%}" if (tiles := _n_tiles(case.steps)) else "–"
        start: list[Content] = [case.case_id, case.section or "–", case.her2_score or "–", ", ".join(case.alarms)]
        rows.append([*start, cells, *(dropped.get(name, 0) for name in names), kept, share])
    head = ["case", "section", "HER2", "alarm", "cells", *map(_shown, names), "kept", "of its tiles"]
    return table(head, rows, numeric_from=4, sortable=True)


def _n_tiles(steps: Sequence[Step]) -> int:
    return [step.left for step in steps if step.kind == "grid"][-1]


def _score_table(shares: Sequence[ScoreShare]) -> Html:
    """Of each score the share of tiles that fail a filter; filters that drop nothing are left out."""
    by_name: dict[str, dict[str, ScoreShare]] = {}
    for share in shares:
        by_name.setdefault(share.name, {})[share.score] = share
    scores = [score for score in SCORES if any(score in own for own in by_name.values())]
    first = next(iter(by_name.values()))
    rows: list[list[Content]] = [
        [name, *(_share_cell(own.get(score)) for score in scores)]
        for name, own in by_name.items()
        if any(share.dropped for share in own.values())
    ]
    if not rows:
        return missing("No filter drops a tile.")
    sizes = [f"{score}: {first[score].tiles} tiles" for score in scores if score in first]
    caption = f"Share of the tiles of a score that fail a filter, whatever else they fail ({', '.join(sizes)})."
    return table(["filter", *scores], rows, caption=caption)


def _share_cell(share: ScoreShare | None) -> Content:
    if share is None:
        return "–"
    text = f"{share.dropped / share.tiles:.1%}"
    marks = {"": "", "score": "more than the others", "slides": "carried by few slides"}
    mark = marks[share.verdict]
    return join([tag("b", text), tag("small", mark)]) if mark else text


def _limit(limit: Limit | None) -> str:
    if limit is None:
        return ""
    low = "" if limit.min is None else f"≥ {limit.min:g}"
    high = "" if limit.max is None else f"≤ {limit.max:g}"
    return " and ".join(part for part in (low, high) if part)


def _shown(name: str) -> str:
    return SHOWN_NAMES.get(name, name)
