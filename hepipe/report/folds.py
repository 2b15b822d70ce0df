"""Runs of all folds of one data set as one: every case is tested once, by the run that has not seen it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from hepipe.dataset.card import DatasetCard
from hepipe.models.resolved import ResolvedRun
from hepipe.report.gather import RunScores, TestSet

PLAIN = "tested on fold 0 alone, while others are tested on every fold; give it fold: all"


def folds_of(card: DatasetCard | None) -> int | None:
    """How many folds a data set has; None for none, or without a card."""
    return None if card is None else card.provenance.spec.get("folds")


def with_folds_joined(test: TestSet, records: Mapping[str, ResolvedRun | None], folds: int | None) -> TestSet:
    """The test set with the runs of all folds as one run; a set without such runs stays as it is.

    Scores of tiles and cases are joined. What is computed over a whole set, as Fréchet distances are, is the mean over
    folds. Runs of a base name whose folds are not all scored, and runs without folds, cannot be compared with these.

    Args:
        test: Of one split of one data set.
        records: Run to its record.
        folds: Of the data set, where its card is known.
    """
    members: dict[str, dict[int, str]] = defaultdict(dict)
    for name in (*test.scores, *test.left_out):
        record = records.get(name)
        if record is not None and record.fold is not None and record.dataset == test.dataset:
            members[name.removesuffix(f"-f{record.fold}")][record.fold] = name
    if not members:
        return test
    scores: dict[str, RunScores] = {}
    left_out = dict(test.left_out)
    joined: dict[str, tuple[str, ...]] = {}
    marks = {name: own for name, own in test.marks.items() if name in test.scores}
    unranked = set(test.unranked)
    for base, own in sorted(members.items()):
        names = [own[fold] for fold in sorted(own)]
        scored = [name for name in names if name in test.scores]
        if folds is not None and sorted(own) == list(range(folds)) and scored == names:
            scores[base], joined[base] = joined_scores([test.scores[name] for name in names]), tuple(names)
            if own_marks := tuple(dict.fromkeys(mark for name in names for mark in test.marks.get(name, ()))):
                marks[base] = own_marks
            unranked |= {base} if test.unranked & set(names) else set()
        else:
            wanted = "all" if folds is None else str(folds)
            left_out |= dict.fromkeys(
                scored, f"{len(scored)} of {wanted} folds are scored, and a fold alone is no test"
            )
    in_folds = {name for own in members.values() for name in own.values()}
    for name, own_scores in test.scores.items():
        record = records.get(name)
        if name in in_folds:
            continue
        if record is not None and record.dataset == test.dataset:
            left_out[name] = PLAIN
        else:
            scores[name] = own_scores
    return TestSet(
        test.dataset,
        test.split,
        scores,
        left_out,
        joined,
        {name: own_marks for name, own_marks in marks.items() if name in scores},
        frozenset(unranked & scores.keys()),
    )


def joined_scores(parts: Sequence[RunScores]) -> RunScores:
    """Scores of several folds as those of one run; metrics that a fold lacks are nan for its tiles."""
    names = list(dict.fromkeys(name for part in parts for name in part.tiles))
    tiles = {
        name: np.concatenate([part.tiles.get(name, np.full(len(part.tile_ids), np.nan)) for part in parts])
        for name in names
    }
    sets = list(dict.fromkeys(name for part in parts for name in part.of_set))
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for part in parts:
        for name, why in part.reasons.items():
            reasons[name].update(why)
    return RunScores(
        tiles=tiles,
        tile_ids=[tile_id for part in parts for tile_id in part.tile_ids],
        patients=[patient for part in parts for patient in part.patients],
        cases=[case for part in parts for case in part.cases],
        her2=[score for part in parts for score in part.her2],
        of_set={name: float(np.mean([part.of_set.get(name, np.nan) for part in parts])) for name in sets},
        of_case={case: values for part in parts for case, values in part.of_case.items()},
        reasons=reasons,
    )
