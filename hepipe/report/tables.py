"""Tables beside the page: the status of every case as TSV, and what the page shows as CSV."""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hepipe.report.gather import Gathered
from hepipe.report.leaderboard import Board

STATUS_COLUMNS = (
    "dataset",
    "case_id",
    "patient_id",
    "her2_score",
    "split",
    "n_tiles",
    "n_kept",
    "n_outside",
    "n_held",
    "state",
    "stage",
    "reason",
)
BOARD_COLUMNS = (
    "run",
    "dataset",
    "split",
    "metric",
    "value",
    "sd_over_tiles",
    "ci95_low",
    "ci95_high",
    "case_mean",
    "n_tiles",
    "n_left_out",
    "status",
    "note",
    "marks",
)
FUNNEL_COLUMNS = (
    "dataset",
    "case_id",
    "section",
    "her2_score",
    "step",
    "kind",
    "dropped",
    "left",
    "fail",
    "only",
    "alarm",
)
SCORE_COLUMNS = (
    "dataset",
    "section",
    "name",
    "score",
    "tiles",
    "dropped",
    "tiles_others",
    "dropped_others",
    "cases",
    "cases_dropping",
    "times",
    "p_tiles",
    "p_cases",
    "verdict",
)
CASE_COLUMNS = ("run", "dataset", "split", "case_id", "metric", "value")


def status_rows(found: Gathered) -> list[dict[str, object]]:
    """A row per case."""
    return [
        {
            "dataset": dataset.name,
            "case_id": case.case_id,
            "patient_id": case.patient_id or "",
            "her2_score": case.her2_score or "",
            "split": case.split or "",
            "n_tiles": case.n_tiles,
            "n_kept": case.n_kept,
            "n_outside": case.n_outside,
            "n_held": case.n_held,
            "state": case.status.state,
            "stage": case.status.stage or "",
            "reason": case.status.reason,
        }
        for dataset in found.datasets
        for case in dataset.cases
    ]


def board_rows(boards: Iterable[tuple[str, str, Board]]) -> list[dict[str, object]]:
    """A row per run, test set and metric."""
    return [
        {
            "run": run,
            "dataset": dataset,
            "split": split,
            "metric": metric.name,
            "value": _number(cell.value),
            "sd_over_tiles": _number(cell.sd),
            "ci95_low": _number(cell.low),
            "ci95_high": _number(cell.high),
            "case_mean": _number(cell.case_mean),
            "n_tiles": cell.n,
            "n_left_out": cell.left_out,
            "status": cell.reason or "ok",
            "note": cell.note,
            "marks": "; ".join(board.marks.get(run, ())),
        }
        for dataset, split, board in boards
        for run in board.runs
        for metric in board.metrics
        for cell in [board.cells[run, metric.name]]
    ]


def case_rows(found: Gathered) -> list[dict[str, object]]:
    """A row per run, test set, case and metric of a case."""
    return [
        {"run": run, "dataset": test.dataset, "split": test.split, "case_id": case, "metric": name, "value": value}
        for test in found.tests
        for run, scores in test.scores.items()
        for case, values in sorted(scores.of_case.items())
        for name, value in values.items()
        if math.isfinite(value)
    ]


def funnel_rows(found: Gathered) -> list[dict[str, object]]:
    """A row per case and step of its funnel."""
    return [
        {
            "dataset": dataset.name,
            "case_id": case.case_id,
            "section": case.section,
            "her2_score": case.her2_score or "",
            "step": step.name,
            **step.model_dump(include={"kind", "dropped", "left", "fail", "only"}),
            "alarm": int(step.name in case.alarms),
        }
        for dataset in found.datasets
        if dataset.funnel is not None
        for case in dataset.funnel.cases
        for step in case.steps
    ]


def score_rows(found: Gathered) -> list[dict[str, object]]:
    """A row per data set, kind of section, filter and HER2 score."""
    return [
        {"dataset": dataset.name, **share.model_dump()}
        for dataset in found.datasets
        if dataset.funnel is not None
        for share in dataset.funnel.scores
    ]


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, separator: str) -> None:
    """Write a table whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _one_line(row[name]) for name in columns} for row in rows)
    os.replace(beside, path)


def write_tables(folder: Path, found: Gathered, boards: Sequence[tuple[str, str, Board]]) -> None:
    """Every table as CSV, in a folder that appears whole."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    write_rows(beside / "status.csv", STATUS_COLUMNS, status_rows(found), separator=",")
    ablations = {(test.dataset, test.split) for test in found.tests if test.is_ablation}
    for name, is_ablation in (("leaderboard.csv", False), ("ablations.csv", True)):
        own = [board for board in boards if (board[:2] in ablations) == is_ablation]
        if is_ablation and not own:
            continue
        write_rows(beside / name, BOARD_COLUMNS, board_rows(own), separator=",")
    write_rows(beside / "cases.csv", CASE_COLUMNS, case_rows(found), separator=",")
    write_rows(beside / "funnel.csv", FUNNEL_COLUMNS, funnel_rows(found), separator=",")
    write_rows(beside / "filters_by_score.csv", SCORE_COLUMNS, score_rows(found), separator=",")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(beside, folder)


def _number(value: float) -> object:
    return value if math.isfinite(value) else ""


def _one_line(value: object) -> object:
    return " ".join(value.split()) if isinstance(value, str) else value
