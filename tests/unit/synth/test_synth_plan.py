import itertools

import pytest

from hepipe.config import synth_rows
from hepipe.errors import ConfigError
from hepipe.sheet import SCORES
from hepipe.specs.synth import SynthSpec
from hepipe.synth.plan import KINDS, plan_case

SPEC = SynthSpec()
PLANS = [plan_case(SPEC, number) for number in range(1, 13)]


def test_scores_come_in_turn_and_agree_with_the_sheet(tmp_path):
    rows = list(synth_rows(SPEC, tmp_path))
    assert [plan.biology.score for plan in PLANS] == [*SCORES] * 3 == [row.her2_score for row in rows]


def test_a_further_patient_changes_no_other():
    assert repr(plan_case(SynthSpec(patients=40, pairs=3), 5)) == repr(PLANS[4])


def test_another_seed_is_another_cohort():
    assert plan_case(SynthSpec(seed=2), 5).biology != PLANS[4].biology


def test_every_kind_of_artifact_is_planted_in_twelve_cases_from_faint_to_gross():
    planted = [artifact for plan in PLANS for artifact in plan.artifacts]
    assert {artifact.kind for artifact in planted} == set(KINDS)
    assert {artifact.stain for artifact in planted} == {"he", "ihc"}
    severities = [artifact.severity for artifact in planted]
    assert min(severities) < 0.15
    assert max(severities) > 0.85
    assert any(not plan.artifacts for plan in PLANS)


def test_artifacts_can_be_left_out():
    assert plan_case(SynthSpec(artifacts=False), 1).artifacts == ()


def test_the_cohort_has_flips_turns_in_situ_foci_controls_and_several_pieces():
    assert {plan.placement.flip for plan in PLANS} == {True, False}
    turns = {round(plan.placement.degrees / 90) % 4 for plan in PLANS}
    assert {0, 1, 2} <= turns
    assert any(plan.biology.in_situ for plan in PLANS)
    assert any(plan.control for plan in PLANS)
    assert any(plan.biology.pieces > 1 for plan in PLANS)


def test_membranes_get_stronger_with_the_score():
    by_score = {score: [p.biology.strength_od for p in PLANS if p.biology.score == score] for score in SCORES}
    for weaker, stronger in itertools.pairwise(SCORES):
        assert max(by_score[weaker]) < min(by_score[stronger])


def test_case_0_is_refused():
    with pytest.raises(ConfigError, match="case 0 asked for; the first is 1"):
        plan_case(SPEC, 0)
