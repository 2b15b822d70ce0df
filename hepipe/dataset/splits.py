"""Patients to train, val and test, or to folds: every score in each when the cohort allows, tiles near their shares.

`partition` holds the search, `bounds` what no division can better; docs/splits.md defines the objective.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from hepipe.dataset.bounds import TOLERANCE, cover, nearest_shares
from hepipe.dataset.partition import DAB_DIGITS, DAB_UNIT, Found, Problem, divide, valued
from hepipe.errors import ConfigError
from hepipe.sheet import SCORES, Score
from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split, SplitsSpec

SPLITS: tuple[Split, ...] = ("train", "val", "test")
FEW_CASES = 30
"""Up to this many cases folds are recommended: a single test split holds six of them, and its interval is wide."""
ROUNDS = 3
"""How often a division with nearer shares is searched for and gone on from."""


@dataclass(frozen=True)
class Patient:
    """The unit of splits.

    Attributes:
        patient_id: Whose slides.
        tiles: How many tiles are kept.
        scores: Of all slides.
        fixed: Split that the sheet asks for.
        dab: Mean over the tiles of the share of tissue with DAB, 0 to 1; None where it was not measured.
    """

    patient_id: str
    tiles: int
    scores: frozenset[Score]
    fixed: Split | None = None
    dab: float | None = None


class SplitProof(Spec):
    """Why the division is as it is, in figures that anybody can check."""

    method: str = Field(description="`every division` or `search`.")
    divisions: int = Field(description="Divisions looked at, whole or in part.")
    missing: int = Field(description="(Score, split) pairs without a patient.")
    missing_bound: int = Field(description="No division has fewer.")
    distance: float = Field(description="Root of the summed squared gaps between shares and wanted shares.")
    distance_bound: float | None = Field(
        description="No division as complete has a smaller distance; None where all shares are within 1 % of the "
        "wanted ones and the balance of DAB decided."
    )
    wanted: Mapping[str, float]
    shares: Mapping[str, float]
    dab: Mapping[str, float | None] = Field(description="Mean DAB share of each split's tiles; None without tiles.")
    dab_mean: float | None = Field(description="Of all tiles; None where DAB was not measured.")
    dab_gap: float = Field(description="Largest gap between a split's mean and that of all.")

    @property
    def verdict(self) -> str:
        """How far the division is shown to be the best."""
        if self.method == "every division":
            return "nothing betters it"
        if self.missing > self.missing_bound:
            return f"{self.missing - self.missing_bound} more (score, split) pairs may be possible"
        if self.distance_bound is None:
            return "every share within 1 % of the wanted one, with the best balance of DAB that the search met"
        gap = self.distance - self.distance_bound
        if gap <= TOLERANCE:
            return f"nothing betters its shares by more than {TOLERANCE:.1%}"
        return f"shares may be bettered by {gap:.2%} at most"

    def lines(self) -> list[str]:
        """The proof in words."""
        shares = ", ".join(
            f"{name} {share:.1%} (wanted {self.wanted[name]:.1%})" for name, share in self.shares.items()
        )
        how = f"{self.divisions:,} divisions looked at" + (", every one there is" if self.method != "search" else "")
        found = [f"shares of tiles: {shares}; {how}"]
        if self.missing:
            least = "the fewest possible" if self.missing == self.missing_bound else f"at least {self.missing_bound}"
            pairs = "pair has" if self.missing == 1 else "pairs have"
            found.append(f"{self.missing} (score, split) {pairs} no patient: {least}")
        if self.distance_bound is not None:
            found.append(
                f"distance from the wanted shares {self.distance:.4f}, no division below {self.distance_bound:.4f}"
            )
        if self.dab_mean is not None:
            of = ", ".join(f"{name} {'–' if mean is None else f'{mean:.2%}'}" for name, mean in self.dab.items())
            found.append(f"mean DAB share {of}; all {self.dab_mean:.2%}")
        return found


@dataclass(frozen=True)
class Division:
    """Who is where.

    Attributes:
        splits: Patient to split; with folds what a run of fold 0 sees.
        folds: Patient to fold; empty without folds.
        warnings: What could not be had, in words.
        proof: How good it is; None for nobody.
    """

    splits: dict[str, Split]
    folds: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    proof: SplitProof | None = None


def assign(patients: Sequence[Patient], spec: SplitsSpec) -> Division:
    """A split for each patient, the same whatever their order and whatever the machine.

    First as few (score, split) pairs as possible go without a patient. Then, among divisions whose every share is
    within 1 % of the wanted one, the best balance of DAB wins; where there is none, the least root of summed squared
    gaps. Then the nearer shares, then the seed.

    Raises:
        ConfigError: A patient's split is fixed to one whose share is 0, or fixed splits meet folds.
    """
    ordered = sorted(patients, key=lambda patient: _draw(spec.seed, patient.patient_id))
    names, wanted = _groups(ordered, spec)
    if not ordered:
        return Division({})
    problem = _problem(ordered, names, wanted)
    found, missing_bound, bound = _solved(problem, spec.seed)
    chosen = {patient.patient_id: int(number) for patient, number in zip(ordered, found.groups, strict=True)}
    is_least = found.value.missing <= missing_bound
    warnings = _warnings(ordered, {name: names[number] for name, number in chosen.items()}, names, is_least=is_least)
    proof = _proof(problem, found, names, missing_bound, bound, has_dab=any(p.dab is not None for p in ordered))
    if spec.folds is None:
        used = [split for split in SPLITS if split in names]
        return Division({name: used[number] for name, number in chosen.items()}, {}, warnings, proof)
    splits = {name: split_of_fold(number, test=0, folds=spec.folds) for name, number in chosen.items()}
    return Division(splits, chosen, warnings, proof)


def recommendation(n_cases: int, folds: int | None) -> str | None:
    """Advice to take folds, for sets of few cases; None for more, or where they are taken."""
    if folds is not None or not 0 < n_cases <= FEW_CASES:
        return None
    count = next(k for k in (5, 4, 3) if k * 2 <= n_cases or k == 3)
    return (
        f"{n_cases} cases are few: a single test split rests on a handful of them. Grouped k-fold tests every case "
        f"once: splits.folds: {count}, and fold: all in the runs"
    )


def split_of_fold(fold: int, *, test: int, folds: int) -> Split:
    """Where a fold stands when fold `test` is tested on: the next one validates, the others train."""
    if fold == test:
        return "test"
    return "val" if fold == (test + 1) % folds else "train"


def _groups(patients: Sequence[Patient], spec: SplitsSpec) -> tuple[list[str], list[float]]:
    fixed = [patient for patient in patients if patient.fixed is not None]
    if spec.folds is not None:
        if fixed:
            raise ConfigError(
                f"splits.folds is {spec.folds}, but column split of the sheet fixes {fixed[0].patient_id} to "
                f"{fixed[0].fixed}; every patient is tested on once with folds: empty the column, or take folds out"
            )
        return [f"fold {number}" for number in range(spec.folds)], [1 / spec.folds] * spec.folds
    names = [name for name in SPLITS if spec.shares.get(name, 0) > 0]
    for patient in fixed:
        if patient.fixed not in names:
            raise ConfigError(
                f"patient {patient.patient_id} is fixed to {patient.fixed}, but splits.shares.{patient.fixed} is 0"
            )
    return list(names), [spec.shares[name] for name in names]


def _problem(patients: Sequence[Patient], names: Sequence[str], wanted: Sequence[float]) -> Problem:
    known = [(patient.tiles, patient.dab) for patient in patients if patient.dab is not None]
    weight = sum(tiles for tiles, _ in known)
    mean = sum(tiles * dab for tiles, dab in known) / weight if weight else 0.0
    dab = [patient.tiles * (mean if patient.dab is None else patient.dab) * DAB_UNIT for patient in patients]
    scores = [
        sum(1 << SCORES.index(score) for score in patient.scores) if patient.tiles > 0 else 0 for patient in patients
    ]
    return Problem(
        tiles=np.array([patient.tiles for patient in patients], np.int64),
        dab=np.array([round(one) for one in dab], np.int64),
        scores=np.array(scores, np.uint8),
        wanted=np.array(wanted) / sum(wanted),
        fixed=np.array([-1 if p.fixed is None else names.index(p.fixed) for p in patients], np.int64),
        n_scores=len(SCORES),
    )


def _solved(problem: Problem, seed: int) -> tuple[Found, int, float | None]:
    """The division, the fewest missing pairs, and a bound of its distance where shares decide."""
    start = cover(problem)
    found = divide(problem, start.groups, seed=seed)
    if found.exact:
        return found, found.value.missing, found.value.distance if found.value.beyond else None
    bound = None
    means = problem.dab / np.maximum(problem.tiles, 1) / DAB_UNIT
    # Where all patients have the same DAB to what is compared, only shares are left to decide.
    even = not len(means) or float(np.ptp(means)) < 10**-DAB_DIGITS / 2
    for _ in range(ROUNDS):
        value = found.value
        if not value.beyond and (not even or value.distance <= TOLERANCE):
            return found, start.bound, 0.0 if even else None
        near = nearest_shares(problem, missing=value.missing, known=value.distance)
        bound = near.bound if bound is None else max(bound, near.bound)
        better = near.groups is not None and valued(problem, near.groups) < value
        if near.groups is None or not better:
            break
        again = divide(problem, near.groups, seed=seed)
        found = Found(again.groups, again.value, found.nodes + near.nodes + again.nodes, False)
    return found, start.bound, bound if found.value.beyond or even else None


def _proof(
    problem: Problem,
    found: Found,
    names: Sequence[str],
    missing_bound: int,
    bound: float | None,
    *,
    has_dab: bool,
) -> SplitProof:
    tiles = [int(problem.tiles[found.groups == number].sum()) for number in range(problem.groups)]
    dab = [int(problem.dab[found.groups == number].sum()) for number in range(problem.groups)]
    means = {
        name: sum_ / count / DAB_UNIT if count and has_dab else None
        for name, count, sum_ in zip(names, tiles, dab, strict=True)
    }
    return SplitProof(
        method="every division" if found.exact else "search",
        divisions=found.nodes,
        missing=found.value.missing,
        missing_bound=missing_bound,
        distance=found.value.distance,
        distance_bound=bound,
        wanted=dict(zip(names, map(float, problem.wanted), strict=True)),
        shares={name: count / problem.total for name, count in zip(names, tiles, strict=True)},
        dab=means,
        dab_mean=int(problem.dab.sum()) / problem.total / DAB_UNIT if has_dab else None,
        dab_gap=found.value.dab if has_dab else 0.0,
    )


def _warnings(
    patients: Sequence[Patient], chosen: Mapping[str, str], names: Sequence[str], *, is_least: bool
) -> list[str]:
    """What could not be had; `is_least`: no division leaves fewer (score, split) pairs without a patient."""
    warnings = []
    kind = "folds" if names[0].startswith("fold") else "splits"
    for score in SCORES:
        holders = [patient for patient in patients if score in patient.scores and patient.tiles > 0]
        seen = {chosen[patient.patient_id] for patient in holders}
        lacking = [name for name in names if name not in seen]
        if not holders or not lacking:
            continue
        line = (
            f"score {score}: {len(holders)} patient{'s' if len(holders) > 1 else ''} for {len(names)} {kind}; "
            f"none in {', '.join(lacking)}"
        )
        short = len(names) - len(holders)
        if short > 0 and len(seen) == len(holders):
            line += f". {len(seen)} of {len(names)} is the best possible: {short} more case{'s' * (short > 1)} needed"
        elif not is_least:
            line += f". {len(seen)} of {len(names)} is what the search found; more may be possible"
        elif any(patient.fixed for patient in holders):
            line += f". {len(seen)} of {len(names)} is the best possible beside column split of the sheet"
        else:
            line += f". {len(seen)} of {len(names)} is the best possible beside the other scores of these patients"
        warnings.append(line)
    empty = [name for name in names if name not in {chosen[p.patient_id] for p in patients if p.tiles > 0}]
    if empty:
        count = f"{len(patients)} patient{'s' * (len(patients) > 1)}"
        warnings.append(f"no tiles in {', '.join(empty)}: {count} for {len(names)} {kind}")
    return warnings


def _draw(seed: int, patient_id: str) -> str:
    return hashlib.sha256(f"{seed}/{patient_id}".encode()).hexdigest()
