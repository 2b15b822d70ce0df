import pytest

from hepipe.config import load_config
from hepipe.errors import ConfigError

DATASETS = {"a": {"synth": {"patients": 4}}, "b": {"synth": {"patients": 4, "seed": 2}}}


def config(runs, **sections):
    return load_config({"datasets": DATASETS, "runs": runs, **sections})


def test_a_matrix_is_every_model_with_every_preset_data_set_and_seed_in_order():
    made = config({"matrix": {"model": ["cut", "asp"], "preset": ["small"], "dataset": ["a", "b"], "seed": [1, 2]}})
    assert list(made.runs) == [
        f"{model}-small-{dataset}-s{seed}" for model in ("cut", "asp") for dataset in ("a", "b") for seed in (1, 2)
    ]
    one = made.runs["asp-small-b-s2"]
    assert (one.model, one.preset, one.dataset, one.seed) == ("asp", "small", "b", 2)


def test_an_entry_of_any_name_may_be_a_matrix_and_what_stands_beside_it_goes_to_all_its_runs():
    made = config(
        {
            "one": {"model": "identity", "dataset": "a"},
            "ablations": {
                "matrix": {"model": ["cssp2p:bce", "cssp2p:p2p"], "dataset": "a"},
                "test_on": {"a": ["val", "test"]},
                "training": {"batch_size": 2},
            },
        }
    )
    assert list(made.runs) == ["one", "cssp2p-bce-a-s0", "cssp2p-p2p-a-s0"]
    assert made.runs["cssp2p-p2p-a-s0"].training.batch_size == 2
    assert made.targets("cssp2p-p2p-a-s0") == (("a", "val"), ("a", "test"))
    assert made.targets("one") == (("a", "test"),)


def test_a_model_with_its_preset_takes_no_other_one():
    runs = {"matrix": {"model": ["cut:fastcut", {"cssp2p": "p2p"}, "asp"], "preset": ["small", "tiny"], "dataset": "a"}}
    assert list(config(runs).runs) == ["cut-fastcut-a-s0", "cssp2p-p2p-a-s0", "asp-small-a-s0", "asp-tiny-a-s0"]


def test_runs_of_several_options_end_in_what_the_options_say():
    options = [{}, {"nce_weight": 2.0}, {"nce_weight": 10.0, "width": 8}]
    made = config({"matrix": {"model": "cut", "dataset": "a", "options": options}})
    assert {name: run.options for name, run in made.runs.items()} == {
        "cut-paper-a-s0": {},
        "cut-paper-a-s0-nce_weight2_0": {"nce_weight": 2.0},
        "cut-paper-a-s0-nce_weight10_0-width8": {"nce_weight": 10.0, "width": 8},
    }
    alone = config({"matrix": {"model": "cut", "dataset": "a", "options": {"width": 8}}})
    assert {name: run.options for name, run in alone.runs.items()} == {"cut-paper-a-s0": {"width": 8}}


def test_several_matrices_are_a_list():
    made = config({"matrix": [{"model": "cut", "dataset": "a"}, {"model": "cut", "dataset": "b", "seed": [3]}]})
    assert list(made.runs) == ["cut-paper-a-s0", "cut-paper-b-s3"]


def test_a_matrix_of_every_fold_makes_each_of_its_runs_in_every_fold():
    datasets = {"a": {"synth": {"patients": 8}, "splits": {"folds": 4}}}
    runs = {"grid": {"matrix": {"model": ["cut", "asp"], "dataset": "a"}, "fold": "all"}}
    assert len(load_config({"datasets": datasets, "runs": runs}).runs) == 8


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        ({"dataset": "a"}, r"runs\.matrix\.model: missing; a list of models expected"),
        ({"model": ["cut"]}, r"runs\.matrix\.dataset: missing"),
        ({"model": [], "dataset": "a"}, r"runs\.matrix\.model: an empty list makes no run"),
        ({"model": ["cut"], "dataset": "a", "seed": ["one"]}, r"matrix\.seed: a whole number expected, found 'one'"),
        ({"model": ["cut"], "dataset": "a", "seed": [1, 1]}, r"matrix\.seed: 1 stands twice"),
        ({"model": ["cut", "cut"], "dataset": "a"}, r"matrix\.model: 'cut' stands twice"),
        ({"model": ["cut:small", "cut"], "preset": ["small"], "dataset": "a"}, r"cut with preset small stands twice"),
        ({"model": ["cut:"], "dataset": "a"}, r"'cut:'; a model, or model:preset, expected"),
        ({"model": ["cut"], "dataset": "a", "options": [3]}, r"options: a mapping of options expected, found 3"),
        ({"model": ["cut"], "dataset": "a", "seed": [-1]}, r"runs\.cut-paper-a-s-1\.seed: .*greater than or equal"),
        ({"model": ["cut"], "dataset": "a", "sed": [1]}, r"runs\.cut-paper-a-s0\.sed: Extra inputs"),
        ({"model": ["cut"], "dataset": "a", "seed": list(range(1001))}, r"more than 1000 runs"),
        (
            {"model": ["cut"], "dataset": "a", "options": [{"x": "."}, {"x": "_"}, {"x": ","}]},
            r"makes a run cut-paper-",
        ),
    ],
)
def test_a_matrix_that_cannot_be_read_names_its_key(matrix, text):
    with pytest.raises(ConfigError, match=text):
        config({"matrix": matrix})


def test_two_runs_of_one_name_are_refused_and_both_places_named():
    matrix = {"model": ["cut"], "dataset": ["a"]}
    with pytest.raises(
        ConfigError, match=r"runs\.grid\.matrix: makes a run cut-paper-a-s0, and so does runs\.cut-paper-a-s0"
    ):
        config({"cut-paper-a-s0": {"model": "cut", "dataset": "a"}, "grid": {"matrix": matrix}})
    with pytest.raises(ConfigError, match=r"runs\.matrix\[1\]: makes a run cut-paper-a-s0, and so does .*\[0\]"):
        config({"matrix": [matrix, matrix]})
    with pytest.raises(ConfigError, match=r"runs\.grid\.seed: stands beside matrix; write it inside"):
        config({"grid": {"matrix": matrix, "seed": 2}})


def test_other_mistakes_are_told_with_those_of_a_matrix():
    with pytest.raises(ConfigError, match=r"(?s)training\.n_stepps.*matrix\.model: missing"):
        config({"matrix": {"dataset": "a"}}, training={"n_stepps": 3})
