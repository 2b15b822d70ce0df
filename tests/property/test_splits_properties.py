from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.dataset.splits import SPLITS, Patient, _every, _Goal, _improved, assign
from hepipe.sheet import SCORES
from hepipe.specs.dataset import SplitsSpec

scores = st.frozensets(st.sampled_from(SCORES), max_size=2)
fixed = st.one_of(st.none(), st.none(), st.none(), st.sampled_from(SPLITS))
cohorts = st.lists(st.tuples(st.integers(1, 300), scores, fixed), min_size=1, max_size=16)


@given(cohorts, st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_each_patient_has_one_split_and_fixed_ones_stay(cohort, seed):
    patients = [Patient(f"p{n}", *values) for n, values in enumerate(cohort)]
    chosen, _ = assign(patients, SplitsSpec(seed=seed))
    assert chosen.keys() == {patient.patient_id for patient in patients}
    assert all(patient.fixed in (None, chosen[patient.patient_id]) for patient in patients)


@given(st.lists(st.tuples(st.integers(1, 300), scores), min_size=3, max_size=7))
@settings(max_examples=30, deadline=None)
def test_the_search_for_many_patients_leaves_no_more_gaps_than_the_exact_one(cohort):
    import numpy as np

    patients = [Patient(f"p{n}", *values) for n, values in enumerate(cohort)]
    goal = _Goal(patients, SplitsSpec(), [0, 1, 2])
    start = np.zeros(len(patients), np.int8)
    free = list(range(len(patients)))
    exact, near = (goal(search(goal, start, free, [0, 1, 2])[None]) for search in (_every, _improved))
    assert near[0][0] >= exact[0][0]
    assert near[0][0] <= exact[0][0] + 1
