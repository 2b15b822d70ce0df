"""A matrix of runs, planned: which jobs there are, what they ask for, and which mistakes stop them. Nothing runs."""

import copy
import importlib.util
import re
from pathlib import Path

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
