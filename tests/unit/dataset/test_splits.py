import itertools

import pytest

from hepipe.dataset.splits import EXACT_PATIENTS, Patient, assign
from hepipe.errors import ConfigError
from hepipe.sheet import SCORES
from hepipe.specs.dataset import SplitsSpec

SPEC = SplitsSpec()


def cohort(count, *, tiles=lambda number: 100):
    return [Patient(f"p{n}", tiles(n), frozenset({SCORES[n % 4]})) for n in range(count)]


def test_every_score_is_in_every_split_when_three_patients_have_it():
    patients = cohort(12)
    chosen, warnings = assign(patients, SPEC)
    assert warnings == []
    for score, split in itertools.product(SCORES, ("train", "val", "test")):
        assert any(score in patient.scores and chosen[patient.patient_id] == split for patient in patients)


def test_tile_counts_come_near_the_shares():
    patients = cohort(40, tiles=lambda number: 50 + 37 * number % 90)
    chosen, warnings = assign(patients, SPEC)
    total = sum(patient.tiles for patient in patients)
    for split, share in SPEC.shares.items():
        tiles = sum(patient.tiles for patient in patients if chosen[patient.patient_id] == split)
        assert tiles / total == pytest.approx(share, abs=0.01)
    assert warnings == []


def test_a_score_with_too_few_patients_is_named():
    fewer = [patient for patient in cohort(12) if patient.patient_id not in ("p3", "p7")]
    _, warnings = assign(fewer, SPEC)
    assert len(warnings) == 1
    assert warnings[0].startswith("score 3+: 1 patient for 3 splits; none in")


def test_a_fixed_split_is_kept():
    patients = [Patient(p.patient_id, p.tiles, p.scores, "test" if p.patient_id == "p0" else None) for p in cohort(12)]
    assert assign(patients, SPEC)[0]["p0"] == "test"


def test_a_split_without_share_stays_empty_and_cannot_be_fixed():
    spec = SplitsSpec(shares={"train": 0.8, "val": 0.0, "test": 0.2})
    assert set(assign(cohort(12), spec)[0].values()) == {"train", "test"}
    with pytest.raises(ConfigError, match="p0 is fixed to val"):
        assign([Patient("p0", 3, frozenset(), "val")], spec)


def test_one_patient_goes_to_the_largest_share_and_the_rest_is_named():
    chosen, warnings = assign([Patient("p0", 9, frozenset({"0"}))], SPEC)
    assert chosen == {"p0": "train"}
    assert any("no tiles in val, test" in warning for warning in warnings)


def test_nobody_needs_no_split():
    assert assign([], SPEC) == ({}, [])


@pytest.mark.parametrize("count", [EXACT_PATIENTS, EXACT_PATIENTS + 9])
def test_the_order_of_patients_does_not_matter_and_the_seed_does(count):
    patients = cohort(count)
    assert assign(patients, SPEC)[0] == assign(patients[::-1], SPEC)[0]
    others = [assign(patients, SplitsSpec(seed=seed))[0] for seed in range(2, 6)]
    assert any(other != assign(patients, SPEC)[0] for other in others)
