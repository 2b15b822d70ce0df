"""Two readers: Cohen's kappa against worked numbers, and what they decide together."""

import math

import numpy as np
import pytest

from hepipe.dataset.agreement import agreement, cohen_kappa, describe, disagreements, disagreements_text, merged
from hepipe.dataset.decisions import Decision, read_decisions, write_decisions


def test_kappa_is_that_of_the_worked_example_of_fleiss_cohen_and_everitt():
    # Psychol. Bull. 72, 1969, table 1, n = 200: unweighted kappa 0.429, its variance 0.002885.
    table = np.array([[106, 10, 4], [22, 28, 10], [2, 12, 6]])
    kappa, error = cohen_kappa(table)
    assert kappa == pytest.approx(0.429, abs=5e-4)
    assert error**2 == pytest.approx(0.002885, abs=5e-6)


def test_kappa_knows_perfect_chance_and_opposite_readers():
    assert cohen_kappa(np.array([[30, 0], [0, 20]])) == pytest.approx((1.0, 0.0))
    assert cohen_kappa(np.array([[24, 36], [16, 24]]))[0] == pytest.approx(0.0, abs=1e-12)
    assert cohen_kappa(np.array([[0, 25], [25, 0]]))[0] == pytest.approx(-1.0)
    assert all(math.isnan(value) for value in cohen_kappa(np.array([[50, 0], [0, 0]])))
    assert math.isnan(cohen_kappa(np.zeros((2, 2), int))[0])
    # Without a single drop of one reader there is nothing to tell how sure a kappa of 0 is.
    assert cohen_kappa(np.array([[20, 5], [0, 0]]))[0] == 0
    assert math.isnan(cohen_kappa(np.array([[20, 5], [0, 0]]))[1])


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    truth = np.array([[0.55, 0.1], [0.07, 0.28]])
    wanted = cohen_kappa(np.round(truth * 10_000).astype(int))[0]
    inside = 0
    for _ in range(600):
        kappa, error = cohen_kappa(rng.multinomial(300, truth.ravel()).reshape(2, 2))
        inside += abs(kappa - wanted) <= 1.96 * error
    assert 0.92 <= inside / 600 <= 0.98


def reader(folder, name, said):
    """A file of decisions by tile: k, d, or a reason."""
    rows = [
        Decision(f"{number:032x}", tile, "keep" if word == "k" else "drop", "" if word in "kd" else word, name)
        for number, (tile, word) in enumerate(said.items())
        if word
    ]
    write_decisions(folder / f"{name}.csv", rows)
    return read_decisions(folder / f"{name}.csv")


@pytest.fixture
def readers(tmp_path):
    a = reader(tmp_path, "ann", {"c/0": "k", "c/1": "k", "c/2": "pen", "c/3": "d", "c/4": "k", "c/5": ""})
    b = reader(tmp_path, "bob", {"c/0": "k", "c/1": "d", "c/2": "fold", "c/3": "k", "c/4": "", "c/5": "fold"})
    return a, b


def test_the_table_counts_what_both_decided(readers):
    found = agreement(readers[0].decisions, readers[1].decisions)
    assert found.table.tolist() == [[1, 1], [1, 1]]
    assert (found.only_a, found.only_b, found.n_both, found.observed, found.kappa) == (1, 1, 4, 0.5, 0)
    assert found.by_case is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("either", {"c/0": "keep", "c/1": "drop", "c/2": "drop", "c/3": "drop", "c/4": "keep", "c/5": "drop"}),
        ("agreed", {"c/0": "keep", "c/2": "drop"}),
        ("first", {"c/0": "keep", "c/1": "keep", "c/2": "drop", "c/3": "drop", "c/4": "keep", "c/5": "drop"}),
    ],
)
def test_readers_are_merged_by_the_rule_and_named(readers, rule, expected, tmp_path):
    rows = merged(*readers, rule)
    assert {one.tile_id: one.decision for one in rows} == expected
    names = {one.tile_id: one.reader for one in rows}
    assert names["c/0"] == "ann+bob"
    assert rule == "agreed" or names["c/3"] == "ann"
    write_decisions(tmp_path / "m.csv", rows)
    assert len(read_decisions(tmp_path / "m.csv")) == len(rows)


def test_disagreements_are_listed_with_both_words(readers):
    assert disagreements_text(disagreements(*readers)).splitlines() == [
        "content_id,tile_id,decision_a,reason_a,decision_b,reason_b",
        f"{1:032x},c/1,keep,,drop,",
        f"{3:032x},c/3,drop,,keep,",
    ]


def test_cases_that_readers_see_differently_widen_the_interval(tmp_path):
    alike = {f"c{n // 20}/{n}": "kd"[n % 2] for n in range(200)}
    # In one case of ten the second reader says the opposite; spread over all cases the same number says less.
    one_case = {tile: ("dk"["kd".index(word)] if tile.startswith("c3/") else word) for tile, word in alike.items()}
    spread = {tile: ("dk"["kd".index(word)] if n % 10 == 3 else word) for n, (tile, word) in enumerate(alike.items())}
    a = reader(tmp_path, "ann", alike)
    found = [agreement(a.decisions, reader(tmp_path, "bob", one).decisions) for one in (one_case, spread)]
    widths = [one.by_case[1] - one.by_case[0] for one in found]
    assert found[0].kappa == pytest.approx(found[1].kappa, abs=0.02) == pytest.approx(0.8, abs=0.02)
    assert widths[0] > 2 * widths[1]
    assert found[0].n_cases == 10


def test_splits_of_an_imported_set_are_not_taken_for_cases(tmp_path):
    said = {f"{split}/{n}": "kd"[n % 2] for split in ("train", "val", "test") for n in range(4)}
    a, b = (reader(tmp_path, name, said) for name in ("ann", "bob"))
    found = agreement(a.decisions, b.decisions)
    assert (found.n_both, found.n_cases, found.by_case) == (12, 0, None)
    assert describe(a, b, found)[-1] == "no interval by case: tile ids of imported sets do not name their cases"


def test_cases_count_in_the_order_of_the_file_in_every_run(tmp_path, monkeypatch):
    said = {f"c{case}/{n}": "kd"[n % 2] for case in range(12) for n in range(case + 1)}
    a, b = (reader(tmp_path, name, said) for name in ("ann", "bob"))
    seen = []
    monkeypatch.setattr("hepipe.dataset.agreement._by_case", lambda _, __, cases: seen.extend(cases))
    agreement(a.decisions, b.decisions)
    assert [int(table.sum()) for table in seen] == list(range(1, 13))


def test_what_is_printed_says_what_to_report(readers, tmp_path):
    lines = describe(*readers, agreement(readers[0].decisions, readers[1].decisions))
    assert lines[0] == "pairs decided by both 4, by ann alone 1, by bob alone 1"
    assert lines[2].split() == ["ann", "keep", "1", "1"]
    assert "Cohen's kappa 0.000, 95 % interval" in lines[5]
    assert lines[6] == "no interval by case: 1 cases are too few or all alike"
    stranger = reader(tmp_path, "eve", {})
    assert (
        describe(readers[0], stranger, agreement(readers[0].decisions, {}))[1] == "one of the files holds no decision"
    )
    alike = reader(tmp_path, "one", {"c/0": "k", "c/1": "k"})
    assert "undefined" in describe(alike, alike, agreement(alike.decisions, alike.decisions))[-1]
