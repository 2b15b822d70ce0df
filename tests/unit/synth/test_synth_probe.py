import numpy as np
import pytest

from hepipe.specs.synth import SynthSpec
from hepipe.synth.probe import hold_out, probe


def tiles(rng, spread):
    """Twelve patients of ten tiles each; the first feature follows the score."""
    patients = np.repeat(np.arange(12), 10)
    scores = patients % 4
    features = rng.normal(0, 1, (120, 3))
    features[:, 0] = scores + rng.normal(0, spread, 120)
    return features, scores, patients


def test_a_feature_that_is_the_score_is_found():
    found = hold_out(*tiles(np.random.default_rng(0), 0.05))
    assert found.accuracy > 0.97
    assert found.confusion.sum() == found.n_tiles == 120


def test_noise_gives_chance():
    features, scores, patients = tiles(np.random.default_rng(0), 0.05)
    features[:, 0] = np.random.default_rng(1).normal(0, 1, 120)
    assert hold_out(features, scores, patients).accuracy < 0.45


def test_a_patient_is_not_recognised_by_its_own_tiles():
    """A feature that names the patient helps nobody who is held out."""
    _, scores, patients = tiles(np.random.default_rng(0), 0.05)
    features = np.random.default_rng(2).normal(0, 1, (12, 6))[patients]
    assert hold_out(features, scores, patients).case_accuracy < 0.6


def test_the_default_cohort_shows_its_score_without_giving_it_away():
    found = probe(SynthSpec(side_um=600))
    assert found.accuracy == pytest.approx(0.82, abs=0.1)
    assert found.within_one > 0.97
    off_by_one = found.n_tiles - np.trace(found.confusion)
    assert off_by_one > 5
