import importlib.util

import cv2
import numpy as np
import pytest
from registration_drawing import MPP, as_slides, draw_section, partner, turn

from hepipe.errors import ConfigError, RegistrationError
from hepipe.geometry import Transform, scaling
from hepipe.registration import register as module
from hepipe.registration.landmarks import Landmarks
from hepipe.registration.refine import Refinement
from hepipe.registration.register import register
from hepipe.slides.picture import ArraySlide
from hepipe.specs.registration import ChainsSpec, GateSpec, GatesSpec, RegistrationSpec, SearchSpec
from hepipe.stores.arrays import transform_digest

QUICK = RegistrationSpec(chain=("search", "affine", "elastic"), search=SearchSpec(rotation_step_deg=20.0, flips=False))
"""Coarser than the default, which has one test of its own."""


def error_px(found, truth, points):
    return np.linalg.norm(found(points) - truth(points), axis=1)


def test_a_turned_shifted_and_warped_section_is_found_again(section, tissue_points):
    moved, truth = partner(section, turn(137.0, shift=(9.0, -6.0), scale=1.02), warp_px=4.0)
    result = register(*as_slides(section, moved), RegistrationSpec(), case_id="case")
    assert result.status.state == "ok"
    errors = error_px(result.ihc_from_he, truth, tissue_points)
    assert np.median(errors) < 0.7
    assert np.percentile(errors, 90) < 1.6
    assert not result.summary["mirrored"]
    back = result.he_from_ihc(result.ihc_from_he(tissue_points))
    np.testing.assert_allclose(back, tissue_points, atol=0.2)


def test_a_mirrored_section_is_found_unless_flips_are_off(section, tissue_points):
    moved, truth = partner(section, turn(-40.0, mirrored=True), warp_px=0.0)
    slides = as_slides(section, moved)
    result = register(*slides, RegistrationSpec(chain=("search", "affine")), case_id="case")
    assert result.summary["mirrored"]
    assert np.median(error_px(result.ihc_from_he, truth, tissue_points)) < 0.6
    without = register(
        *slides, RegistrationSpec(chain=("search", "affine"), search=SearchSpec(flips=False)), case_id="case"
    )
    assert without.summary["similarity"] < result.summary["similarity"] - 0.2


def test_the_same_slides_give_the_same_numbers(section):
    moved, _ = partner(section, turn(20.0), warp_px=3.0)
    one, two = (register(*as_slides(section, moved), QUICK, case_id="case") for _ in range(2))
    assert transform_digest(one.ihc_from_he) == transform_digest(two.ihc_from_he)
    assert one.summary == two.summary


def test_slides_that_do_not_belong_together_fail_where_the_true_pair_passes(section):
    # Drawn spots of one size are more alike than tissue is: the limit is higher than on slides.
    strict = QUICK.model_copy(update={"gate": GatesSpec(restained=GateSpec(min_similarity=0.45))})
    moved, _ = partner(section, turn(60.0), warp_px=2.0)
    assert register(*as_slides(section, moved), strict, case_id="case").status.state == "ok"
    result = register(*as_slides(section, draw_section(77)), strict, case_id="case")
    assert result.status.state == "failed"
    assert "do not seem to belong together" in result.status.reason
    assert result.ihc_from_he is None
    assert result.summary["chain"]


def test_a_step_that_makes_it_worse_is_dropped_and_named(section, monkeypatch):
    moved, _ = partner(section, turn(0.0, shift=(3.0, 2.0)), warp_px=0.0)

    def astray(fixed, moving, start, **_):
        return Transform(np.array([[1.0, 0.0, 25.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), MPP, MPP)

    monkeypatch.setattr(module, "refine_elastic", astray)
    result = register(*as_slides(section, moved), QUICK, case_id="case")
    last = result.summary["chain"][-1]
    assert (last["step"], last["kept"]) == ("elastic", False)
    assert "similarity fell" in last["note"]
    assert last["score_after"] < last["score_before"]
    assert result.summary["similarity"] == last["score_before"]


def test_a_step_that_triples_the_section_is_dropped_as_implausible(section, monkeypatch):
    monkeypatch.setattr(module, "refine_affine", lambda fixed, moving, start, **_: scaling(3.0))
    result = register(*as_slides(section, section), RegistrationSpec(chain=("affine",)), case_id="case")
    assert result.summary["chain"][0]["note"].startswith("dropped: it scales by 3.00")
    assert result.summary["similarity"] == result.summary["similarity_before"]


@pytest.mark.parametrize(("after", "stands"), [("elastic", False), ("identity", True)])
def test_what_windows_saw_of_a_field_is_not_said_of_a_later_one(section, monkeypatch, after, stands):
    moved, _ = partner(section, turn(0.0, shift=(3.0, 2.0)), warp_px=2.0)

    def seen(he, ihc, start, spec, **_):
        summary = {"levels": [{}], "skipped": ""}
        return Refinement(start, np.zeros((4, 7), np.float32), np.ones((3, 3), np.uint8), summary)

    monkeypatch.setattr(module, "refine_windows", seen)
    spec = QUICK.model_copy(update={"chain": ChainsSpec(restained=("search", "affine", "refine", after))})
    result = register(*as_slides(section, moved), spec, case_id="case")
    assert [step["kept"] for step in result.summary["chain"][-2:]] == [True, True]
    assert ("trust" in result.evidence) is stands
    assert (result.summary["residuals"] is not None) is stands


@pytest.mark.parametrize("turned_deg", [0, 120])
def test_a_piece_that_turned_on_its_own_is_named(turned_deg):
    pieces = [np.pad(draw_section(seed, side=160), ((0, 0), (20, 20))) for seed in (5, 8)]
    apart = [turn(turned_deg, side=200) @ turn(0.0, side=200, shift=(0, 20)), np.eye(3)]
    lying = [
        cv2.warpAffine(piece, place[:2], (200, 200)) if turned_deg else np.pad(piece, ((0, 40), (0, 0)))
        for piece, place in zip(pieces, apart, strict=True)
    ]
    he = np.vstack([np.pad(piece, ((0, 40), (0, 0))) for piece in pieces])
    result = register(*as_slides(he, np.vstack(lying)), QUICK, case_id="case")
    named = "he1 of the H&E slide may have moved apart" in result.status.reason
    other = "he2 of the H&E slide may have moved apart" in result.status.reason
    assert (named or other) is bool(turned_deg), (result.status.reason, result.summary["pieces"])


def test_landmarks_are_measured_before_and_after(section, tissue_points):
    moved, truth = partner(section, turn(8.0), warp_px=2.0)
    points = Landmarks(tissue_points, truth(tissue_points))
    result = register(*as_slides(section, moved), QUICK, case_id="case", landmarks=points)
    error = result.summary["landmarks"]
    assert error["n"] == len(tissue_points)
    assert error["tre_um"]["median"] < 0.25 * error["tre_before_um"]["median"]
    diagonal = np.hypot(224, 224) * MPP
    assert error["rtre"]["median"] == pytest.approx(error["tre_um"]["median"] / diagonal)
    assert error["robustness"] == 1.0


def test_resolutions_of_the_slides_may_differ(section, tissue_points):
    moved, truth = partner(section, turn(30.0), warp_px=0.0)
    he, _ = as_slides(section, moved)
    half = moved.reshape(112, 2, 112, 2).mean(axis=(1, 3))
    ihc = ArraySlide(as_slides(half, half)[1]._array, mpp=2 * MPP, slide_id="case-ihc")
    result = register(
        he,
        ihc,
        RegistrationSpec(chain=("search", "affine"), search=SearchSpec(rotation_step_deg=15.0, flips=False)),
        case_id="case",
    )
    errors = error_px(result.ihc_from_he, lambda points: truth(points) / 2, tissue_points)
    assert np.median(errors) < 0.5
    assert result.summary["scale"] == pytest.approx(1.0, abs=0.03)


def test_an_empty_slide_is_named(section):
    he, ihc = as_slides(section, np.zeros_like(section))
    with pytest.raises(RegistrationError, match="no tissue found on case-ihc"):
        register(he, ihc, RegistrationSpec(), case_id="case")


def test_landmarks_in_the_chain_need_a_file(section):
    with pytest.raises(RegistrationError, match="names no landmarks file"):
        register(*as_slides(section, section), RegistrationSpec(chain=("landmarks",)), case_id="case")


def test_a_pair_may_start_from_its_landmarks_in_place_of_the_search(section, tissue_points):
    moved, truth = partner(section, turn(137.0), warp_px=2.0)
    points = tissue_points[:: len(tissue_points) // 8]
    landmarks = Landmarks(points, truth(points))
    result = register(*as_slides(section, moved), QUICK, case_id="case", landmarks=landmarks, from_landmarks=True)
    assert [step["step"] for step in result.summary["chain"]] == ["landmarks", "elastic"]
    assert result.status.state == "ok"
    assert np.median(error_px(result.ihc_from_he, truth, tissue_points)) < 0.7


@pytest.mark.parametrize("from_landmarks", [False, True])
def test_landmarks_exchanged_in_a_chain_of_their_own_are_what_the_reason_tells_to_check(
    section, tissue_points, from_landmarks
):
    moved, truth = partner(section, turn(60.0), warp_px=0.0)
    points = tissue_points[:: len(tissue_points) // 3][:3]
    exchanged = Landmarks(truth(points), points)
    spec = RegistrationSpec(chain=("search",) if from_landmarks else ("landmarks",))
    slides = as_slides(section, moved)
    result = register(*slides, spec, case_id="case", landmarks=exchanged, from_landmarks=from_landmarks)
    assert result.status.failed
    assert "the 3 landmarks that it follows: the columns of H&E and IHC may be exchanged" in result.status.reason
    assert "column start" not in result.status.reason


def test_a_missing_deeperhistreg_says_what_to_install_or_take_instead(section, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deeperhistreg" else real(name))
    spec = RegistrationSpec(chain=("deeperhistreg",))
    with pytest.raises(ConfigError, match=r"needs deeperhistreg; install 'hepipe\[register,train\]' or take the chain"):
        register(*as_slides(section, section), spec, case_id="case")
