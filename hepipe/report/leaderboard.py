"""Runs against metrics on one test set: point estimates, intervals over patients, which is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hepipe.evaluation.statistics import (
    Interval,
    concordance_of_sums,
    moments_interval,
    pearson_of_sums,
    relative_error_of_sums,
    summarize,
)
from hepipe.metrics.catalog import METRICS, Metric
from hepipe.report.gather import RunScores, TestSet

_OF_IOD = {"iod_ccc": concordance_of_sums, "iod_pearson": pearson_of_sums, "iod_rel_err": relative_error_of_sums}
SECONDARY = ("pos_fraction_error", "hscore_px_error", "css_ihc", "ssim", "psnr")
NO_INTERVAL = "one value for the whole set: no interval"


@dataclass(frozen=True)
class Cell:
    """One run's value of one metric.

    Attributes:
        value: Mean over tiles, or the set's value; nan when not computed.
        sd: Over tiles; nan for a set's metric.
        low: Of the 95 % interval over patients; nan if not computed.
        high: Upper end.
        case_mean: Over patients' means; nan where unknown.
        n: Tiles with a value.
        left_out: Tiles without, and those with an infinite one.
        reason: Why there is no value; empty otherwise.
        note: What weakens the interval.
    """

    value: float
    sd: float
    low: float
    high: float
    case_mean: float
    n: int
    left_out: int
    reason: str
    note: str


@dataclass(frozen=True)
class Board:
    """A table of runs and metrics; ranks by metric hold 1 for the best and 2 for the second."""

    metrics: tuple[Metric, ...]
    runs: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    ranks: dict[tuple[str, str], int]
    marks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def board(tests: TestSet, names: Sequence[str], *, draws: int) -> Board:
    """The table of some metrics on one test set; unknown names are left out."""
    metrics = tuple(METRICS[name] for name in dict.fromkeys(names) if name in METRICS)
    cells = {
        (run, metric.name): cell(scores, metric, draws=draws)
        for run, scores in tests.scores.items()
        for metric in metrics
    }
    ranks = {}
    for metric in metrics:
        compared = [run for run in tests.scores if run not in tests.unranked]
        good = {run: _goodness(metric, cells[run, metric.name].value) for run in compared}
        good = {run: value for run, value in good.items() if math.isfinite(value)}
        if metric.better != "neither" and len(good) > 1:
            for run, value in good.items():
                better = sum(other > value for other in good.values())
                if better < 2:
                    ranks[run, metric.name] = better + 1
    return Board(metrics, tuple(tests.scores), cells, ranks, tests.marks)


def cell(scores: RunScores, metric: Metric, *, draws: int) -> Cell:
    """One run's value of one metric."""
    nan = math.nan
    why = scores.reasons.get(metric.name, {})
    reason = max(why, key=lambda text: why[text]) if why else "not computed: not in the score table"
    if metric.level == "tile" and metric.name in scores.tiles:
        found = summarize(scores.tiles[metric.name], scores.patients, draws=draws)
        if found.n_tiles:
            return Cell(
                found.mean,
                found.sd,
                found.low,
                found.high,
                found.case_mean,
                found.n_tiles,
                found.n_left_out,
                "",
                found.note,
            )
        return Cell(nan, nan, nan, nan, nan, 0, found.n_left_out, reason, "")
    value = scores.of_set.get(metric.name, nan)
    if not math.isfinite(value):
        return Cell(nan, nan, nan, nan, nan, 0, 0, reason, "")
    interval = Interval(nan, nan, NO_INTERVAL)
    if metric.name in _OF_IOD:
        fake, real = (np.nan_to_num(scores.tiles[f"iod_{side}"]) for side in ("fake", "real"))
        interval = moments_interval(fake, real, scores.patients, statistic=_OF_IOD[metric.name], draws=draws)
    return Cell(value, nan, interval.low, interval.high, nan, len(scores.tile_ids), 0, "", interval.note)


def number(value: float) -> str:
    """Three significant digits, as a reader compares them."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}".replace("-", "−")


def _goodness(metric: Metric, value: float) -> float:
    return -value if metric.better == "lower" else value
