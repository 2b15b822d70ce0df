import math

import numpy as np
import pytest

from hepipe.evaluation import statistics as st
from hepipe.metrics import dab


@pytest.fixture
def tiles():
    rng = np.random.default_rng(4)
    patients = [f"P{n:02d}" for n in rng.integers(0, 12, 200)]
    effect = {name: rng.normal(0, 1) for name in sorted(set(patients))}
    x = np.array([effect[name] + rng.normal(0, 0.3) for name in patients])
    return x, 0.8 * x + rng.normal(0, 0.2, 200) + 0.1, patients


def test_means_over_tiles_and_over_patients(tiles):
    x, _, patients = tiles
    found = st.summarize(x, patients, draws=200)
    by_patient = [np.mean([v for v, p in zip(x, patients, strict=True) if p == name]) for name in sorted(set(patients))]
    assert found.mean == pytest.approx(x.mean())
    assert found.sd == pytest.approx(x.std(ddof=1))
    assert found.case_mean == pytest.approx(np.mean(by_patient))
    assert (found.n_tiles, found.n_left_out, found.n_patients, found.note) == (200, 0, 12, "")


def test_the_interval_over_patients_is_wider_than_one_over_tiles(tiles):
    x, _, patients = tiles
    over_patients = st.summarize(x, patients, draws=1000)
    over_tiles = st.summarize(x, [str(n) for n in range(len(x))], draws=1000)
    assert over_patients.high - over_patients.low > 2 * (over_tiles.high - over_tiles.low)


def test_the_draws_are_seeded_and_the_order_of_tiles_does_not_matter(tiles):
    x, _, patients = tiles
    back = st.summarize(x[::-1], patients[::-1], draws=300)
    there = st.summarize(x, patients, draws=300)
    assert (back.low, back.high, back.case_low) == pytest.approx((there.low, there.high, there.case_low), abs=1e-12)


def test_undefined_and_infinite_values_are_left_out_and_counted():
    found = st.summarize([1.0, math.nan, math.inf, 3.0], ["a", "a", "b", "b"], draws=100)
    assert (found.mean, found.n_tiles, found.n_left_out) == (2.0, 2, 2)


def test_few_patients_are_said():
    assert st.summarize([1.0, 2.0, 3.0], ["a", "b", "c"], draws=100).note == "few cases (3): interval unreliable"


@pytest.mark.parametrize(("patients", "note"), [([None, None], st.UNKNOWN), (["a", "a"], st.ONE)])
def test_without_several_patients_there_is_no_interval(patients, note):
    found = st.summarize([1.0, 2.0], patients, draws=100)
    assert found.note == note
    assert found.mean == 1.5
    assert math.isnan(found.low)


def test_no_value_at_all_is_no_mean():
    found = st.summarize([math.nan], ["a"], draws=100)
    assert math.isnan(found.mean)
    assert found.n_left_out == 1


@pytest.mark.parametrize(
    ("of_sums", "of_values"), [(st.concordance_of_sums, dab.concordance), (st.pearson_of_sums, dab.pearson)]
)
def test_statistics_of_sums_equal_those_of_values(tiles, of_sums, of_values):
    x, y, _ = tiles
    sums = np.array([[len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]])
    assert of_sums(sums)[0] == pytest.approx(of_values(x, y))


def test_an_interval_of_the_concordance_holds_it(tiles):
    x, y, patients = tiles
    found = st.moments_interval(x, y, patients, statistic=st.concordance_of_sums, draws=500)
    assert found.low < dab.concordance(x, y) < found.high
    assert st.moments_interval(x, y, [None] * 200, statistic=st.concordance_of_sums, draws=500).note == st.UNKNOWN


def test_relative_error_of_sums():
    assert st.relative_error_of_sums(np.array([[2.0, 3.0, 2.0, 0.0, 0.0, 0.0]])).tolist() == [0.5]


def test_five_patients_cannot_reach_five_percent():
    patients = ["a", "b", "c", "d", "e"]
    found = st.compare([2.0, 3.0, 4.0, 5.0, 6.5], [1.0, 1.5, 2.0, 2.5, 3.0], patients, draws=200)
    assert found.p_wilcoxon == found.smallest_p == 0.0625
    assert found.difference == pytest.approx(2.1)
    assert found.low > 0


def test_equal_runs_do_not_differ():
    found = st.compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], ["a", "b", "c"], draws=100)
    assert (found.difference, found.p_wilcoxon) == (0, 1)


def test_holm_multiplies_the_smallest_most_and_never_descends():
    assert st.holm([0.04, 0.01, math.nan, 0.03])[:2] == [0.06, 0.03]
    assert st.holm([0.04, 0.01, math.nan, 0.03])[3] == 0.06
    assert math.isnan(st.holm([math.nan])[0])
