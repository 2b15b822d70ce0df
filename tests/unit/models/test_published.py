from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

import hepipe
from hepipe.errors import StoreError
from hepipe.metrics.catalog import METRICS
from hepipe.models.catalog import catalog
from hepipe.models.published import (
    PRINTED,
    check_number,
    numbers,
    numbers_of,
    papers,
    systems,
    tile_sets,
)

CONTROLS = {"identity", "mean_colour", "pixel_map"}
BY_TABLE = {
    ("cssp2p", "1"): 28,
    ("cssp2p", "2"): 21,
    ("cssp2p", "3"): 15,
    ("asp_dgrank", "2"): 18,
    ("asp_dgrank", "3"): 32,
    ("asp_dgrank", "4"): 54,
    ("asp_dgrank", "5"): 16,
    ("asp_dgrank", "6"): 35,
    ("asp_dgrank", "7"): 14,
    ("atst_net", "1"): 420,
    ("atst_net", "2"): 56,
    ("atst_net", "3"): 28,
}


def one(**wanted):
    found = [row for row in numbers() if all(getattr(row, name) == value for name, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_every_table_of_the_papers_has_all_its_numbers():
    assert Counter((row.paper, row.table) for row in numbers()) == BY_TABLE
    assert Counter(row.mark for row in numbers()) == {"clear": 627, "restored": 85, "doubtful": 25}


def test_the_paper_without_a_table_says_so():
    without = papers().keys() - {row.paper for row in numbers()}
    assert without == {"her2match_bbdm"}
    assert "figures only" in papers()["her2match_bbdm"].tables


def test_no_number_stands_there_twice():
    assert len({row.key for row in numbers()}) == len(numbers())


def test_printed_digits_stay_as_printed():
    rounded = one(paper="asp_dgrank", table="2", method="asp_dgrank", pairing="paired", metric="ssim_any")
    whole = one(paper="asp_dgrank", table="6", dataset="bci", metric="ssim_any")
    assert (rounded.value, whole.value) == ("0.60", "0.6012")


def test_a_doubtful_number_carries_a_question_mark_and_a_restored_one_none():
    doubtful = one(paper="asp_dgrank", table="6", dataset="mist", marker="ER", metric="psnr")
    assert doubtful.text == "14.052?"
    restored = one(paper="cssp2p", table="1", variant="bce", metric="kid_any")
    assert (restored.mark, restored.text, restored.scale) == ("restored", "4.5 ± 0.8", "unknown")


def test_a_model_that_was_measured_elsewhere_says_on_what_it_was_trained():
    across = [row for row in numbers() if row.trained_on != row.dataset]
    assert len(across) == 70
    assert {(row.trained_on, row.dataset, row.paper) for row in across} == {("mist", "bci", "atst_net")}
    assert across[0].where == "bci test, trained on mist HER2"


def test_a_metric_under_our_name_goes_our_way():
    for metric in PRINTED.values():
        assert metric.name in METRICS if metric.is_ours else metric.name not in METRICS, metric
        for name in metric.near:
            assert METRICS[name].better == metric.better, metric
        assert metric.is_ours or metric.remark, f"{metric.name}: why is it none of ours?"
    assert {row.metric for row in numbers()} == set(PRINTED)


def test_an_ablation_that_the_zoo_has_carries_the_name_of_its_preset():
    variants = {row.variant for row in numbers_of("cssp2p")} - {""}
    assert variants == {"bce", "cbce", "p2p"} <= set(catalog()["cssp2p"].presets)


def test_every_model_of_the_papers_is_a_system_and_every_system_stands_in_a_paper():
    assert {row.method for row in numbers()} <= systems().keys()
    for system in systems().values():
        assert system.named_in.keys() <= papers().keys()
        assert system.named_in, system.name
        assert system.pairing in ("paired", "unpaired", "both", "none")
        assert system.is_model or system.reason, f"{system.name}: why is it no model?"


def test_the_zoo_and_the_papers_agree_on_pairing():
    both = systems().keys() & catalog().keys()
    assert {"pix2pix", "cut", "asp", "cssp2p"} <= both
    assert {name: systems()[name].pairing for name in both} == {name: catalog()[name].pairing for name in both}


def test_the_counts_of_tile_pairs_add_up():
    counts = {
        (row.paper, row.dataset, row.marker, row.her2_score, row.split): int(row.tile_pairs) for row in tile_sets()
    }
    own = {key[4]: n for key, n in counts.items() if key[:2] == ("her2match_bbdm", "her2match")}
    assert own["train"] + own["val"] + own["test"] == own["all"] == 21172
    by_score = [n for key, n in counts.items() if key[:2] == ("atst_net", "bci") and key[3]]
    assert len(by_score) == 4
    assert sum(by_score) == counts["atst_net", "bci", "HER2", "", "test"] == 977
    assert len(tile_sets()) == 42


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("dataset", "bci_level0", "dataset is 'bci_level0'; one of 'bci', "),
        ("metric", "fid", "metric is 'fid'; one of"),
        ("value", "n/a", "value is 'n/a'; a printed number expected"),
        ("spread", "nan", "spread is 'nan'; a printed number expected"),
        ("scale", "1000", "scale is '1000'; one of '' expected"),
        ("mark", "", "mark is ''; one of 'clear', 'restored', 'doubtful' expected"),
    ],
)
def test_a_number_that_is_none_of_its_columns_values_is_refused(column, value, text):
    row = one(paper="asp_dgrank", table="2", method="cut", metric="psnr")
    with pytest.raises(StoreError) as error:
        check_number("line 3", replace(row, **{column: value}))
    assert str(error.value).startswith(f"line 3: {text}")


def test_the_tables_lie_in_the_package_and_the_build_takes_them_along():
    import tomllib

    project = Path(hepipe.__file__).parent.parent / "pyproject.toml"
    taken = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]["hepipe"]
    folder = resources.files("hepipe.models").joinpath("printed")
    assert {Path(file.name).suffix for file in folder.iterdir()} <= {Path(pattern).suffix for pattern in taken}
