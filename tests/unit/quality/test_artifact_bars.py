"""The benchmark of the filters counts what it says it counts."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))


def test_the_severity_that_is_found_half_of_the_time_lies_where_finding_begins():
    from artifactbars.figures import by_severity, half_found

    severity = np.linspace(0.02, 0.98, 25)
    assert half_found(severity, severity > 0.4) == pytest.approx(0.4, abs=0.03)
    assert half_found(severity, severity > 2) == np.inf
    assert half_found(severity, severity > 0) == -np.inf
    assert by_severity([0.1, 0.5, 0.9], [False, True, True]) == [
        "0.00 of 1", "1.00 of 1", "1.00 of 1", "1.00 of 2", f"{half_found([0.1, 0.5, 0.9], [False, True, True]):.2f}"
    ]  # fmt: skip


def test_plants_spread_over_kinds_stains_and_severities():
    from artifactbars.planted import KINDS, plan

    planned = [plan(number, restained=True) for number in range(240)]
    assert {kind for kind, _, _ in planned} == set(KINDS)
    for kind in KINDS:
        for stain in {s for k, s, _ in planned if k == kind}:
            severities = sorted(s for k, st, s in planned if (k, st) == (kind, stain))
            assert np.histogram(severities, 3, (0, 1))[0].min() >= 5
    assert "residual" not in {plan(number, restained=False)[0] for number in range(240)}


def test_a_moved_transform_is_off_by_the_shift_given():
    from artifactbars.drawn import moved

    from hepipe.geometry import identity

    still = identity(fixed_mpp=0.5, moving_mpp=0.25)
    points = np.array([[10.0, 20.0], [300.0, 5.0]])
    off = (moved(still, (12.0, -5.0))(points) - still(points)) * 0.25
    np.testing.assert_allclose(off, [[12.0, -5.0]] * 2)
