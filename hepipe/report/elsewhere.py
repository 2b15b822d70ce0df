"""What papers print of the models among the runs, greyed beside the runs' own numbers: never ranked, in no chart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hepipe.metrics.catalog import METRICS
from hepipe.models.published import PRINTED, Number, Printed, numbers_of, systems
from hepipe.report.gather import Gathered
from hepipe.report.html import Content, Html, fold, join, missing, table, tag
from hepipe.report.leaderboard import number
from hepipe.report.sections import Boards

OPEN_ROWS = 8
SAID = (
    "Reported elsewhere, on other data, with other presets, checkpoints and code. Grey numbers stand here to be looked "
    "up: they are not ranked, neither with the runs of this report nor from paper to paper, and are in no chart."
)


def published(found: Gathered, boards: Boards) -> Html:
    """A table for each model among the runs of which a paper prints numbers."""
    runs_by_model: dict[str, list[str]] = {}
    for run in found.runs:
        if run.record is not None:
            runs_by_model.setdefault(run.record.model, []).append(run.name)
    parts = [_model(model, runs, found, boards) for model, runs in runs_by_model.items() if numbers_of(model)]
    if not parts:
        return missing("The four papers print no numbers of the models in this report.")
    return join([tag("p", SAID, class_="note"), *parts])


def _model(model: str, runs: Sequence[str], found: Gathered, boards: Boards) -> Html:
    printed = numbers_of(model)
    metrics = [metric for name, metric in PRINTED.items() if any(one.metric == name for one in printed)]
    rows: list[list[Content]] = []
    for test in found.tests:
        shown = boards[test.dataset, test.split].every if test.scores else None
        for run in test.scores:
            if shown is None or not set(test.runs_of(run)) & set(runs):
                continue
            values = {name: shown.cells[run, name].value for metric in metrics for name in metric.near}
            about = tag(
                "div", tag("b", run), tag("small", f"{test.dataset}, {test.split} split, this report"), class_="run"
            )
            rows.append([about, *(_own(metric, values) for metric in metrics)])
    places: dict[tuple[str, ...], list[Number]] = {}
    for one in printed:
        key = (one.paper, one.table, one.where, one.pairing, one.variant, one.quoted_from)
        places.setdefault(key, []).append(one)
    theirs = [[_place(key), *_printed(of_row, metrics)] for key, of_row in places.items()]
    head: list[Content] = ["", *(tag("span", f"{m.title} {m.arrow}", **_titled(m.remark)) for m in metrics)]
    n_papers = len({one.paper for one in printed})
    many = f"{len(theirs)} rows of {n_papers} papers" if n_papers > 1 else f"{len(theirs)} rows of one paper"
    marks = _marks(printed)
    below = tag("p", marks, class_="quiet") if marks else None
    whole = join([table(head, [*rows, *theirs]), below])
    title = tag("h3", systems()[model].title, " ", tag("small", systems()[model].source))
    return join([title, whole if len(theirs) <= OPEN_ROWS else fold(many, whole)])


def _own(metric: Printed, values: dict[str, float]) -> Html:
    """The run's own value of what means the same, or the nearest, which is then named."""
    for name in metric.near:
        if math.isfinite(values[name]):
            flavour = None if metric.is_ours else tag("small", METRICS[name].title)
            return join([tag("span", number(values[name])), " ", flavour])
    return tag("span", "–")


def _place(key: tuple[str, ...]) -> Html:
    paper, of_table, where, pairing, variant, quoted = key
    about = [where, pairing, variant and f"ablation {variant}", quoted and f"quoted from {quoted}"]
    words = ", ".join(part for part in about if part)
    return tag("div", tag("b", f"{paper}, table {of_table}"), tag("small", words), class_="run elsewhere")


def _printed(of_row: list[Number], metrics: list[Printed]) -> list[Content]:
    by_metric = {one.metric: one for one in of_row}
    cells: list[Content] = []
    for metric in metrics:
        one = by_metric.get(metric.name)
        if one is None:
            cells.append(None)
            continue
        spread = tag("small", f"± {one.spread}") if one.spread else None
        scale = {"1000": "× 1000", "unknown": "factor not said"}.get(one.scale)
        mark = {"restored": "°", "doubtful": "?"}.get(one.mark, "")
        value = tag("span", one.value + mark, **_titled(one.note))
        cells.append(tag("div", value, " ", spread, tag("small", scale) if scale else None, class_="elsewhere"))
    return cells


def _marks(printed: Sequence[Number]) -> str:
    marks = {one.mark for one in printed}
    said = []
    if "restored" in marks:
        said.append("° a decimal point, blank or row name that the text copy had lost was put back; no digit was.")
    if "doubtful" in marks:
        said.append("? could not be read with certainty.")
    return " ".join(said)


def _titled(text: str) -> dict[str, str | int | bool]:
    return {"title": text} if text else {}
