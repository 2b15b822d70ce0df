"""Patients to train, val and test: every score in every split when the cohort allows, tile counts near their shares."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hepipe.errors import ConfigError
from hepipe.sheet import SCORES, Score
from hepipe.specs.dataset import Split, SplitsSpec

SPLITS: tuple[Split, ...] = ("train", "val", "test")
EXACT_PATIENTS = 11
"""Up to this many free patients every assignment is tried: 3^11 = 177,147 of them, a fifth of a second."""


@dataclass(frozen=True)
class Patient:
    """The unit of splits.

    Attributes:
        patient_id: Whose slides.
        tiles: How many tiles are kept.
        scores: Of all slides.
        fixed: Split that the sheet asks for.
    """

    patient_id: str
    tiles: int
    scores: frozenset[Score]
    fixed: Split | None = None


def assign(patients: Sequence[Patient], spec: SplitsSpec) -> tuple[dict[str, Split], list[str]]:
    """A split for each patient, the same whatever their order, and what could not be had, in words.

    First as few (score, split) pairs as possible go without a patient, then the squared distance of the tile shares
    from the wanted ones is least, then the seed decides. Exact up to 11 free patients; beyond, a greedy start improved
    by moves and swaps until none helps.

    Raises:
        ConfigError: A patient's split is fixed to one whose share is 0.
    """
    ordered = sorted(patients, key=lambda patient: _draw(spec.seed, patient.patient_id))
    allowed = [number for number, split in enumerate(SPLITS) if spec.shares.get(split, 0) > 0]
    for patient in ordered:
        if patient.fixed is not None and SPLITS.index(patient.fixed) not in allowed:
            raise ConfigError(
                f"patient {patient.patient_id} is fixed to {patient.fixed}, but splits.shares.{patient.fixed} is 0"
            )
    if not ordered:
        return {}, []
    goal = _Goal(ordered, spec, allowed)
    free = [place for place, patient in enumerate(ordered) if patient.fixed is None]
    start = np.array([SPLITS.index(p.fixed) if p.fixed is not None else allowed[0] for p in ordered], np.int8)
    best = _every(goal, start, free, allowed) if len(free) <= EXACT_PATIENTS else _improved(goal, start, free, allowed)
    chosen = {patient.patient_id: SPLITS[int(number)] for patient, number in zip(ordered, best, strict=True)}
    return chosen, _warnings(ordered, chosen, [SPLITS[number] for number in allowed])


class _Goal:
    """What makes one assignment better than another, for many at once."""

    def __init__(self, patients: Sequence[Patient], spec: SplitsSpec, allowed: Sequence[int]) -> None:
        # A patient without tiles still counts a little, or its split would be arbitrary.
        tiles = np.array([max(patient.tiles, 1e-6) for patient in patients])
        self.shares = tiles / tiles.sum()
        self.has = np.array(
            [[score in patient.scores and patient.tiles > 0 for score in SCORES] for patient in patients]
        )
        self.wanted = np.array([spec.shares.get(SPLITS[number], 0.0) for number in allowed])
        self.allowed = allowed

    def __call__(self, assignments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Missing (score, split) pairs and squared distance of shares, for each row (one split number a patient)."""
        missing = np.zeros(len(assignments), np.int64)
        distance = np.zeros(len(assignments))
        present = self.has.any(0)
        for number, wanted in zip(self.allowed, self.wanted, strict=True):
            inside = assignments == number
            seen = inside.astype(np.float32) @ self.has.astype(np.float32) > 0
            missing += (present & ~seen).sum(1)
            distance += (inside @ self.shares - wanted) ** 2
        # Rounded so that sums taken in another order cannot decide between equals.
        return missing, np.round(distance, 12)

    def best(self, assignments: np.ndarray) -> int:
        """The first of the best rows."""
        missing, distance = self(assignments)
        return int(np.lexsort((np.arange(len(assignments)), distance, missing))[0])


def _every(goal: _Goal, start: np.ndarray, free: Sequence[int], allowed: Sequence[int]) -> np.ndarray:
    if not free:
        return start
    choices = np.array(list(itertools.product(allowed, repeat=len(free))), np.int8)
    assignments = np.repeat(start[None], len(choices), axis=0)
    assignments[:, list(free)] = choices
    best: np.ndarray = assignments[goal.best(assignments)]
    return best


def _improved(goal: _Goal, start: np.ndarray, free: Sequence[int], allowed: Sequence[int]) -> np.ndarray:
    """Greedy by score and size, then the best single move or swap as long as one helps."""
    current = start.copy()
    by_size = sorted(free, key=lambda place: -goal.shares[place])
    placed = [place for place in range(len(start)) if place not in set(free)]
    for place in by_size:
        placed.append(place)
        options = np.repeat(current[None], len(allowed), axis=0)
        options[:, place] = allowed
        hidden = np.full_like(options, -1)
        hidden[:, placed] = options[:, placed]
        current = options[goal.best(hidden)]
    while True:
        options = np.array([current, *_neighbours(current, free, allowed)])
        best = goal.best(options)
        if best == 0:
            return current
        current = options[best]


def _neighbours(current: np.ndarray, free: Sequence[int], allowed: Sequence[int]) -> Iterator[np.ndarray]:
    for place in free:
        for number in allowed:
            if number != current[place]:
                moved = current.copy()
                moved[place] = number
                yield moved
    for first, second in itertools.combinations(free, 2):
        if current[first] != current[second]:
            swapped = current.copy()
            swapped[[first, second]] = swapped[[second, first]]
            yield swapped


def _warnings(patients: Sequence[Patient], chosen: Mapping[str, Split], splits: Sequence[Split]) -> list[str]:
    warnings = []
    for score in SCORES:
        holders = [patient for patient in patients if score in patient.scores and patient.tiles > 0]
        seen = {chosen[patient.patient_id] for patient in holders}
        lacking = [split for split in splits if split not in seen]
        if holders and lacking:
            warnings.append(
                f"score {score}: {len(holders)} patient{'s' if len(holders) > 1 else ''} for {len(splits)} splits; "
                f"none in {', '.join(lacking)}"
            )
    empty = [split for split in splits if split not in {chosen[p.patient_id] for p in patients if p.tiles > 0}]
    if empty:
        warnings.append(f"no tiles in {', '.join(empty)}: {len(patients)} patients for {len(splits)} splits")
    return warnings


def _draw(seed: int, patient_id: str) -> str:
    return hashlib.sha256(f"{seed}/{patient_id}".encode()).hexdigest()
