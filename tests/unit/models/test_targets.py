"""Whether a run can be evaluated where the config asks, before anything runs."""

import pytest

from hepipe.config import load_config
from hepipe.errors import ConfigError
from hepipe.models.catalog import check_targets

HER2 = frozenset({"HER2"})


def check(runs, datasets=None, markers=None, **sections):
    made = load_config(
        {
            "datasets": {
                "own": {"synth": {}},
                "fine": {"synth": {}, "tiling": {"mpp": 0.25, "tile_px": 1024}},
                "coarse": {"synth": {}, "tiling": {"mpp": 1.0, "tile_px": 256}},
                "mist": {"import": {"kind": "mist", "path": "m"}},
                "bci": {"import": {"kind": "bci", "path": "b"}},
                "folder": {"import": {"kind": "folder", "path": "f", "mpp": 2.0}},
                **(datasets or {}),
            },
            "runs": {name: {"model": "pixel_map", **run} for name, run in runs.items()},
            **sections,
        }
    )
    known = {name: frozenset({spec.known_marker or "HER2"}) for name, spec in made.datasets.items()}
    check_targets(made, {**known, **(markers or {})})


def test_sets_of_one_marker_that_are_as_fine_or_nearly_so_are_compatible():
    check({"r": {"dataset": "own", "test_on": {"fine": "test", "own": ["val", "test"]}}})
    check({"r": {"dataset": "mist", "test_on": {"bci": "test"}}, "s": {"dataset": "bci", "test_on": {"mist": "test"}}})


@pytest.mark.parametrize("dataset", ["coarse", "folder"])
def test_a_coarser_set_is_refused_by_the_key_that_asks_for_it(dataset):
    text = rf"{dataset} is stored at \d µm/px, but run r is trained on own at 0\.5, which is finer"
    with pytest.raises(ConfigError, match=rf"runs\.r\.test_on\.{dataset}: {text}"):
        check({"r": {"dataset": "own", "test_on": {dataset: "test"}}})
    with pytest.raises(ConfigError, match=rf"evaluation\.test_on\.{dataset}: {text}"):
        check({"r": {"dataset": "own"}}, evaluation={"test_on": {dataset: "test"}})


def test_a_run_at_a_coarse_view_may_be_shown_coarse_tiles():
    check({"r": {"dataset": "own", "test_on": {"coarse": "test"}, "training": {"mpp": 1.0}}})


def test_a_set_of_another_marker_is_refused_and_both_named():
    er = {"er": {"import": {"kind": "mist", "path": "m", "marker": "ER"}}}
    with pytest.raises(
        ConfigError, match=r"runs\.r\.test_on\.er: its IHC is ER, but run r learns HER2 on own; evaluate it on"
    ):
        check({"r": {"dataset": "own", "test_on": {"er": "test"}}}, datasets=er)
    with pytest.raises(ConfigError, match=r"its IHC is HER2, Ki67, but run r learns HER2 on own"):
        check({"r": {"dataset": "own", "test_on": {"fine": "test"}}}, markers={"fine": frozenset({"HER2", "Ki67"})})


def test_tiles_that_are_too_small_for_the_model_or_the_crop_are_refused():
    small = {"small": {"synth": {}, "tiling": {"tile_px": 128}}}
    with pytest.raises(ConfigError, match=r"run r sees tiles of small at 128 px, and pix2pix paper takes multiples of"):
        check({"r": {"model": "pix2pix", "dataset": "own", "test_on": {"small": "test"}}}, datasets=small)
    with pytest.raises(ConfigError, match=r"evaluation\.tile_px: 256 px, but run r sees tiles of small at 128 px"):
        check({"r": {"dataset": "own", "test_on": {"small": "test"}}}, datasets=small, evaluation={"tile_px": 256})


def test_the_split_that_a_run_trains_on_is_refused_on_its_own_set_alone():
    with pytest.raises(ConfigError, match=r"runs\.r\.test_on\.own: train, on which run r trains; val or test expected"):
        check({"r": {"dataset": "own", "test_on": {"own": ["test", "train"]}}})
    check({"r": {"dataset": "own", "test_on": {"fine": "train"}}})
