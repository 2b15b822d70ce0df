"""The funnel: from the cells of a grid to the tiles of the index, with what each step drops.

And whether a filter drops one HER2 score more than the others: strong 3+ staining is neither over-stain nor shade.
Everything here counts rows; nothing reads pixels. Restained and consecutive pairs are never counted together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from hepipe.errors import StoreError
from hepipe.quality.verdict import CLASSES, SECTIONS, UNREADABLE, emptying, filter_names
from hepipe.specs.base import Spec
from hepipe.specs.quality import Limit, QualitySpec
from hepipe.stores.cases import write_record
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import LEFT_OUT as IMPORT_LEFT_OUT

Kind = Literal["grid", "import", "pixels", "filter", "alignment", "curation", "dataset"]

TIMES = 2.0
"""A filter that drops a score more than so many times as often as the others is looked at."""
MIN_DROPPED = 5
"""Fewer tiles of a score dropped by a filter say nothing of the score."""
ALPHA_TILES = 0.05
"""Of the test of tiles, divided by the number of comparisons."""
ALPHA_CASES = 0.01
"""Of the test of cases."""
MAX_RELABELLINGS = 20_000
"""All ways to give a score to as many cases are tried up to this number of them."""
DRAWS = 2000
"""Ways that are drawn where there are more."""
SEED = 1


class Step(Spec):
    """One step of a funnel."""

    name: str = Field(description="`cells` first, `kept` last, between them reasons to drop.")
    kind: Kind
    dropped: int = Field(description="Dropped here, for this reason first.")
    left: int = Field(description="Left after it.")
    fail: int | None = Field(None, description="Tiles that fail it, whatever else they fail; None: not a filter.")
    only: int | None = Field(None, description="Tiles that fail it alone, and would stay without it.")


class CaseFunnel(Spec):
    """One slide pair."""

    case_id: str
    section: str = Field(description="restained or consecutive; empty where nobody knows.")
    her2_score: str | None
    steps: tuple[Step, ...]
    alarms: tuple[str, ...] = Field((), description="Filters that more than `quality.alarm_filter_frac` fail.")


class ScoreShare(Spec):
    """How many tiles of one score a filter drops, beside all others of the same kind of section."""

    section: str
    name: str
    score: str
    tiles: int
    dropped: int = Field(description="That fail the filter, whatever else they fail.")
    tiles_others: int
    dropped_others: int
    cases: int = Field(description="Of this score; 0 where the cases are unknown.")
    cases_dropping: int = Field(description="Of these, those that lose a tile to the filter.")
    times: float | None = Field(description="How many times as often as the others; None: the others lose none.")
    p_tiles: float | None = Field(None, description="Fisher's exact test of the tiles, one-sided.")
    p_cases: float | None = Field(None, description="Share of relabellings of the cases that give as much.")
    verdict: Literal["", "score", "slides"] = Field(
        "", description="score: flagged. slides: more than twice as often, but carried by too few slides to say so."
    )

    @property
    def told(self) -> str:
        """The flag as a sentence."""
        cases = f", in {self.cases_dropping} of its {self.cases} cases" if self.cases else ""
        unsure = "too few cases to tell the score from its slides" if self.cases else "cases unknown"
        doubt = "" if self.p_cases is not None else f"; {unsure}"
        return (
            f"filter {self.name} drops {self.dropped / self.tiles:.0%} of the {self.score} tiles "
            f"and {self.dropped_others / self.tiles_others:.0%} of the others ({self.section} pairs){cases}{doubt}: "
            "look at what it drops before training"
        )


class Funnel(Spec):
    """A data set's funnel."""

    name: str
    cases: tuple[CaseFunnel, ...]
    whole: Mapping[str, tuple[Step, ...]] = Field(description="All cases of a kind of section together.")
    limits: Mapping[str, Mapping[str, Limit]] = Field(description="Kind of section to the limits that were used.")
    scores: tuple[ScoreShare, ...] = Field(description="A row for each kind of section, filter and score.")
    provenance: Provenance

    @property
    def flagged(self) -> list[ScoreShare]:
        """Filters that drop one score more than the others."""
        return [share for share in self.scores if share.verdict == "score"]


@dataclass(frozen=True)
class Graded:
    """The tables of one slide pair, or of an imported set's case.

    Attributes:
        case_id: Or `imported`.
        section: restained or consecutive; empty where nobody knows.
        her2_score: Of the slide; None where tiles have their own or none.
        tiles: Rows of the tile table; `tile_id`, `her2_score`, `problem` are read.
        verdicts: Rows of the verdict table, in the same order.
        told: Of the tile table's provenance: the numbers of cells. Empty for tiles cut elsewhere.
        spec: What they were graded by.
        kept: Tile ids of the index.
        left_out: Why a tile that passes, or was asked to stay, is not in the index: `curation` and others.
    """

    case_id: str
    section: str
    her2_score: str | None
    tiles: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Mapping[str, Any]]
    told: Mapping[str, Any]
    spec: QualitySpec
    kept: frozenset[str]
    left_out: Mapping[str, str]


AFTER_FILTERS: Mapping[str, Kind] = {"curation": "curation", "held": "dataset", "no_split": "dataset"}
"""Reasons that follow the filters: a person's decision, a pair in review, tiles that no split takes."""


def case_funnel(case: Graded) -> CaseFunnel:
    """What each step leaves of one case: its drops and what is kept add up to the cells."""
    reasons: Counter[str] = Counter()
    failing: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for row in case.verdicts:
        failing.update(row["flags"])
        alone.update(row["flags"] if len(row["flags"]) == 1 else ())
        if row["tile_id"] not in case.kept:
            reasons[row["reason"] or case.left_out.get(row["tile_id"], "no_split")] += 1
    steps = _grid_steps(case)
    is_imported = bool(case.tiles) and "n_cells" not in case.told
    names: list[tuple[str, Kind]] = [(name, "import") for name in (IMPORT_LEFT_OUT if is_imported else ())]
    names.append((UNREADABLE, "pixels"))
    names += [(name, "filter") for name in (filter_names(case.spec, case.section) if case.section else ())]
    names += [(name, "alignment") for name in CLASSES if name in case.spec.alignment.drop]
    names += list(AFTER_FILTERS.items())
    assert reasons.keys() <= dict(names).keys(), sorted(reasons.keys() - dict(names).keys())
    for name, kind in names:
        count = reasons[name]
        judged = kind not in ("curation", "dataset")
        steps.append(
            Step(
                name=name,
                kind=kind,
                dropped=count,
                left=steps[-1].left - count,
                fail=failing[name] if judged else None,
                only=alone[name] if judged else None,
            )
        )
    steps.append(Step(name="kept", kind="dataset", dropped=0, left=steps[-1].left))
    return CaseFunnel(
        case_id=case.case_id,
        section=case.section,
        her2_score=case.her2_score,
        steps=tuple(steps),
        alarms=tuple(emptying(case.verdicts, case.spec)),
    )


def _grid_steps(case: Graded) -> list[Step]:
    """From the cells to the rows of the tile table."""
    told = case.told
    if "n_cells" not in told:
        return [Step(name="cells", kind="grid", dropped=0, left=len(case.tiles))]
    counts = {"cells": told["n_cells"], "glass": told["n_tissue"]}
    counts["regions"] = told["n_inside"] + told["n_outside"]
    # A case may fail between grid and table: then it has no tile.
    counts["failed"] = len(case.tiles)
    steps = []
    before = counts["cells"]
    for name, left in counts.items():
        steps.append(Step(name=name, kind="grid", dropped=before - left, left=left))
        before = left
    return steps


def whole_funnel(cases: Iterable[CaseFunnel]) -> dict[str, tuple[Step, ...]]:
    """All cases of a kind of section together, step by step in the order of the first case that has it."""
    of_section: dict[str, list[CaseFunnel]] = {}
    for case in cases:
        of_section.setdefault(case.section, []).append(case)
    return {section: _together(own) for section, own in sorted(of_section.items())}


def _together(cases: Sequence[CaseFunnel]) -> tuple[Step, ...]:
    found: dict[str, list[Step]] = {}
    for case in cases:
        for step in case.steps:
            found.setdefault(step.name, []).append(step)
    # A case that failed before its grid, or was cut elsewhere, has not its steps: they come first all the same.
    place = {"cells": 0, "kept": 3}
    ordered = sorted(found.items(), key=lambda item: place.get(item[0], 1 if item[1][0].kind == "grid" else 2))
    steps: list[Step] = []
    left = sum(case.steps[0].left for case in cases)
    for name, own in ordered:
        dropped = sum(step.dropped for step in own)
        left -= dropped
        fail, only = (
            None if any(value is None for value in values) else sum(value or 0 for value in values)
            for values in ([step.fail for step in own], [step.only for step in own])
        )
        steps.append(Step(name=name, kind=own[0].kind, dropped=dropped, left=left, fail=fail, only=only))
    return tuple(steps)


def score_shares(cases: Sequence[Graded]) -> list[ScoreShare]:
    """A row for each kind of section, filter and score with tiles, where there are two scores or more.

    A score is flagged when a filter drops it more than twice as often as all others together, and that is no accident:
    at least 5 of its tiles, Fisher's exact test of the tiles below 5 % (divided by the number of comparisons), and,
    since the tiles of a slide share its faults, scores given to the cases at random do as much in under 1 % of ways.
    Where there are too few cases for the last ever to hold, the score must be dropped more than twice as often without
    its worst case too; a score of one case is judged by the tiles alone. The sentence says so.
    """
    return [share for section in SECTIONS for share in _section_shares(section, cases)]


def _section_shares(section: str, cases: Sequence[Graded]) -> list[ScoreShare]:
    of_case: dict[tuple[str, str], int] = Counter()
    failing: dict[str, Counter[tuple[str, str]]] = {}
    names: dict[str, None] = {}
    for case in cases:
        if case.section != section:
            continue
        names |= dict.fromkeys([*filter_names(case.spec, section), *_dropped_classes(case.spec)])
        for tile, verdict in zip(case.tiles, case.verdicts, strict=True):
            if tile["problem"] or tile["her2_score"] is None:
                continue
            key = (tile["her2_score"], case.case_id if tile["case_id"] is not None else "")
            of_case[key] += 1
            for name in verdict["flags"]:
                failing.setdefault(name, Counter())[key] += 1
    scores = sorted({score for score, _ in of_case})
    if len(scores) < 2:
        return []
    # A filter that drops hardly any tile could not be flagged whatever the score, so it is no further chance to err.
    comparisons = len(scores) * sum(sum(failing.get(name, Counter()).values()) >= MIN_DROPPED for name in names)
    return [
        _share(section, name, score, of_case, failing.get(name, Counter()), comparisons)
        for name in names
        for score in scores
    ]


def _dropped_classes(spec: QualitySpec) -> list[str]:
    return [name for name in CLASSES if name in spec.alignment.drop]


def _share(
    section: str,
    name: str,
    score: str,
    tiles: Mapping[tuple[str, str], int],
    failing: Mapping[tuple[str, str], int],
    comparisons: int,
) -> ScoreShare:
    own = [key for key in tiles if key[0] == score]
    n, n_all = sum(tiles[key] for key in own), sum(tiles.values())
    dropped, dropped_all = sum(failing.get(key, 0) for key in own), sum(failing.values())
    rate, rate_others = dropped / n, (dropped_all - dropped) / (n_all - n)
    p_tiles = p_cases = None
    verdict: Literal["", "score", "slides"] = ""
    if dropped >= MIN_DROPPED and rate > TIMES * rate_others:
        p_tiles = fisher(dropped, n, dropped_all, n_all)
        if p_tiles < ALPHA_TILES / comparisons:
            verdict = "score"
            ids = [case_id for _, case_id in tiles]
            # A case with tiles of several scores, or an unknown one, is no unit that a score could be given to.
            if all(ids) and len(set(ids)) == len(ids):
                counts = np.array([[tiles[key], failing.get(key, 0)] for key in sorted(tiles)], np.int64)
                labels = np.array([key[0] == score for key in sorted(tiles)])
                p_cases = relabelled(counts, labels)
                is_of_slides = (
                    not _without_worst(counts[labels], rate_others) if p_cases is None else p_cases >= ALPHA_CASES
                )
                verdict = "slides" if is_of_slides else "score"
    known = all(case_id for _, case_id in own)
    return ScoreShare(
        section=section,
        name=name,
        score=score,
        tiles=n,
        dropped=dropped,
        tiles_others=n_all - n,
        dropped_others=dropped_all - dropped,
        cases=len(own) if known else 0,
        cases_dropping=sum(failing.get(key, 0) > 0 for key in own) if known else 0,
        times=rate / rate_others if rate_others else None,
        p_tiles=p_tiles,
        p_cases=p_cases,
        verdict=verdict,
    )


def fisher(dropped: int, tiles: int, dropped_all: int, tiles_all: int) -> float:
    """One-sided p of Fisher's exact test: how often chance drops at least `dropped` of a score's tiles.

    The upper tail of the hypergeometric distribution, to three digits, so that machines agree.
    """

    def log_ways(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    whole = log_ways(tiles_all, tiles)
    tail = sum(
        math.exp(log_ways(dropped_all, k) + log_ways(tiles_all - dropped_all, tiles - k) - whole)
        for k in range(max(dropped, tiles + dropped_all - tiles_all), min(tiles, dropped_all) + 1)
    )
    return float(f"{min(1.0, tail):.3g}")


def _without_worst(counts: np.ndarray, rate_others: float) -> bool:
    """Whether a score's cases (n, 2) lose more than twice as much as the others without the one that loses most."""
    if len(counts) == 1:
        return True
    rest = np.delete(counts, int(np.argmax(counts[:, 1] / counts[:, 0])), axis=0).sum(0)
    return bool(rest[1] / rest[0] > TIMES * rate_others)


def relabelled(counts: np.ndarray, own: np.ndarray) -> float | None:
    """How often a score given to as many cases at random loses at least as much more than the others, 0 to 1.

    All ways are tried where there are at most 20,000, else 2,000 are drawn, the same each time.

    Args:
        counts: Tiles and dropped tiles of each case, (n, 2).
        own: Which cases have the score, (n,).

    Returns:
        None where even the rarest outcome is not below `ALPHA_CASES`: there are too few cases.
    """
    n, k = len(own), int(own.sum())
    ways = math.comb(n, k)
    if ways * ALPHA_CASES <= 1:
        return None
    if ways <= MAX_RELABELLINGS:
        chosen = np.array(list(combinations(range(n), k)), np.int64)
    else:
        rng = np.random.default_rng(SEED)
        chosen = np.argsort(rng.random((DRAWS, n)), axis=1)[:, :k]
    taken = counts[chosen].sum(1)
    as_much = _excess(taken, counts.sum(0)) >= _excess(counts[own].sum(0)[None], counts.sum(0))[0]
    # The labels as they are count among those drawn (Phipson and Smyth 2010): no p of 0.
    found = as_much.mean() if ways <= MAX_RELABELLINGS else (as_much.sum() + 1) / (len(chosen) + 1)
    return float(found)


def _excess(taken: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Rate of a group over that of the rest; (m, 2) and (2,) to (m,)."""
    rest = whole - taken
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = (taken[:, 1] * rest[:, 0]) / (taken[:, 0] * rest[:, 1])
    ratio[np.isnan(ratio)] = 0.0
    return ratio


def data_set_funnel(name: str, cases: Sequence[Graded], *, fingerprint: str = "") -> Funnel:
    """The funnel of a data set from the tables of its cases; the fingerprint says of which one."""
    found = tuple(case_funnel(case) for case in sorted(cases, key=lambda one: one.case_id))
    sections = sorted({case.section for case in cases} - {""})
    specs = [case.spec for case in cases]
    return Funnel(
        name=name,
        cases=found,
        whole=whole_funnel(found),
        limits={section: specs[0].limits_of(section) for section in sections} if specs else {},
        scores=tuple(score_shares(cases)),
        provenance=Provenance(
            artefact="funnel",
            subject=name,
            spec=specs[0].model_dump(mode="json") if specs else {},
            inputs={"fingerprint": fingerprint},
        ),
    )


def write_funnel(path: Path, funnel: Funnel) -> None:
    """Store the funnel whole."""
    write_record(path, funnel)


def read_funnel(path: Path) -> Funnel:
    """A stored funnel.

    Raises:
        StoreError: Missing or of another version.
    """
    try:
        return Funnel.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        raise StoreError(f"{path}: not a readable funnel ({type(error).__name__}); run assemble again") from None
