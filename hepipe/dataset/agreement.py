"""How far two readers agree, and what they decided together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int
from scipy.stats import t as student

from hepipe.dataset.curation import combined
from hepipe.dataset.decisions import CHOICES, Decision, DecisionFile, table_text
from hepipe.specs.dataset import CurationRule

Z95 = 1.959964
MIN_CASES = 5
"""Fewer cases give no interval that means anything."""
SPLIT_NAMES = frozenset({"train", "val", "test", "all"})
"""What tile ids of imported sets begin with; they say no case."""
DISAGREEMENT_COLUMNS = ("content_id", "tile_id", "decision_a", "reason_a", "decision_b", "reason_b")


@dataclass(frozen=True)
class Agreement:
    """Two readers on the pairs that both decided.

    Attributes:
        table: Pairs by what the first (row) and the second reader (column) decided: keep, drop.
        only_a: Pairs that the first alone decided.
        only_b: Pairs that the second alone decided.
        kappa: Cohen's κ, at most 1; nan where it is undefined, as when both kept everything.
        by_pair: Its 95 % interval as if every pair were drawn on its own.
        by_case: Its 95 % interval with whole cases as the unit; None with fewer than `MIN_CASES` of them. Pairs of a
            case are alike, so this is the one to report.
        n_cases: What the pairs' tile ids begin with, `<case>/`; 0 where a pair is of an imported set, whose ids begin
            with a split: its cases are unknown here.
    """

    table: Int[np.ndarray, "2 2"]
    only_a: int
    only_b: int
    kappa: float
    by_pair: tuple[float, float]
    by_case: tuple[float, float] | None
    n_cases: int

    @property
    def n_both(self) -> int:
        """Pairs that both decided."""
        return int(self.table.sum())

    @property
    def observed(self) -> float:
        """Share of them that both decided alike, 0 to 1; nan without any."""
        return float(np.trace(self.table)) / self.n_both if self.n_both else math.nan


def cohen_kappa(table: Int[np.ndarray, "k k"]) -> tuple[float, float]:
    """Cohen's κ of a table of counts and its standard error.

    Both are nan where chance alone would agree always; the error is nan where one reader gave a single answer.

    Source: Cohen, Educ. Psychol. Meas. 20, 1960; the error: Fleiss, Cohen & Everitt, Psychol. Bull. 72, 1969, eq. 13.
    """
    n = table.sum()
    if not n:
        return math.nan, math.nan
    p = table / n
    rows, columns = p.sum(1), p.sum(0)
    expected = float(rows @ columns)
    if expected >= 1:
        return math.nan, math.nan
    kappa = (float(np.trace(p)) - expected) / (1 - expected)
    # (column mean of i) + (row mean of j), as in the paper: the two margins change places.
    margins = columns[:, None] + rows[None, :]
    same = float((np.diag(p) * (1 - np.diag(margins) * (1 - kappa)) ** 2).sum())
    unlike = float(((p * margins**2).sum() - (np.diag(p) * np.diag(margins) ** 2).sum()) * (1 - kappa) ** 2)
    variance = (same + unlike - (kappa - expected * (1 - kappa)) ** 2) / ((1 - expected) ** 2 * float(n))
    if 1 in (rows.max(), columns.max()):
        return kappa, math.nan
    return kappa, math.sqrt(max(variance, 0.0))


def agreement(a: Mapping[str, Decision], b: Mapping[str, Decision]) -> Agreement:
    """How far two readers agree on the pairs that both decided."""
    cases: dict[str, Int[np.ndarray, "2 2"]] = {}
    # By the first reader's rows: a set's order would change the last digits of the jackknife from run to run.
    for key in (key for key in a if key in b):
        table = cases.setdefault(a[key].tile_id.split("/")[0], np.zeros((2, 2), int))
        table[CHOICES.index(a[key].decision), CHOICES.index(b[key].decision)] += 1
    whole = sum(cases.values(), np.zeros((2, 2), int))
    if SPLIT_NAMES & cases.keys():
        cases = {}
    kappa, error = cohen_kappa(whole)
    return Agreement(
        table=whole,
        only_a=len(a.keys() - b.keys()),
        only_b=len(b.keys() - a.keys()),
        kappa=kappa,
        by_pair=_clipped(kappa, Z95 * error),
        by_case=_by_case(kappa, whole, list(cases.values())),
        n_cases=len(cases),
    )


def _by_case(
    kappa: float, whole: Int[np.ndarray, "2 2"], cases: Sequence[Int[np.ndarray, "2 2"]]
) -> tuple[float, float] | None:
    """The jackknife that leaves out one case at a time; Student's t for the few that there are."""
    left = np.array([cohen_kappa(whole - one)[0] for one in cases])
    if len(cases) < MIN_CASES or not np.isfinite([*left, kappa]).all():
        return None
    n = len(cases)
    error = math.sqrt((n - 1) / n * float(((left - left.mean()) ** 2).sum()))
    return _clipped(kappa, float(student.ppf(0.975, n - 1)) * error)


def _clipped(kappa: float, reach: float) -> tuple[float, float]:
    if math.isnan(kappa) or math.isnan(reach):
        return math.nan, math.nan
    return max(-1.0, kappa - reach), min(1.0, kappa + reach)


def merged(a: DecisionFile, b: DecisionFile, rule: CurationRule) -> list[Decision]:
    """What two readers decided together, in the order of the first file, then of the second."""
    both = combined([a, b], rule)
    rows = []
    for key, decision in both.items():
        names = [
            named(file)
            for file in (a, b)
            if key in file.decisions and file.decisions[key].decision == decision.decision
        ]
        times = [file.decisions[key].time for file in (a, b) if key in file.decisions]
        readers = "+".join(dict.fromkeys(names))
        rows.append(replace(decision, reader=readers[:64], time=max(times)))
    return rows


def named(file: DecisionFile) -> str:
    """Who decided: the readers that the file names, else its own name."""
    readers = dict.fromkeys(one.reader for one in file.decisions.values() if one.reader)
    return "+".join(readers) or "".join(c if c.isalnum() else "-" for c in file.name.removesuffix(".csv")).strip("-")


def disagreements(a: DecisionFile, b: DecisionFile) -> list[tuple[Decision, Decision]]:
    """The pairs that two readers decided differently, by tile id."""
    found = [
        (a.decisions[key], b.decisions[key])
        for key in a.decisions.keys() & b.decisions.keys()
        if a.decisions[key].decision != b.decisions[key].decision
    ]
    return sorted(found, key=lambda two: (two[0].tile_id, two[0].content_id))


def disagreements_text(found: Sequence[tuple[Decision, Decision]]) -> str:
    """Those pairs as CSV."""
    return table_text(
        DISAGREEMENT_COLUMNS,
        ([a.content_id, a.tile_id, a.decision, a.reason, b.decision, b.reason] for a, b in found),
    )


def describe(a: DecisionFile, b: DecisionFile, found: Agreement) -> list[str]:
    """What a person should know of two readers, a line each."""
    names = named(a), named(b)
    if names[0] == names[1]:
        names = f"{names[0]}, first", f"{names[1]}, second"
    lines = [
        f"pairs decided by both {found.n_both}, by {names[0]} alone {found.only_a}, by {names[1]} alone {found.only_b}"
    ]
    if not found.n_both:
        none = "no pair was decided by both: are the two files of the same data set?"
        return [*lines, none if len(a) and len(b) else "one of the files holds no decision"]
    wide = max(len(names[0]) + 5, 8)
    lines.append(f"{'':{wide}}  {names[1]} keep  {names[1]} drop")
    for choice, row in zip(CHOICES, found.table, strict=True):
        cells = "  ".join(f"{count:>{len(names[1]) + 5}}" for count in row)
        lines.append(f"{names[0] + ' ' + choice:{wide}}  {cells}")
    lines.append(f"agreement {found.observed:.1%}")
    if math.isnan(found.kappa):
        return [*lines, "Cohen's kappa is undefined: both gave every pair the same decision"]
    lines.append(f"Cohen's kappa {found.kappa:.3f}, 95 % interval {_span(found.by_pair)} with pairs as the unit")
    if found.by_case is not None:
        lines.append(
            f"95 % interval {_span(found.by_case)} with the {found.n_cases} cases as the unit: pairs of a case are "
            "alike, so report this one"
        )
    elif not found.n_cases:
        lines.append("no interval by case: tile ids of imported sets do not name their cases")
    else:
        lines.append(f"no interval by case: {found.n_cases} cases are too few or all alike")
    return lines


def _span(bounds: tuple[float, float]) -> str:
    return "undefined" if math.isnan(bounds[0]) else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
