import pytest

from hepipe.config import load_config
from hepipe.errors import ConfigError
from hepipe.models.catalog import catalog, check_run, read_entry
from hepipe.models.resolved import resolve_run
from hepipe.specs.training import RunSpec, TrainingSpec, outside_protocol


def resolved(model, preset="tiny", **training):
    spec = TrainingSpec.model_validate({"crop_px": 64, **training})
    return resolve_run("r", RunSpec(model=model, preset=preset, dataset="set", training=spec))


def test_every_model_says_how_long_its_authors_trained_or_that_it_is_not_known():
    for entry in catalog().values():
        assert entry.published, f"{entry.name}: its file states no PUBLISHED"
        for preset in entry.presets:
            stated = entry.published_of(preset)
            assert all(value is None or value >= 0 for value in (stated.epochs, stated.batch_size, stated.steps))
            if stated.epochs and stated.steps and stated.batch_size:
                assert stated.steps % stated.epochs == 0, f"{entry.name} {preset}: no whole number of steps an epoch"


@pytest.mark.parametrize(
    ("model", "preset", "epochs", "batch_size", "steps"),
    [
        ("pix2pix", "paper", 200, 1, None),
        ("pyramid_pix2pix", "paper", 200, 2, 389_600),
        ("cut", "paper", 400, 1, None),
        ("cut", "fastcut", 200, 1, None),
        ("asp", "lambda_top", 40, 1, 185_680),
        ("cssp2p", "bce", 200, 8, 290_400),
    ],
)
def test_published_lengths_are_those_of_the_papers(model, preset, epochs, batch_size, steps):
    stated = catalog()[model].published_of(preset)
    assert (stated.epochs, stated.batch_size, stated.steps) == (epochs, batch_size, steps)


def test_equal_steps_are_the_protocols_for_every_model():
    assert {resolved(model, n_steps=70).n_steps(1000) for model in ("cut", "asp", "pixel_map", "identity")} == {70}


def test_published_epochs_are_passes_over_the_training_tiles_with_the_last_batch_a_part():
    assert resolved("asp", batch_size=4, budget="published_epochs").n_steps(1001) == 40 * 251
    assert resolved("asp", batch_size=1, budget="published_epochs").n_steps(4642) == 185_680


def test_own_original_steps_are_those_on_the_papers_data_whatever_the_tiles():
    run = resolved("pyramid_pix2pix", budget="own_original_steps")
    assert {run.n_steps(n_tiles) for n_tiles in (10, 11_610)} == {389_600}


def test_a_cap_shortens_a_trial_and_lengthens_nothing():
    budget = {"rule": "published_epochs", "most_steps": 100}
    assert resolved("asp", batch_size=1, budget=budget).n_steps(5) == 100
    assert resolved("asp", batch_size=1, budget=budget).n_steps(2) == 80
    assert resolved("asp", n_steps=500, budget={"most_steps": 100}).budgeted(5).training.n_steps == 100


def test_the_published_batch_takes_the_place_of_the_protocols():
    budget = {"rule": "own_original_steps", "batch": "published"}
    assert resolved("pyramid_pix2pix", batch_size=4, budget=budget).training.batch_size == 2
    with pytest.raises(ConfigError, match=r"budget\.batch: published is 1 tiles, and accumulation \(2\)"):
        resolved("asp", batch_size=4, accumulation=2, budget=budget)


def test_a_method_that_fits_in_one_pass_keeps_to_every_rule():
    assert resolved("identity", budget="published_epochs", n_steps=3).n_steps(10) == 3
    assert resolved("mean_colour", budget="own_original_steps", n_steps=3).n_steps(10) == 3


@pytest.mark.parametrize(
    ("model", "budget", "text"),
    [
        ("pixel_map", "published_epochs", "published_epochs, but no number of epochs is known of pixel_map tiny"),
        ("cut", "own_original_steps", "own_original_steps, but no number of steps on its own data is known of cut"),
        ("pixel_map", {"batch": "published"}, "published, but no batch size is known of pixel_map tiny"),
    ],
)
def test_a_rule_that_a_model_cannot_follow_stops_before_anything_runs(model, budget, text):
    run = {"model": model, "preset": "tiny", "dataset": "d"}
    config = load_config({"datasets": {"d": {"synth": {}}}, "training": {"budget": budget}, "runs": {"r": run}})
    with pytest.raises(ConfigError, match=rf"runs\.r\.training\.budget\.(rule|batch): {text}"):
        check_run(config, "r")
    with pytest.raises(ConfigError, match=text):
        resolved(model, budget=budget)


@pytest.mark.parametrize(
    "stated", ['{"epochs": 3}', '{"epochs": "3", "batch_size": 1, "steps": None}', "200"], ids=["short", "text", "bare"]
)
def test_a_file_that_states_it_otherwise_is_named(tmp_path, stated):
    path = tmp_path / "odd.py"
    path.write_text(
        'PAIRING = "paired"\nNEEDS = {}\nPARTS = {}\nSIZE = {"*": {"multiple": 1}}\nSTREAMS = {}\n'
        f'PRESETS = {{"paper": 0}}\nPUBLISHED = {{"paper": {stated}}}\n'
    )
    with pytest.raises(ConfigError, match=r"model odd: PUBLISHED of paper is .*epochs, batch_size and steps expected"):
        read_entry(path)


def test_what_a_run_changes_of_the_protocol_is_told_and_how_it_is_carried_out_is_not():
    protocol = TrainingSpec.model_validate({"crop_px": 256, "select": {"metric": "ssim"}})
    same = TrainingSpec.model_validate({**protocol.model_dump(), "workers": 0, "device": "cuda", "checkpoint_every": 7})
    assert outside_protocol(same, protocol) == {}
    other = TrainingSpec.model_validate({**protocol.model_dump(), "crop_px": 128, "select": {"metric": "last"}})
    assert outside_protocol(other, protocol) == {
        "crop_px": "128, protocol 256",
        "select.metric": "last, protocol ssim",
    }


def test_steps_that_the_budget_does_not_use_are_outside_nothing():
    protocol = TrainingSpec.model_validate({"budget": {"rule": "published_epochs", "batch": "published"}})
    other = protocol.model_copy(update={"n_steps": 7, "batch_size": 2})
    assert outside_protocol(other, protocol) == {}
    assert outside_protocol(TrainingSpec(n_steps=7), TrainingSpec()) == {"n_steps": "7, protocol 2000"}


def test_several_gpus_share_a_batch_and_are_cuda():
    with pytest.raises(ValueError, match=r"gpus \(2\) go with device cuda, found cpu"):
        TrainingSpec(gpus=2)
    with pytest.raises(ValueError, match=r"gpus \(8\) cannot share a batch of 4"):
        TrainingSpec(gpus=8, device="cuda", batch_size=4)


def test_a_run_that_starts_from_something_is_outside_the_protocol_and_no_file_is_named():
    runs = {
        "base": {"model": "cut", "dataset": "d"},
        "tuned": {"model": "cut", "dataset": "d", "init_from": "/secret/place/model.safetensors"},
    }
    config = load_config({"datasets": {"d": {"synth": {}}}, "runs": runs})
    assert config.outside("base") == {}
    assert config.outside("tuned") == {"init_from": "another run or a checkpoint, protocol from scratch"}
