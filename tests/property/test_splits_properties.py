"""Random cohorts: never a leak, scores covered as far as can be, shares and DAB as near as can be."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepipe.dataset.bounds import TOLERANCE, cover, nearest_shares
from hepipe.dataset.partition import WINDOW, Problem, divide, valued
from hepipe.dataset.splits import SPLITS, Patient, assign
from hepipe.sheet import SCORES
from hepipe.specs.dataset import SplitsSpec

scores = st.frozensets(st.sampled_from(SCORES), max_size=3)
fixed = st.one_of(st.none(), st.none(), st.none(), st.sampled_from(SPLITS))
dab = st.one_of(st.none(), st.integers(0, 100).map(lambda percent: percent / 100))
sizes = st.one_of(st.integers(1, 300), st.integers(95, 105), st.sampled_from([1, 2, 50, 4000]))
people = st.tuples(sizes, scores, fixed, dab)
specs = st.builds(
    SplitsSpec,
    seed=st.integers(0, 5),
    shares=st.sampled_from(
        [
            {"train": 0.6, "val": 0.2, "test": 0.2},
            {"train": 0.5, "val": 0.25, "test": 0.25},
            {"train": 0.8, "val": 0.0, "test": 0.2},
        ]
    ),
)


def fixable(patients, spec):
    """Without the splits that have no share."""
    return [
        Patient(p.patient_id, p.tiles, p.scores, p.fixed if p.fixed and spec.shares[p.fixed] > 0 else None, p.dab)
        for p in patients
    ]


def cohort(values):
    return [Patient(f"p{number}", *one) for number, one in enumerate(values)]


def holds_what_it_promises(patients, spec):
    division = assign(patients, spec)
    assert division.splits.keys() == {patient.patient_id for patient in patients}
    assert all(patient.fixed in (None, division.splits[patient.patient_id]) for patient in patients)
    names = [name for name in SPLITS if spec.shares[name] > 0]
    missing = 0
    for score, name in itertools.product(SCORES, names):
        holders = [patient for patient in patients if score in patient.scores]
        missing += bool(holders) and not any(division.splits[p.patient_id] == name for p in holders)
    proof = division.proof
    assert proof.missing == missing == proof.missing_bound
    total = sum(patient.tiles for patient in patients)
    for name in names:
        own = sum(patient.tiles for patient in patients if division.splits[patient.patient_id] == name)
        assert proof.shares[name] == own / total
    within = max(abs(proof.shares[name] - spec.shares[name]) for name in names) <= WINDOW + 1e-9
    assert within or proof.distance <= proof.distance_bound + TOLERANCE
    if len(patients) <= 12:
        assert assign(patients[::-1], spec).splits == division.splits


@given(st.lists(people, min_size=1, max_size=30), specs)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_patient_leaks_and_what_is_said_of_the_division_holds(values, spec):
    holds_what_it_promises(fixable(cohort(values), spec), spec)


@pytest.mark.long
@given(st.lists(people, min_size=1, max_size=60), specs)
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_patient_of_a_thousand_cohorts_leaks(values, spec):
    holds_what_it_promises(fixable(cohort(values), spec), spec)


def brute(patients, wanted):
    """The best value of every division, told anew in plain loops: missing, gap beyond the window, DAB, distance."""
    total = sum(patient.tiles for patient in patients)
    mean = sum(patient.tiles * patient.dab for patient in patients) / total
    best = None
    for groups in itertools.product(range(len(wanted)), repeat=len(patients)):
        if any(p.fixed is not None and SPLITS.index(p.fixed) != g for p, g in zip(patients, groups, strict=True)):
            continue
        missing = sum(
            any(score in p.scores for p in patients)
            and not any(score in p.scores and g == number for p, g in zip(patients, groups, strict=True))
            for score in SCORES
            for number in range(len(wanted))
        )
        tiles = [sum(p.tiles for p, g in zip(patients, groups, strict=True) if g == n) for n in range(len(wanted))]
        brown = [
            sum(p.tiles * p.dab for p, g in zip(patients, groups, strict=True) if g == n) for n in range(len(wanted))
        ]
        gaps = [count / total - share for count, share in zip(tiles, wanted, strict=True)]
        distance = sum(gap**2 for gap in gaps) ** 0.5
        apart = max(abs(b / count - mean) if count else 0 for b, count in zip(brown, tiles, strict=True))
        beyond = 0 if max(map(abs, gaps)) <= WINDOW + 1e-12 else distance
        value = (missing, round(beyond, 9), round(apart, 4), round(distance, 9))
        best = value if best is None or value < best else best
    return best


@given(
    st.lists(st.tuples(sizes, scores, fixed, st.integers(0, 100).map(lambda d: d / 100)), min_size=1, max_size=6),
    st.sampled_from([(0.6, 0.2, 0.2), (0.4, 0.3, 0.3)]),
)
@settings(max_examples=40, deadline=None)
def test_for_few_cases_nothing_is_better_than_the_answer(values, wanted):
    patients = cohort(values)
    spec = SplitsSpec(shares=dict(zip(SPLITS, wanted, strict=True)))
    proof = assign(patients, spec).proof
    missing, beyond, apart, distance = brute(patients, wanted)
    assert proof.missing == missing
    own_beyond = 0 if max(abs(proof.shares[n] - spec.shares[n]) for n in SPLITS) <= WINDOW + 1e-12 else proof.distance
    assert own_beyond == pytest.approx(beyond, abs=2e-9)
    assert proof.dab_gap == pytest.approx(apart, abs=1.01e-4)
    if apart == proof.dab_gap:
        assert proof.distance <= distance + 2e-9


@given(st.lists(st.integers(1, 15), min_size=2, max_size=7), st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_coverage_is_as_good_as_the_best_of_all_divisions(masks, groups):
    masks = np.array(masks, np.uint8)
    n = len(masks)
    problem = Problem(
        np.ones(n, np.int64), np.zeros(n, np.int64), masks, np.full(groups, 1 / groups), np.full(n, -1), 4
    )
    found = cover(problem)
    best = min(
        sum(
            not any(masks[i] >> bit & 1 for i in range(n) if division[i] == number)
            for bit in range(4)
            if (masks >> bit & 1).any()
            for number in range(groups)
        )
        for division in itertools.product(range(groups), repeat=n)
    )
    assert found.missing == found.bound == best
    assert valued(problem, found.groups).missing == best


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 15)), min_size=3, max_size=8), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_the_bound_is_below_the_best_and_folds_that_only_swap_are_looked_at_once(values, groups):
    tiles, masks = (np.array(column) for column in zip(*values, strict=True))
    n = len(tiles)
    problem = Problem(
        tiles.astype(np.int64),
        np.zeros(n, np.int64),
        masks.astype(np.uint8),
        np.full(groups, 1 / groups),
        np.full(n, -1),
        4,
    )
    alike = divide(problem, cover(problem).groups, seed=0)
    uneven = Problem(problem.tiles, problem.dab, problem.scores, problem.wanted * [1 + 1e-15, *[1] * (groups - 1)],
                     problem.fixed, 4)  # fmt: skip
    every = divide(uneven, cover(problem).groups, seed=0)
    assert problem.alike
    assert alike.nodes <= every.nodes
    assert alike.value.missing == every.value.missing
    assert alike.value.distance == pytest.approx(every.value.distance, abs=1e-9)
    near = nearest_shares(problem, missing=alike.value.missing, known=alike.value.distance)
    assert near.bound <= alike.value.distance + 1e-12
    worse = nearest_shares(problem, missing=alike.value.missing, known=alike.value.distance + 0.2)
    if worse.groups is not None:
        assert valued(problem, worse.groups).missing <= alike.value.missing
        assert worse.bound <= alike.value.distance + 1e-12


@given(
    st.lists(sizes, min_size=8, max_size=12), st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33)])
)
@settings(max_examples=15, deadline=None)
def test_tile_shares_of_up_to_twelve_cases_are_the_nearest_that_there_are(tiles, wanted):
    patients = [Patient(f"p{number}", count, frozenset()) for number, count in enumerate(tiles)]
    proof = assign(patients, SplitsSpec(shares=dict(zip(SPLITS, wanted, strict=True)))).proof
    every = np.array(list(itertools.product(range(3), repeat=len(tiles))), np.int8)
    shares = np.stack([(every == number) @ np.array(tiles) for number in range(3)], 1) / sum(tiles)
    nearest = np.sqrt(((shares - wanted) ** 2).sum(1)).min()
    assert proof.distance == pytest.approx(nearest, abs=1e-9)
    assert proof.method == "every division"


@given(st.integers(0, 10_000), st.sampled_from([60, 250, 1000]), st.sampled_from(["even", "heavy"]))
@settings(max_examples=3, deadline=None)
def test_large_cohorts_come_within_a_thousandth_of_the_bound(seed, count, kind):
    random = np.random.default_rng(seed)
    tiles = random.integers(1, 300, count) if kind == "even" else np.maximum(1, random.pareto(1.0, count) * 100)
    held = random.integers(0, 4, count)
    patients = [Patient(f"p{n}", int(tiles[n]), frozenset({SCORES[int(held[n])]})) for n in range(count)]
    proof = assign(patients, SplitsSpec()).proof
    assert proof.missing == 0
    assert proof.distance <= proof.distance_bound + TOLERANCE
