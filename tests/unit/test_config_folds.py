import pytest

from hepipe.config import load_config
from hepipe.errors import ConfigError

COHORT = {"cohort": {"synth": {"patients": 8}, "splits": {"folds": 4}}, "plain": {"synth": {"patients": 4}}}


def config(**runs):
    return load_config({"datasets": COHORT, "runs": runs})


def test_all_makes_a_run_of_every_fold_and_keeps_the_others():
    made = config(
        cut={"model": "identity", "dataset": "cohort", "fold": "all"}, one={"model": "identity", "dataset": "plain"}
    )
    assert {name: run.fold for name, run in made.runs.items()} == {
        **{f"cut-f{fold}": fold for fold in range(4)},
        "one": None,
    }
    assert made.targets("cut-f2") == (("cohort", "test"),)


def test_a_part_of_a_run_of_every_fold_is_the_run_of_the_same_fold():
    made = config(
        teacher={"model": "identity", "dataset": "cohort", "fold": "all"},
        pupil={"model": "identity", "dataset": "cohort", "fold": "all", "parts": {"teacher": "teacher"}},
    )
    assert made.runs["pupil-f3"].parts == {"teacher": "teacher-f3"}


def test_a_part_that_has_trained_on_the_tiles_of_the_test_is_refused():
    with pytest.raises(ConfigError, match="run teacher has fold None, this one 1: it has trained on tiles"):
        config(
            teacher={"model": "identity", "dataset": "cohort"},
            pupil={"model": "identity", "dataset": "cohort", "fold": 1, "parts": {"teacher": "teacher"}},
        )


@pytest.mark.parametrize(
    ("fold", "dataset", "said"),
    [
        (4, "cohort", r"fold: 4, but data set cohort has folds 0 to 3"),
        (0, "plain", r"fold: 0, but data set plain has no folds: set its splits\.folds"),
        ("all", "plain", r"runs\.cut\.fold: all, but data set plain has no folds; set its splits\.folds"),
    ],
)
def test_a_fold_that_the_data_set_has_not_is_refused(fold, dataset, said):
    with pytest.raises(ConfigError, match=said):
        config(cut={"model": "identity", "dataset": dataset, "fold": fold})


def test_an_imported_set_keeps_its_splits_so_a_fold_is_refused():
    with pytest.raises(ConfigError, match="is imported and keeps the splits it came with"):
        load_config(
            {
                "splits": {"folds": 4},
                "datasets": {"pairs": {"import": {"kind": "folder", "path": "x", "mpp": 0.5}}},
                "runs": {"cut": {"model": "identity", "dataset": "pairs", "fold": 0}},
            }
        )


def test_a_name_that_fold_all_makes_may_not_stand_in_the_config():
    with pytest.raises(ConfigError, match=r"cut-f1: stands in the config and is made by fold: all of cut"):
        config(
            cut={"model": "identity", "dataset": "cohort", "fold": "all"},
            **{"cut-f1": {"model": "identity", "dataset": "cohort"}},
        )
