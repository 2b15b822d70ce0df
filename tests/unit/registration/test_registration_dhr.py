import importlib.util
import json
import types

import numpy as np
import pytest
from pydantic import ValidationError
from registration_drawing import MPP, as_slides, partner, turn

from hepipe.errors import ConfigError, HepipeError
from hepipe.geometry import Transform, identity
from hepipe.registration.dhr import (
    BAD_CONFIG,
    dark_on_zero,
    from_canvas,
    on_canvas,
    register_deeperhistreg,
    task_of,
)
from hepipe.registration.overview import Pictures, read_pictures
from hepipe.specs.registration import DeeperHistRegSpec, RegistrationSpec

needs_package = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("deeperhistreg", "pyvips", "torch")),
    reason="the extra register is not installed",
)
QUICK = {
    "initial_registration_params": {
        "registration_sizes": [200],
        "angle_step": 180,
        "run_sift_ransac": False,
        "keypoint_threshold": 0.001,
    },
    "nonrigid_registration_params": {"iterations": [4] * 9, "registration_size": 128},
}
"""Over the preset's own, which take hours."""


def step(he, ihc, **settings):
    spec = RegistrationSpec.model_validate({"chain": ["deeperhistreg"], "deeperhistreg": settings})
    start = identity(fixed_mpp=he.mpp, moving_mpp=ihc.mpp)
    pictures = read_pictures(he, ihc, max_px=spec.overview_px)
    return register_deeperhistreg(he, ihc, start, spec, case_id="case", pictures=pictures)


@pytest.fixture
def slides(section):
    return as_slides(section, section)


@needs_package
def test_the_paper_s_preset_aligns_by_itself_and_counts_its_matches(section, tissue_points):
    moved, truth = partner(section, turn(12.0, shift=(8.0, -5.0)), warp_px=0.0)
    spec = RegistrationSpec.model_validate(
        {"preset": "her2match", "deeperhistreg": {"overview_px": 224, "parameters": QUICK}}
    )
    assert spec.chain.restained == spec.chain.consecutive == ("deeperhistreg",)
    assert spec.deeperhistreg.preset == "default_initial_nonrigid_high_resolution"
    he, ihc = as_slides(section, moved)
    # A start that is wrong by far: the alignment of its own takes its place.
    astray = Transform(turn(90.0), MPP, MPP)
    unused = Pictures(1.0, np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), MPP, MPP)
    found = register_deeperhistreg(he, ihc, astray, spec, case_id="case", pictures=unused)
    assert found.matches is not None
    assert found.matches >= 4
    assert f"{found.matches} matches" in found.note
    errors = np.linalg.norm(found.transform(tissue_points) - truth(tissue_points), axis=1)
    assert np.median(errors) < 2.5
    # A rigid one as its affine part: beyond the field it still holds.
    assert np.linalg.det(found.transform.affine[:2, :2]) == pytest.approx(1.0, abs=0.02)


@needs_package
def test_an_alignment_without_matches_is_said_and_no_identity_is_passed_on(section):
    he, ihc = as_slides(section, section)
    blind = {
        **QUICK,
        "initial_registration_params": {**QUICK["initial_registration_params"], "keypoint_threshold": 2.0},
    }
    found = step(he, ihc, preset="default_initial_nonrigid_fast", initial=True, parameters=blind)
    assert found.transform is None
    assert found.matches == 0
    assert "found no match" in found.note
    assert "start the chain with search" in found.note


@needs_package
def test_a_preset_that_the_package_does_not_have_is_an_error_that_lists_them(slides):
    with pytest.raises(ConfigError, match=r"no preset 'default_best'; one of create_identity, default_initial, "):
        step(*slides, preset="default_best")


@needs_package
def test_cuda_without_a_device_is_an_error_and_not_the_cpu(slides, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"registration\.deeperhistreg\.device: cuda, but torch finds no CUDA device"):
        step(*slides, device="cuda")


@needs_package
def test_a_process_that_takes_too_long_is_ended_and_named(slides):
    with pytest.raises(HepipeError, match=r"case case: DeeperHistReg was ended after 0\.01 s"):
        step(*slides, timeout_s=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": True}, "without a preset"),
        ({"parameters": {"loading_params": {}}}, "initial_registration_params"),
    ],
)
def test_contradictory_settings_fail_before_anything_runs(settings, message):
    with pytest.raises(ValidationError, match=message):
        DeeperHistRegSpec.model_validate(settings)


def test_the_canvas_is_white_and_its_displacement_comes_back_to_the_picture():
    picture = np.zeros((8, 12, 3), np.uint8)
    canvas, (x, y) = on_canvas(picture, (16, 20))
    assert (x, y) == (4, 4)
    assert (canvas[4:12, 4:16] == 0).all()
    assert (canvas[:4] == 255).all()
    # A ramp along x: canvas px c moves by c.
    centres = (np.arange(5) + 0.5) * 4
    shift = np.stack([np.tile(centres, (4, 1)), np.zeros((4, 5))]).astype(np.float32)
    found = from_canvas(shift, fixed_at=(4, 4), moving_at=(1, 0), size=(12, 8))
    np.testing.assert_allclose(found[0], np.tile((np.arange(3) + 0.5) * 4 + 4 + 3, (2, 1)))
    np.testing.assert_allclose(found[1], 4)


def test_a_matrix_between_unit_coordinates_becomes_one_between_px():
    process = pytest.importorskip("hepipe.registration.dhr_process")
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    matrix = process.px_from_theta(quarter, size=(40, 40))
    np.testing.assert_allclose(matrix @ [40.0, 20.0, 1.0], [20.0, 40.0, 1.0])
    wide = process.px_from_theta(np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]), size=(40, 20))
    np.testing.assert_allclose(wide @ [0.0, 0.0, 1.0], [10.0, 0.0, 1.0])


def test_levels_too_coarse_for_the_picture_are_left_out_and_the_fine_ones_kept():
    process = pytest.importorskip("hepipe.registration.dhr_process")
    nine = {
        "num_levels": 9,
        "used_levels": 9,
        "iterations": list(range(9)),
        "learning_rates": list(range(9)),
        "alphas": list(range(9)),
        "registration_size": 8192,
    }
    assert process._fitting(nine, 8192) == nine
    small = process._fitting(nine, 100)
    assert (small["num_levels"], small["iterations"]) == (4, [5, 6, 7, 8])


@pytest.fixture
def configs():
    """The package's presets in little."""
    nonrigid = {
        "nonrigid_registration_function": "instance_optimization_nonrigid_registration",
        "num_levels": 2,
        "used_levels": 2,
        "registration_size": 64,
        **{key: [1.5, 1.5] for key in ("iterations", "learning_rates", "alphas")},
        "device": "cuda:0",
    }

    def preset(function, *, deforms):
        initial = {"initial_registration_function": function, "device": "cuda:0", "cuda": True}
        sections = {"initial_registration_params": initial, "nonrigid_registration_params": dict(nonrigid)}
        return {"run_nonrigid_registration": deforms, **sections}

    made = types.ModuleType("configs")
    made.default_whole = lambda: preset("multi_feature", deforms=True)
    made.default_nonrigid = lambda: preset("identity_initial_alignment", deforms=True)
    made.default_initial = lambda: preset("multi_feature", deforms=False)
    return made


def asked(process, configs, **settings):
    task = json.loads(json.dumps(task_of(DeeperHistRegSpec.model_validate(settings), threads=1)))
    return process._parameters(configs, task, device="cpu")


def test_parameters_of_the_user_win_and_the_device_stands_on_every_key(configs):
    process = pytest.importorskip("hepipe.registration.dhr_process")
    own = {"nonrigid_registration_params": {"alphas": [3.0, 4.0]}}
    initial, nonrigid = asked(process, configs, preset="default_whole", initial=True, parameters=own)
    assert nonrigid["alphas"] == [3.0, 4.0]
    assert nonrigid["iterations"] == [1.5, 1.5]
    assert (initial["device"], initial["cuda"], nonrigid["device"]) == ("cpu", False, "cpu")
    assert asked(process, configs, preset="default_whole")[0] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"preset": "default_whole", "parameters": {"nonrigid_registration_params": {"alpas": [1]}}},
            "'alpas'; one of",
        ),
        ({"preset": "default_nonrigid", "initial": True}, "has no initial alignment; take"),
        ({"preset": "default_initial"}, "there is nothing to run"),
        (
            {
                "preset": "default_whole",
                "parameters": {"nonrigid_registration_params": {"nonrigid_registration_function": "splines"}},
            },
            "'splines', one of instance_optimization_nonrigid_registration,",
        ),
    ],
)
def test_what_the_package_does_not_have_ends_the_process_with_one_line(configs, capsys, settings, message):
    process = pytest.importorskip("hepipe.registration.dhr_process")
    with pytest.raises(SystemExit) as ended:
        asked(process, configs, **settings)
    assert ended.value.code == BAD_CONFIG
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_list_that_is_shorter_than_the_levels_ends_it_too(configs, capsys):
    process = pytest.importorskip("hepipe.registration.dhr_process")
    short = {"nonrigid_registration_params": {"alphas": [1.0]}}
    _, nonrigid = asked(process, configs, preset="default_whole", parameters=short)
    with pytest.raises(SystemExit):
        process._fitting(nonrigid, 64)
    assert "alphas: 1 values, one for each of 2 levels expected" in capsys.readouterr().err


def test_the_picture_that_it_sees_is_dark_on_zero():
    white = np.full((64, 64, 3), 255, np.uint8)
    white[20:40, 20:40] = (120, 60, 140)
    seen = dark_on_zero(white)
    assert seen[30, 30] > 0.6
    assert seen[5, 5] < 0.2
