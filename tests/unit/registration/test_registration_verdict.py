import math

import numpy as np
import pytest
from registration_drawing import MPP, as_slides, draw_section, partner, turn

from hepipe.geometry import Transform, identity, scaling
from hepipe.registration.overview import read_pictures
from hepipe.registration.scale import scale_doubt
from hepipe.registration.score import Judge, Likeness, landmark_error, residual_summary
from hepipe.registration.similarity import correlation, mutual_information, structure_lead, within
from hepipe.registration.verdict import Evidence, judge_case, notes
from hepipe.specs.registration import ConsecutiveGateSpec, GateSpec, GatesSpec, RegistrationSpec

GATE = GateSpec(min_similarity=0.12, review_similarity=0.15, review_stiff=0.12, min_tissue_dice=0.4)


def evidence(similarity=0.5, dice=0.9, stiff=0.4, **known):
    return Evidence(Likeness(similarity, dice), stiff=stiff, **{"lead": 0.4, "stiff_lead": 0.3, **known})


@pytest.mark.parametrize(
    ("known", "accepted", "state"),
    [
        ({}, None, "ok"),
        ({}, "no", "failed"),
        ({"similarity": 0.05}, None, "failed"),
        ({"similarity": 0.05}, "yes", "failed"),
        ({"dice": 0.1}, None, "failed"),
        ({"similarity": 0.14}, None, "review"),
        ({"similarity": 0.14}, "yes", "ok"),
        ({"stiff": 0.1}, None, "review"),
        ({"stiff": 0.1}, "yes", "ok"),
        ({"stiff_lead": 0.01}, None, "failed"),
        ({"stiff_lead": 0.1}, None, "review"),
        ({"stiff_lead": math.nan, "lead": math.nan}, None, "ok"),
        ({"fold_frac": 0.01}, None, "review"),
        ({"unrefined": "skipped: less than 30% of the windows agree"}, None, "review"),
        ({"missing": "piece 3 of the H&E slide is not on the IHC slide"}, None, "review"),
        ({"leads": {"he1": 0.4, "he2": 0.3}}, None, "ok"),
        ({"leads": {"he1": 0.4, "he2": 0.02}}, None, "review"),
        ({"residuals": {"n": 9, "kept_frac": 0.9, "p50_um": 0.2, "p90_um": 0.6}}, None, "ok"),
        ({"residuals": {"n": 9, "kept_frac": 0.9, "p50_um": 0.2, "p90_um": 60.0}}, None, "review"),
        ({"residuals": {"n": 9, "kept_frac": 0.1, "p50_um": 0.2, "p90_um": 0.6}}, None, "review"),
        ({"residuals": {"n": 9, "kept_frac": 0.0, "p50_um": None, "p90_um": None}}, None, "review"),
    ],
)
def test_the_verdict_follows_the_evidence_and_a_persons_word(known, accepted, state):
    found = judge_case(evidence(**known), GATE, accepted=accepted)
    assert found.state == state
    assert state == "ok" or found.stage == "registration"


@pytest.mark.parametrize(
    ("p50", "p90", "state"), [(1.4, 4.9, "ok"), (2.0, 4.0, "review"), (1.0, 9.0, "review"), (4.0, 4.0, "failed")]
)
def test_landmarks_pass_are_looked_at_or_fail_by_how_far_off_they_are(p50, p90, state):
    found = judge_case(evidence(tre_um={"median": p50, "p90": p90}, px_um=0.25), GATE)
    assert found.state == state
    if state == "failed":
        assert "write landmarks into column start" in found.reason
    if state == "review":
        assert "write yes or no into column accepted" in found.reason


@pytest.mark.parametrize(
    "known",
    [{"similarity": 0.05}, {"stiff_lead": 0.01}, {"dice": 0.1}, {"tre_um": {"median": 90.0, "p90": 95.0}}],
)
def test_a_pair_that_follows_landmarks_is_not_sent_to_give_landmarks_but_to_look_at_those(known):
    without = judge_case(evidence(**known), GATE).reason
    few, enough = (judge_case(evidence(**known, followed=count), GATE).reason for count in (3, 6))
    assert "write landmarks into column start" in without
    assert "exchanged" not in without
    for reason, count in ((few, 3), (enough, 6)):
        assert "column start" not in reason
        assert f"the {count} landmarks that it follows" in reason
        assert "columns of H&E and IHC may be exchanged" in reason
        assert "`hepipe landmarks page`" in reason
    assert few.endswith("give at least 6, spread over the tissue")
    assert "give at least" not in enough


def test_no_slide_is_asked_for_less_than_people_can_click():
    off = {"median": 8.0, "p90": 25.0}
    assert judge_case(evidence(tre_um=off, px_um=1.5), GATE).state == "ok"
    assert judge_case(evidence(tre_um=off, px_um=0.5), GATE).state == "failed"


def test_windows_are_held_to_a_px_that_no_hand_could_click():
    off = {"n": 9, "kept_frac": 0.9, "p50_um": 2.0, "p90_um": 4.0}
    assert judge_case(evidence(residuals=off, px_um=2.2), GATE).state == "ok"
    assert judge_case(evidence(residuals=off, px_um=0.5), GATE).state == "review"


def test_the_next_section_has_limits_of_its_own_and_an_override_keeps_the_others():
    spec = RegistrationSpec.model_validate({"gate": {"consecutive": {"min_similarity": 0.1}}})
    assert spec.gate.consecutive.min_similarity == 0.1
    assert spec.gate.consecutive.max_p50_um == ConsecutiveGateSpec().max_p50_um > GatesSpec().restained.max_p50_um
    off = evidence(tre_um={"median": 8.0, "p90": 20.0})
    assert judge_case(off, spec.gate.consecutive).state == "ok"
    assert judge_case(off, spec.gate.restained).state == "failed"
    assert judge_case(evidence(unrefined="skipped"), spec.gate.consecutive).state == "ok"


def test_a_wrong_mpp_is_named_with_the_value_that_would_fit():
    assert scale_doubt(1.015, GATE, he_mpp=0.25, ihc_mpp=0.25) == ""
    assert scale_doubt(1.05, ConsecutiveGateSpec(), he_mpp=0.25, ihc_mpp=0.25) == ""
    assert scale_doubt(1.5, GATE, he_mpp=1.0, ihc_mpp=1.0, are_known=False) == ""
    # A warp makes some of the tissue smaller, a wrong mpp all of it.
    assert scale_doubt(0.9, GATE, he_mpp=0.25, ihc_mpp=0.25, local=(0.84, 0.99)) == ""
    assert scale_doubt(0.9, GATE, he_mpp=0.25, ihc_mpp=0.25, local=(0.88, 0.92)).startswith("mpp_ihc or mpp_he")
    doubt = scale_doubt(1.5, GATE, he_mpp=0.25, ihc_mpp=0.375)
    assert "1.50 times" in doubt
    assert "mpp_ihc 0.25 (in place of 0.375)" in doubt
    found = judge_case(evidence(scale_doubt=doubt), GATE)
    assert found.state == "review"
    assert found.reason.startswith("mpp_ihc or mpp_he is suspect")
    stranger = judge_case(evidence(similarity=0.05, scale_doubt=doubt), GATE)
    assert stranger.state == "failed"
    assert stranger.reason == doubt


def test_a_mirrored_slide_passes_with_a_note():
    assert "mirrored" in notes(mirrored=True)[0]
    assert notes(mirrored=False) == []


def test_structure_leads_in_its_place_and_not_between_strangers_of_one_outline(section):
    rng = np.random.default_rng(3)
    other = np.where(section > 0, rng.permutation(section[section > 0]).mean(), 0.0)
    other = other + (section > 0) * np.roll(draw_section(8), (9, 40), (0, 1)) * 0.5
    leads = {}
    for name, density in (("partner", section), ("stranger", other)):
        judge = Judge(read_pictures(*as_slides(section, density), max_px=512))
        leads[name] = judge.lead(identity(fixed_mpp=MPP, moving_mpp=MPP))
    assert leads["partner"] > 0.4
    assert leads["stranger"] < 0.15


def test_too_little_tissue_has_no_lead():
    empty = np.zeros((2, 64, 64), np.float32)
    assert math.isnan(structure_lead(empty, empty)[0])


def test_the_inner_tissue_leaves_out_the_edge_and_keeps_small_holes():
    mask = np.zeros((120, 120), bool)
    mask[20:100, 20:100] = True
    mask[58:62, 58:62] = False
    inner = within(mask)
    assert inner[60, 60]
    assert not inner[24, 60]
    assert inner[34:86, 34:86].all()


def test_mutual_information_agrees_with_its_formula():
    rng = np.random.default_rng(1)
    a = rng.normal(size=20_000).astype(np.float32)
    b = (a + rng.normal(size=20_000)).astype(np.float32)
    counts = np.histogram2d(a, b, bins=100)[0] / 20_000

    def entropy(p):
        return -sum(value * math.log(value) for value in p.ravel() if value > 0)

    expected = (entropy(counts.sum(axis=0)) + entropy(counts.sum(axis=1))) / entropy(counts)
    assert mutual_information(a, b) == pytest.approx(expected, rel=1e-6)
    assert mutual_information(a, a) == pytest.approx(2.0)
    assert mutual_information(a, rng.permutation(b)) < mutual_information(a, b)
    assert math.isnan(mutual_information(a[:9], b[:9]))


def test_correlation_of_a_constant_is_undefined():
    values = np.arange(1000, dtype=np.float32)
    assert correlation(values, -values) == pytest.approx(-1.0)
    assert math.isnan(correlation(values, np.ones(1000, np.float32)))


def test_what_the_pictures_share_grows_when_they_are_brought_together(section):
    moved, _ = partner(section, turn(25.0), warp_px=0.0)
    judge = Judge(read_pictures(*as_slides(section, moved), max_px=512))
    still = identity(fixed_mpp=MPP, moving_mpp=MPP)
    before, after = judge.shared(still), judge.shared(Transform(turn(25.0), MPP, MPP))
    assert after["ncc_od_lp"] > 0.9 > before["ncc_od_lp"]
    assert after["nmi"] > before["nmi"] + 0.02


def test_folds_are_counted_on_tissue_alone(section):
    judge = Judge(read_pictures(*as_slides(section, section), max_px=512))
    field = np.zeros((2, 56, 56))
    folded = Transform(np.eye(3), MPP, MPP, field, 16.0)
    assert judge.folds(folded) == {"jac_min": 1.0, "jac_max": 1.0, "fold_frac": 0.0}
    field[0, :, 1] = 40.0  # beyond the tissue, near the left edge
    assert judge.folds(folded)["fold_frac"] == 0.0
    field[0, :, 28] = 40.0
    found = judge.folds(folded)
    assert found["fold_frac"] > 0
    assert found["jac_min"] < 0 < 1 < found["jac_max"]
    assert judge.folds(Transform(scaling(1.1), MPP, MPP))["jac_min"] == pytest.approx(1.21)
    assert judge.local_sizes(Transform(scaling(1.1), MPP, MPP)) == pytest.approx((1.1, 1.1))
    stretched = np.zeros((2, 56, 56))
    stretched[0, :, 28:] = 16.0 * 0.21 * np.arange(28)  # the right half, in x
    assert judge.local_sizes(Transform(np.eye(3), MPP, MPP, stretched, 16.0)) == pytest.approx((1.0, 1.1))


def test_errors_of_landmarks_are_in_the_ihc_frame():
    he = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    ihc = 2 * he + [3.0, 4.0]
    found = landmark_error(Transform(scaling(2.0), 0.5, 0.25), he, ihc, ihc_size_px0=(300, 400))
    assert found["tre_um"] == {"median": 1.25, "mean": 1.25, "p90": 1.25, "max": 1.25}
    assert found["rtre"]["max"] == pytest.approx(5 / 500)
    assert found["robustness"] == 0.0  # as far as before is not closer
    nearer = Transform(scaling(2.0) + np.array([[0, 0, 3.0], [0, 0, 4.0], [0, 0, 0]]), 0.5, 0.25)
    assert landmark_error(nearer, he, ihc, ihc_size_px0=(300, 400))["robustness"] == 1.0


def test_residuals_are_those_of_the_finest_level_and_of_kept_windows():
    rows = np.array(
        [[0, 0, 9, 9, 0.9, 1, 2.0], [0, 0, 3, 4, 0.9, 1, 0.5], [0, 0, 0, 1, 0.9, 1, 0.5], [0, 0, 90, 90, 0.1, 0, 0.5]],
        np.float32,
    )
    found = residual_summary(rows)
    assert (found["n"], found["kept_frac"]) == (3, pytest.approx(2 / 3))
    assert found["p50_um"] == pytest.approx(3.0)
    assert residual_summary(None) is None
    assert residual_summary(rows[3:])["p50_um"] is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_size_of_a_section_is_found_under_turn_shear_and_bend(section, mirrored):
    judge = Judge(read_pictures(*as_slides(section, section), max_px=512))
    field = np.zeros((2, 56, 56))
    field[0] = 12 * np.sin(np.arange(56) / 4)[:, None]
    matrix = turn(70.0, scale=1.5, mirrored=mirrored, shift=(4.0, 9.0))
    assert judge.size(Transform(matrix, MPP, MPP, field, 16.0)) == pytest.approx(1.5, abs=0.02)
    # The same matrix in px says twice the length when the IHC slide's px are twice as large.
    assert judge.size(Transform(matrix, MPP, 2 * MPP)) == pytest.approx(3.0, abs=1e-6)
