import dataclasses
import hashlib
import itertools
import math

import pytest
from pydantic import ValidationError

from hepipe.dataset.bounds import cover
from hepipe.dataset.partition import EXACT_PATIENTS
from hepipe.dataset.splits import SPLITS, Division, Patient, assign, split_of_fold
from hepipe.errors import ConfigError
from hepipe.sheet import SCORES
from hepipe.specs.dataset import SplitsSpec

SPEC = SplitsSpec()


def cohort(count, *, tiles=lambda number: 100):
    return [Patient(f"p{n}", tiles(n), frozenset({SCORES[n % 4]})) for n in range(count)]


def test_every_score_is_in_every_split_when_three_patients_have_it():
    patients = cohort(12)
    division = assign(patients, SPEC)
    chosen, warnings = division.splits, division.warnings
    assert warnings == []
    for score, split in itertools.product(SCORES, ("train", "val", "test")):
        assert any(score in patient.scores and chosen[patient.patient_id] == split for patient in patients)


def test_tile_counts_come_near_the_shares():
    patients = cohort(40, tiles=lambda number: 50 + 37 * number % 90)
    division = assign(patients, SPEC)
    chosen, warnings = division.splits, division.warnings
    total = sum(patient.tiles for patient in patients)
    for split, share in SPEC.shares.items():
        tiles = sum(patient.tiles for patient in patients if chosen[patient.patient_id] == split)
        assert tiles / total == pytest.approx(share, abs=0.01)
    assert warnings == []


def test_a_score_with_too_few_patients_is_named():
    fewer = [patient for patient in cohort(12) if patient.patient_id not in ("p3", "p7")]
    warnings = assign(fewer, SPEC).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith("score 3+: 1 patient for 3 splits; none in")
    assert warnings[0].endswith("1 of 3 is the best possible: 2 more cases needed")


def test_a_fixed_split_is_kept():
    patients = [Patient(p.patient_id, p.tiles, p.scores, "test" if p.patient_id == "p0" else None) for p in cohort(12)]
    assert assign(patients, SPEC).splits["p0"] == "test"


def test_a_split_without_share_stays_empty_and_cannot_be_fixed():
    spec = SplitsSpec(shares={"train": 0.8, "val": 0.0, "test": 0.2})
    assert set(assign(cohort(12), spec).splits.values()) == {"train", "test"}
    with pytest.raises(ConfigError, match="p0 is fixed to val"):
        assign([Patient("p0", 3, frozenset(), "val")], spec)


def test_one_patient_goes_to_the_largest_share_and_the_rest_is_named():
    division = assign([Patient("p0", 9, frozenset({"0"}))], SPEC)
    assert division.splits == {"p0": "train"}
    assert any("no tiles in val, test" in warning for warning in division.warnings)


def test_nobody_needs_no_split():
    assert assign([], SPEC) == Division({})


@pytest.mark.parametrize("count", [EXACT_PATIENTS, EXACT_PATIENTS + 9])
def test_the_order_of_patients_does_not_matter_and_the_seed_does(count):
    patients = cohort(count)
    assert assign(patients, SPEC).splits == assign(patients[::-1], SPEC).splits
    others = [assign(patients, SplitsSpec(seed=seed)).splits for seed in range(2, 4)]
    assert any(other != assign(patients, SPEC).splits for other in others)


def test_folds_hold_every_score_and_each_patient_once():
    patients = cohort(23, tiles=lambda number: 50 + 37 * number % 90)
    division = assign(patients, SplitsSpec(folds=5))
    assert division.folds.keys() == {patient.patient_id for patient in patients}
    for score, fold in itertools.product(SCORES, range(5)):
        assert any(score in p.scores and division.folds[p.patient_id] == fold for p in patients)
    assert all(abs(share - 0.2) < 0.02 for share in division.proof.shares.values())
    splits = {name: split_of_fold(fold, test=0, folds=5) for name, fold in division.folds.items()}
    assert division.splits == splits


def test_over_all_folds_each_fold_tests_once_and_validates_once():
    for fold in range(4):
        seen = [split_of_fold(fold, test=test, folds=4) for test in range(4)]
        assert sorted(seen) == ["test", "train", "train", "val"]


def test_fixed_splits_and_folds_contradict_each_other():
    with pytest.raises(ConfigError, match=r"splits\.folds is 4, but column split of the sheet fixes p0 to test"):
        assign([Patient("p0", 3, frozenset(), "test")], SplitsSpec(folds=4))


def test_within_one_percent_of_the_shares_the_better_balance_of_dab_wins():
    # 100 tiles each: only which of the patients are together differs, and half of them are brown.
    patients = [Patient(f"p{n}", 100, frozenset(), None, 0.1 if n < 5 else 0.5) for n in range(10)]
    spec = SplitsSpec(shares={"train": 0.6, "val": 0.2, "test": 0.2})
    division = assign(patients, spec)
    assert division.proof.dab_gap == 0
    assert {name: round(mean, 6) for name, mean in division.proof.dab.items()} == dict.fromkeys(SPLITS, 0.3)


def test_dab_never_costs_a_score_nor_shares_beyond_one_percent():
    patients = [
        Patient(f"p{n}", 100, frozenset({"3+"}) if n < 3 else frozenset(), None, float(n < 3)) for n in range(9)
    ]
    division = assign(patients, SplitsSpec(shares={"train": 0.34, "val": 0.33, "test": 0.33}))
    assert {division.splits[f"p{n}"] for n in range(3)} == set(SPLITS)
    assert all(share == pytest.approx(1 / 3) for share in division.proof.shares.values())


def test_the_proof_says_how_good_it_is():
    proof = assign(cohort(12), SPEC).proof
    assert proof.method == "every division"
    assert proof.verdict == "nothing betters it"
    assert any("every one there is" in line for line in proof.lines())
    many = assign(cohort(60, tiles=lambda number: 50 + 37 * number % 90), SPEC).proof
    assert many.method == "search"
    assert many.verdict == "nothing betters its shares by more than 0.1%"
    assert many.distance <= many.distance_bound + 0.001


def test_the_answer_is_the_same_on_every_machine():
    # Of integers and rounded sums: a digest that changes here changes everybody's splits.
    patients = [
        Patient(f"p{n}", 50 + 37 * n % 90, frozenset({SCORES[n % 4]}), None, (n * 7 % 11) / 20) for n in range(40)
    ]
    for spec, digest in ((SPEC, "a34b65794772"), (SplitsSpec(folds=5), "e48089e4f0b8")):
        division = assign(patients, spec)
        told = sorted(division.splits.items()) + sorted(division.folds.items())
        assert hashlib.sha256(repr(told).encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize(
    "shares", [{"train": math.nan, "test": 1.0}, {"train": 0.6, "test": 0.6}, {"train": 1.0, "test": -0.0001}]
)
def test_shares_that_are_no_shares_are_refused(shares):
    with pytest.raises(ValidationError, match="add up to 1"):
        SplitsSpec(shares=shares)


def test_best_possible_is_only_said_of_what_is_shown(monkeypatch):
    patients = [Patient(f"p{n}", 100, frozenset({SCORES[n % 4]}), "train" if n % 4 == 3 else None) for n in range(20)]
    assert "1 of 3 is the best possible beside column split" in assign(patients, SPEC).warnings[0]

    def unsure(problem):
        return dataclasses.replace(cover(problem), bound=0)

    monkeypatch.setattr("hepipe.dataset.splits.cover", unsure)
    assert "1 of 3 is what the search found; more may be possible" in assign(patients, SPEC).warnings[0]
