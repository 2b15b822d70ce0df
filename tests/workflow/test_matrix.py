"""A matrix of runs: which jobs there are, what they ask for, which mistakes stop them, and what runs after a change."""

import copy
import importlib.util
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

spec = importlib.util.spec_from_file_location("workflow_conftest", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
workflow_conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(workflow_conftest)

CONFIG = {
    "datasets": {
        "cohort": {"synth": {"patients": 4, "seed": 3}},
        "other": {"synth": {"patients": 4, "seed": 4}},
    },
    "tiling": {"mpp": 0.5, "tile_px": 128},
    "training": {"n_steps": 4, "batch_size": 2, "crop_px": 64},
    "runs": {"matrix": {"model": ["cut", "asp"], "preset": "tiny", "dataset": "cohort", "seed": [1, 2]}},
    "evaluation": {"test_on": {"cohort": "test", "other": "test"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return workflow_conftest.Folder(tmp_path_factory.mktemp("matrix"))


def having(**sections):
    """The configuration with some sections extended."""
    made = copy.deepcopy(CONFIG)
    for name, values in sections.items():
        made[name] = {**made.get(name, {}), **values}
    return made


def test_two_models_and_two_seeds_on_two_sets_are_four_trainings_and_eight_tables(folder):
    planned = folder.planned(CONFIG)
    wanted = {"resolve_run": 4, "train": 4, "predict_tiles": 8, "score_run": 8, "report": 1}
    assert {rule: planned.get(rule) for rule in wanted} == wanted


def test_a_run_on_two_splits_is_predicted_on_both(folder):
    ablation = {"matrix": {"model": "cssp2p:tiny", "dataset": "cohort"}, "test_on": {"cohort": ["val", "test"]}}
    planned = folder.planned(having(runs={"ablation": ablation}))
    assert (planned["train"], planned["predict_tiles"]) == (5, 10)


def test_several_gpus_are_a_process_each_and_one_for_predictions(folder):
    shown = folder.snakemake(
        "-n", "-p", "--resources", "gpu=4", config=having(training={"device": "cuda", "gpus": 2, "threads": 3})
    ).stdout
    assert shown.count("Shell command: hepipe_on 2 train --config") == 4
    for rule, count, gpus in (("train", 4, 2), ("predict_tiles", 8, 1)):
        jobs = re.findall(rf"^rule {rule}:.*?(?=^\[)", shown, re.MULTILINE | re.DOTALL)
        assert len(jobs) == count
        assert all(f"gpu={gpus}" in job for job in jobs)


def test_one_gpu_needs_no_torchrun_and_is_shared_by_turns(folder):
    shown = folder.snakemake("-n", "-p", config=having(training={"device": "cuda"})).stdout
    assert shown.count("Shell command: hepipe train --config") == 4
    assert shown.count("gpu=1") == 4 + 8


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"training": {"budget": "own_original_steps"}}, "no number of steps on its own data is known of cut tiny"),
        ({"datasets": {"other": {"synth": {}, "tiling": {"mpp": 1.0}}}}, "other is stored at 1 µm/px, but run"),
        ({"evaluation": {"primary": ["sim"]}}, "evaluation.primary: no metric sim; there are"),
        ({"runs": {"cut-tiny-cohort-s1": {"model": "cut", "dataset": "cohort"}}}, "makes a run cut-tiny-cohort-s1"),
        ({"evaluation": {"test_on": {"cohort": "train"}}}, "evaluation.test_on.cohort: train, on which run"),
    ],
    ids=["budget", "resolution", "metric", "name", "split"],
)
def test_what_cannot_be_compared_stops_the_dry_run_with_the_keys_path(folder, sections, text):
    done = folder.snakemake("-n", config=having(**sections))
    assert done.returncode != 0
    assert text in done.stdout
    assert "Traceback" not in done.stdout


def test_a_run_that_stands_twice_in_the_file_stops_the_dry_run(folder):
    file = folder.path / "twice.yaml"
    run = "{model: identity, dataset: cohort}"
    file.write_text(f"datasets: {{cohort: {{synth: {{}}}}}}\nruns:\n  a: {run}\n  a: {run}\n")
    # The later one of two files counts; both are looked at.
    done = folder.snakemake("-n", "--configfile", str(file))
    assert done.returncode != 0
    assert "runs.a: stands in line 3 and again in line 4" in done.stdout


def test_what_the_start_of_a_run_was_trained_on_is_compared_with_its_test_tiles(folder):
    runs = {
        "base": {"model": "cut", "preset": "tiny", "dataset": "other"},
        "tuned": {"model": "cut", "preset": "tiny", "dataset": "cohort", "init_from": "run:base"},
    }
    shown = folder.snakemake("-n", "-p", config={**CONFIG, "runs": runs}).stdout
    scored = [line for line in shown.splitlines() if line.startswith("Shell command: hepipe score")]
    both = "--trained results/cohort/index.parquet --trained results/other/index.parquet"
    assert [both in line for line in scored if "runs/tuned/" in line] == [True, True]
    assert not any(both in line for line in scored if "runs/base/" in line)


TRAINED = {
    "datasets": {"pairs": {"import": {"kind": "folder", "path": "set", "mpp": 0.5}}},
    "quality": {"limits": {"consecutive": {}}, "alignment": {"drop": []}},
    "training": {"n_steps": 2, "batch_size": 2, "crop_px": 32, "threads": 1, "workers": 1},
    "runs": {"matrix": {"model": ["identity", "pixel_map"], "preset": "tiny", "dataset": "pairs"}},
    "evaluation": {"test_on": {"pairs": "test"}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which two runs on a few small pictures are finished."""
    folder = workflow_conftest.Folder(tmp_path_factory.mktemp("trained"))
    random = np.random.default_rng(1)
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(count):
            amount = random.random((12, 12)).repeat(4, 0).repeat(4, 1)[..., None]
            for stain, vector in (("HE", (0.65, 0.70, 0.29)), ("IHC", (0.27, 0.57, 0.78))):
                file = folder.path / "set" / stain / split / f"{split}{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), (255 * 10 ** -(amount * np.array(vector[::-1]))).astype(np.uint8))
    done = folder.snakemake(config=TRAINED)
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.mark.parametrize(
    ("path", "value", "jobs"),
    [
        ("training.crop_px", 16, {"resolve_run": 2, "train": 2, "predict_tiles": 2, "score_run": 2}),
        ("training.select", {"metric": "ssim"}, {"resolve_run": 2, "train": 2, "predict_tiles": 2, "score_run": 2}),
        ("evaluation.stitch", {"overlap_frac": 0.5}, {"predict_tiles": 2, "score_run": 2}),
        ("evaluation.dab_thresholds_od", [0.3, 0.5, 0.7], {"score_run": 2}),
        ("evaluation.test_on.pairs", ["val", "test"], {"predict_tiles": 2, "score_run": 2}),
        ("evaluation.bootstrap", 300, {}),
        ("evaluation.primary", ["ssim"], {}),
    ],
)
def test_a_changed_protocol_runs_again_what_follows_it_alone(trained, path, value, jobs):
    assert trained.planned(changed(path, value)) == {**jobs, "report": 1}


def test_a_run_of_its_own_runs_again_alone(trained):
    config = copy.deepcopy(TRAINED)
    config["runs"]["matrix"]["seed"] = [0, 1]
    jobs = {"resolve_run": 2, "train": 2, "predict_tiles": 2, "score_run": 2, "report": 1}
    assert trained.planned(config) == jobs


def test_nothing_runs_again_without_a_change(trained):
    assert trained.planned(TRAINED) == {}


def test_length_code_and_data_set_of_a_run_stand_on_the_page(trained):
    page = (trained.path / "results/report.html").read_text()
    card = json.loads((trained.path / "results/pairs/dataset.json").read_text())
    assert card["fingerprint"] in page
    assert "2: 1 passes over 3 tiles in batches of 2; equal steps" in page
    assert "The protocol of all runs" in page
    assert "hepipe 0." in page


def changed(path, value):
    """The configuration with one key set; the path has dots."""
    config = copy.deepcopy(TRAINED)
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config
