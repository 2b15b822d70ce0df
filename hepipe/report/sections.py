"""The parts of the page, each from what was gathered; a part without content says why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hepipe.errors import StoreError
from hepipe.metrics.catalog import METRICS
from hepipe.report.figures import scatter
from hepipe.report.gallery import choosing_metric, contact_sheet, dab_masks, gallery, review_link
from hepipe.report.gather import (
    CaseView,
    DatasetView,
    Gathered,
    RunScores,
    TestSet,
    checked_of,
    pictures_of,
    registration_of,
)
from hepipe.report.html import Content, Html, facts, figure, fold, image, join, missing, table, tag
from hepipe.report.leaderboard import Board, Cell, number
from hepipe.report.splits_section import LEAK, splits_section
from hepipe.sheet import SCORES
from hepipe.specs.dataset import Split
from hepipe.weights.store import status as weights_status

CASE_PX = 440
CASE_LABELS = {
    "he": "H&E",
    "ihc": "IHC as scanned",
    "before": "before registration",
    "after": "after registration",
    "tissue": "tissue, regions and tiles",
}
MAX_TABLE_ROWS = 2000
MAX_SCATTERS = 6
PICTURES_OPEN = 4


@dataclass(frozen=True)
class TestBoards:
    """Tables of one test set: the primary metrics with the usual further ones, two kinds apart, and everything."""

    main: Board
    stand_in: Board
    published: Board
    every: Board


Boards = Mapping[tuple[str, Split], TestBoards]
STAND_IN_NOTE = (
    "Stand-in metrics: features of EfficientNet-Lite0 in place of the networks that papers use. Comparable only within "
    "this project; they are not FID, KID, LPIPS or PHV."
)


def overview(found: Gathered) -> Html:
    """What this is about: data sets with their counts."""
    if not found.datasets:
        return missing("No data set in this report.")
    return join(_dataset_card(dataset) for dataset in found.datasets)


def _dataset_card(dataset: DatasetView) -> Html:
    card = dataset.card
    by_state = {state: sum(c.status.state == state for c in dataset.cases) for state in ("ok", "review", "failed")}
    n_tiles = sum(case.n_tiles for case in dataset.cases) if card is None else card.n_tiles
    n_kept = sum(case.n_kept for case in dataset.cases) if card is None else card.n_kept
    states = join((chip(state, f"{count} {state}") for state, count in by_state.items() if count), " ")
    head = tag("h3", dataset.name, " ", tag("small", dataset.spec.kind))
    parts: list[Content] = [head]
    if dataset.spec.note:
        parts.append(tag("p", dataset.spec.note, class_="note"))
    unit = "sets" if dataset.is_imported and len(dataset.cases) == 1 and not dataset.cases[0].patient_id else "cases"
    steps = [(unit, len(dataset.cases)), ("usable", len(dataset.cases) - by_state["failed"])]
    steps += [("tiles cut" if not dataset.is_imported else "tiles read", n_tiles), ("tiles kept", n_kept)]
    parts += [_funnel(steps), tag("p", states)]
    if card is not None:
        rows = [
            [
                name,
                part.patients or "unknown",
                part.cases or "unknown",
                part.tiles,
                *(part.by_score.get(s, 0) for s in _scores(card.splits)),
            ]
            for name, part in card.splits.items()
        ]
        unit = "patients" if any(part.patients for part in card.splits.values()) else "tiles"
        head_row: list[Content] = [
            "split",
            "patients",
            "cases",
            "tiles",
            *(f"{unit} {score}" for score in _scores(card.splits)),
        ]
        parts.append(table(head_row, rows))
        parts.append(splits_section(card))
        for warning in card.warnings:
            if not warning.startswith(LEAK):
                parts.append(tag("p", warning, class_="note warn"))
        for terms in card.terms:
            parts.append(tag("p", f"Terms of {terms.source_set}: {terms.line}.", class_="note"))
        division = str((card.imported or {}).get("division", ""))
        parts.append(facts({"division": division, "fingerprint": tag("code", card.fingerprint[:16])}))
    else:
        parts.append(missing("This data set was not assembled."))
    return tag("article", *parts, class_="card")


def _scores(splits: Mapping[Any, Any]) -> list[str]:
    seen = {score for part in splits.values() for score in part.by_score}
    return [score for score in (*SCORES, "unknown") if score in seen]


def _funnel(steps: list[tuple[str, int]]) -> Html:
    return tag(
        "div", *(tag("div", tag("b", f"{count:,}"), tag("span", name)) for name, count in steps), class_="funnel"
    )


ON_VALIDATION = (
    "Variants of a method compared on validation tiles, so that the test split is looked at once, at the end. A row "
    "whose checkpoint these tiles chose says so: its values are too good, and none of them stands in the leaderboard."
)


def ablations(found: Gathered, boards: Boards) -> Html:
    """Tables on validation splits, each row marked whose checkpoint its tiles chose."""
    tests = [test for test in found.tests if test.is_ablation]
    return join([tag("p", ON_VALIDATION, class_="quiet"), _tables(found, tests, boards)])


def leaderboard(found: Gathered, boards: Boards) -> Html:
    """The protocol, then per test set: primary metrics, further ones, and the stand-ins apart."""
    tests = [test for test in found.tests if not test.is_ablation]
    if not tests:
        return missing("No run was asked for on a test split; there is nothing to compare.")
    protocol: dict[str, Content] = dict(found.spec.protocol)
    return join(
        [fold("The protocol of all runs", facts(protocol)) if protocol else None, _tables(found, tests, boards)]
    )


def _tables(found: Gathered, tests: list[TestSet], boards: Boards) -> Html:
    parts = []
    for test in tests:
        parts.append(tag("h3", f"{test.dataset} ", tag("small", f"{test.split} split")))
        if test.scores:
            of_test = boards[test.dataset, test.split]
            parts += [_scope(test), _board(found, test, of_test.main), tag("p", STAND_IN_NOTE, class_="note")]
            parts += [_board(found, test, of_test.stand_in), tag("h4", "Metrics with published weights")]
            parts += [_board(found, test, of_test.published), fold("Every metric", _every(of_test.every))]
        else:
            parts.append(missing("No run has scores on this set yet."))
        for run, reason in test.left_out.items():
            parts.append(tag("p", tag("b", run), f" is not in this table: {reason}.", class_="note"))
    return join(parts)


def _scope(test: TestSet) -> Html:
    scores = next(iter(test.scores.values()))
    patients = {patient for patient in scores.patients if patient is not None}
    known = f"{len(patients)} patients" if patients else "patients unknown: no intervals"
    parts = [f"{len(scores.tile_ids)} tiles", known]
    by_score = {score: sum(her2 == score for her2 in scores.her2) for score in SCORES}
    if any(by_score.values()):
        parts.append("tiles by HER2 score " + ", ".join(f"{score}: {count}" for score, count in by_score.items()))
    return tag("p", " · ".join(parts), class_="quiet")


def _board(found: Gathered, test: TestSet, board: Board) -> Html:
    records = {run.name: run.record for run in found.runs}
    rows: list[list[Content]] = []
    head: list[Content] = ["run"]
    head += [tag("span", f"{metric.title} {metric.arrow}", title=metric.meaning) for metric in board.metrics]
    for run in board.runs:
        record = records.get(test.runs_of(run)[0])
        about = "" if record is None else f"{record.model}, {record.preset}"
        if run in test.joined:
            about += f", {len(test.joined[run])} folds"
        if record is not None and record.dataset != test.dataset:
            about += f", trained on {record.dataset}"
        marks = [tag("small", mark, class_="note warn") for mark in board.marks.get(run, ())]
        name = tag("div", tag("b", run), tag("small", about), *marks, class_="run")
        rows.append(
            [name, *(_cell(board.cells[run, m.name], board.ranks.get((run, m.name), 0)) for m in board.metrics)]
        )
    notes = sorted({cell.note for cell in board.cells.values() if cell.note})
    left_out = [
        f"{run}: {cell.left_out} tiles without {METRICS[name].title}"
        for (run, name), cell in board.cells.items()
        if cell.left_out and cell.n
    ]
    caption = (
        "Mean over tiles ± SD; in brackets the 95 % interval over patients. ↑ higher, ↓ lower is better; "
        "best bold, second underlined."
    )
    if test.unranked:
        caption += " Runs outside the protocol, or whose training met these tiles, are not ranked."
    remarks = "; ".join([*notes, *left_out])
    said = join([caption, f"{remarks[:1].upper()}{remarks[1:]}." if remarks else None], " ")
    has_values = any(math.isfinite(cell.value) for cell in board.cells.values())
    return join([table(head, rows), tag("p", said, class_="quiet") if has_values else None])


def _cell(cell: Cell, rank: int) -> Html:
    if not math.isfinite(cell.value):
        if cell.reason:
            return tag("span", cell.reason, class_="none")
        return tag("span", number(cell.value))
    value = tag({1: "b", 2: "u"}.get(rank, "span"), number(cell.value), title=f"n = {cell.n}")
    spread = tag("small", f"± {number(cell.sd)}") if math.isfinite(cell.sd) else Html("")
    interval = Html("")
    if math.isfinite(cell.low):
        interval = tag("small", f"[{number(cell.low)}, {number(cell.high)}]", class_="ci")
    return join([value, " ", spread, interval])


def _every(board: Board) -> Html:
    runs = list(board.runs)
    rows: list[list[Content]] = []
    for metric in board.metrics:
        name = tag(
            "div", f"{metric.title} {metric.arrow}", tag("small", metric.name), class_="run", title=metric.meaning
        )
        rows.append(
            [
                name,
                metric.unit,
                *(_cell(board.cells[run, metric.name], board.ranks.get((run, metric.name), 0)) for run in runs),
            ]
        )
    return table(["metric", "unit", *runs], rows, numeric_from=2)


def per_case(found: Gathered) -> Html:
    """Amount of stain per case, and virtual against real DAB per tile."""
    parts: list[Content] = []
    for test in found.tests:
        if not test.scores:
            continue
        parts.append(tag("h3", f"{test.dataset} ", tag("small", f"{test.split} split")))
        charts = [_iod(run, scores) for run, scores in list(test.scores.items())[:MAX_SCATTERS]]
        shown = [chart for chart in charts if chart.markup]
        if shown:
            parts.append(tag("div", *shown, class_="charts"))
        parts.append(_case_table(test))
    return join(parts) if parts else missing("No scores yet.")


def _iod(run: str, scores: RunScores) -> Html:
    if "iod_real" not in scores.tiles:
        return Html("")
    groups: dict[str, list[tuple[float, float]]] = {}
    for place, her2 in enumerate(scores.her2):
        pair = (float(scores.tiles["iod_real"][place]) / 1e3, float(scores.tiles["iod_fake"][place]) / 1e3)
        groups.setdefault("score unknown" if her2 is None else f"HER2 {her2}", []).append(pair)
    chart = scatter(dict(sorted(groups.items())), x_label="real IHC, summed DAB index (10³ OD·px)", y_label="virtual")
    concordance = scores.of_set.get("iod_ccc", math.nan)
    caption = f"{run}: a dot per tile, on the line when virtual equals real; concordance {number(concordance)}."
    return figure(chart, caption) if chart.markup else Html("")


def _case_table(test: TestSet) -> Html:
    cases: dict[str, tuple[str | None, int]] = {}
    first = next(iter(test.scores.values()))
    for case, her2 in zip(first.cases, first.her2, strict=True):
        if case is not None:
            cases[case] = (her2, cases.get(case, (her2, 0))[1] + 1)
    if not cases:
        return missing("Cases unknown: no table per case.")
    tables = []
    columns = ("ssim", "css_he", "dab_dice", "pd_effnetlite0")
    for run, scores in test.scores.items():
        rows: list[list[Content]] = []
        for case, (her2, n) in sorted(cases.items())[:MAX_TABLE_ROWS]:
            places = [place for place, name in enumerate(scores.cases) if name == case]
            means = [
                _finite_mean([float(scores.tiles[name][at]) for at in places]) if name in scores.tiles else math.nan
                for name in columns
            ]
            of_case = scores.of_case.get(case, {})
            scores_px = [of_case.get(f"hscore_px_{side}", math.nan) for side in ("real", "fake")]
            rows.append([case, her2 or "–", n, *(number(value) for value in (*scores_px, *means))])
        head = ["case", "HER2", "tiles", "pixel H-score, real", "virtual", *(METRICS[name].title for name in columns)]
        tables.append(
            fold(f"{run}: {len(rows)} cases", table(head, rows), is_open=len(test.scores) == 1 and len(rows) < 30)
        )
    return join(tables)


def _finite_mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def galleries(found: Gathered) -> Html:
    """H&E, real and virtual tiles of every test set."""
    datasets = {dataset.name: dataset for dataset in found.datasets}
    folders = {run.name: run.folder for run in found.runs}
    parts: list[Content] = []
    for test in found.tests:
        metric = choosing_metric(test, found.spec.primary)
        if not test.scores or metric is None or test.dataset not in datasets:
            continue
        parts.append(tag("h3", f"{test.dataset} ", tag("small", f"{test.split} split")))
        rule = (
            f"Chosen by rule, not by hand: by {metric.title}, averaged over the runs, the tiles at the 10th, 50th and "
            "90th percentile of each HER2 score, the two worst of all, and two random ones."
        )
        parts.append(tag("p", rule, class_="quiet"))
        try:
            parts.append(gallery(datasets[test.dataset], test, metric, folders))
        except (StoreError, KeyError):
            parts.append(missing("The tiles of this set are gone; run predict_tiles again."))
    return join(parts) if parts else missing("No virtual tiles yet.")


def cases(found: Gathered) -> Html:
    """Status of every case, then pictures of some."""
    parts: list[Content] = []
    for dataset in found.datasets:
        parts.append(tag("h3", dataset.name, review_link(dataset)))
        rows: list[list[Content]] = [
            [
                case.case_id,
                case.patient_id or "–",
                case.her2_score or "–",
                case.split or "–",
                chip(case.status.state),
                case.status.stage or "",
                case.status.reason,
                f"{case.n_kept} of {case.n_tiles}"
                + (f", {case.n_outside} more beside the tumour" if case.n_outside else "")
                + (f", {case.n_held} held back" if case.n_held else ""),
                *([] if dataset.is_imported else _registration_numbers(registration_of(dataset, case.case_id))),
            ]
            for case in _by_urgency(dataset.cases)[:MAX_TABLE_ROWS]
        ]
        head = ["case", "patient", "HER2", "split", "state", "stage", "reason", "tiles kept"]
        head += [] if dataset.is_imported else ["similarity", "landmarks: before, µm", "after, µm"]
        whole = table(head, rows, numeric_from=7)
        parts.append(whole if len(rows) <= 40 else fold(f"{len(rows)} cases", whole))
        shown = [] if dataset.is_imported else _pictured(found, dataset)
        blocks = [_case_pictures(dataset, case, place < PICTURES_OPEN) for place, case in enumerate(shown)]
        blocks = [block for block in blocks if block.markup]
        if blocks:
            rule = (
                f"Pictures of {len(blocks)} of {len(dataset.cases)} cases: failed and doubtful ones first, then evenly."
            )
            parts += [tag("p", rule, class_="quiet"), *blocks]
        elif not dataset.is_imported:
            parts.append(missing("No pictures of these cases yet."))
    return join(parts) if parts else missing("No cases.")


def _by_urgency(cases: tuple[CaseView, ...]) -> list[CaseView]:
    rank = {"failed": 0, "review": 1, "ok": 2}
    return sorted(cases, key=lambda case: (rank[case.status.state], case.case_id))


def _pictured(found: Gathered, dataset: DatasetView) -> list[CaseView]:
    limit = found.spec.max_picture_cases
    ordered = _by_urgency(dataset.cases)
    doubtful = [case for case in ordered if case.status.state != "ok"][: max(limit // 2, 1)]
    good = [case for case in ordered if case.status.state == "ok"]
    step = max(1, math.ceil(len(good) / max(limit - len(doubtful), 1)))
    return [*doubtful, *good[::step]][:limit]


def _registration_numbers(summary: Mapping[str, Any]) -> list[str]:
    landmarks = summary.get("landmarks") or {}
    before, after = (landmarks.get(name) or {} for name in ("tre_before_um", "tre_um"))
    similarity = summary.get("similarity")
    return [
        "–" if similarity is None else number(float(similarity)),
        "–" if "median" not in before else number(float(before["median"])),
        "–" if "median" not in after else number(float(after["median"])),
    ]


def _case_pictures(dataset: DatasetView, case: CaseView, is_open: bool) -> Html:
    pictures = pictures_of(dataset, case.case_id)
    if not pictures:
        return Html("")
    shown = [
        figure(image(pictures[name], alt=f"{label}, case {case.case_id}", longest_px=CASE_PX), label)
        for name, label in CASE_LABELS.items()
        if name in pictures
    ]
    summary = registration_of(dataset, case.case_id)
    landmarks = summary.get("landmarks") or {}
    record = checked_of(dataset, case.case_id)
    about: dict[str, Content] = {"verdict": case.status.reason}
    for name, slide in (("H&E", record and record.he), ("IHC", record and record.ihc)):
        if slide:
            width, height = slide.size_px0
            about[name] = f"{width} × {height} px at {slide.mpp:g} µm/px, {slide.tissue_mm2:.2g} mm² tissue"
    if record is not None:
        about["sections"] = f"{record.section}, {record.marker}"
    if landmarks:
        before, after = landmarks["tre_before_um"], landmarks["tre_um"]
        about["landmark error"] = (
            f"median {number(before['median'])} → {number(after['median'])} µm, "
            f"90th percentile {number(before['p90'])} → {number(after['p90'])} µm ({landmarks['n']} landmarks)"
        )
    if "chain" in summary:
        about["registration"] = "; ".join(
            f"{step['step']}{'' if step['kept'] else ' (dropped: ' + str(step['note']) + ')'}"
            for step in summary["chain"]
        )
    title = join(
        [tag("b", case.case_id), f" HER2 {case.her2_score}" if case.her2_score else None, " ", chip(case.status.state)]
    )
    return fold(title, facts(about), tag("div", *shown, class_="case"), is_open=is_open)


def tiles(found: Gathered) -> Html:
    """Kept and dropped tiles, and DAB masks."""
    parts: list[Content] = []
    for dataset in found.datasets:
        sheet = contact_sheet(dataset)
        if sheet.markup:
            parts.append(tag("h3", dataset.name))
        parts.append(sheet)
        try:
            masks = dab_masks(dataset)
        except StoreError:
            masks = missing("The tile stores of this data set are gone.")
        if masks.markup:
            parts += [tag("h4", "DAB masks"), masks]
    return join(parts) if any(str(part) for part in parts) else missing("No tiles yet.")


def provenance(found: Gathered, timing: list[tuple[str, int, float, float]]) -> Html:
    """Versions, fingerprints, settings, weights, where the time went."""
    from hepipe import __version__

    parts: list[Content] = [facts({"hepipe": __version__})]
    made: dict[str, Content]
    rows: list[list[Content]] = []
    for state in weights_status():
        rows.append(
            [
                state.role.name,
                chip("ok" if state.state == "ok" else "review", state.state),
                state.role.enables,
                state.role.files[0],
            ]
        )
    parts += [tag("h3", "Weights"), table(["role", "state", "enables", "file"], rows, numeric_from=9)]
    for dataset in found.datasets:
        if dataset.card is not None:
            made = {
                "fingerprint": tag("code", dataset.card.fingerprint),
                "made by": f"hepipe {dataset.card.provenance.version}",
            }
            settings = tag("pre", _json(dataset.card.provenance.spec))
            parts += [tag("h3", f"Data set {dataset.name}"), facts(made), fold("Settings", settings)]
    for run in found.runs:
        if run.record is not None:
            made = {"digest": tag("code", run.record.digest), "made by": f"hepipe {run.record.provenance.version}"}
            if run.made is not None:
                made["code"] = tag("code", str(run.made.told.get("code", "not recorded")))
                made["data set"] = tag("code", run.made.inputs.get("dataset", "not recorded"))
            shown = run.record.model_dump(mode="json", exclude={"provenance"})
            parts += [tag("h3", f"Run {run.name}"), facts(made), fold("Settings", tag("pre", _json(shown)))]
    if timing:
        rows = [[rule, jobs, f"{total:.0f}", f"{longest:.1f}"] for rule, jobs, total, longest in timing]
        parts += [tag("h3", "Where the time went"), table(["rule", "jobs", "seconds in all", "longest"], rows)]
    if found.remarks:
        parts += [tag("h3", "Not there"), tag("ul", *(tag("li", remark) for remark in found.remarks))]
    return join(parts)


def chip(state: str, text: str | None = None) -> Html:
    """A state with its colour; the word stands in it, so colour alone says nothing."""
    return tag("span", text or state, class_=f"chip {state}")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
