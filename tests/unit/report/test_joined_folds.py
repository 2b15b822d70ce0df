import numpy as np
import pytest

from hepipe.models.resolved import ResolvedRun
from hepipe.report import gather
from hepipe.report.folds import joined_scores, with_folds_joined
from hepipe.report.gather import RunScores
from hepipe.specs.training import TrainingSpec
from hepipe.stores.provenance import Provenance


def scores(*tile_ids, value=1.0, fid=10.0):
    return RunScores(
        tiles={"ssim": np.full(len(tile_ids), value)},
        tile_ids=list(tile_ids),
        patients=[tile.split("/")[0] for tile in tile_ids],
        cases=[tile.split("/")[0] for tile in tile_ids],
        her2=["0"] * len(tile_ids),
        of_set={"fid": fid},
        of_case={tile.split("/")[0]: {"fid": fid} for tile in tile_ids},
        reasons={"lpips": {"no weights": 1}},
    )


def record(name, fold, dataset="cohort"):
    return ResolvedRun(
        name=name, model="cut", preset="paper", dataset=dataset, fold=fold, seed=0, config={}, parts={},
        training=TrainingSpec(), pairing="paired", needs=(), provenance=Provenance(artefact="run", subject=name),
    )  # fmt: skip


def of(own, records, folds, left_out=None):
    return with_folds_joined(gather.TestSet("cohort", "test", own, left_out or {}), records, folds)


def test_runs_of_all_folds_are_one_run_that_has_tested_every_case_once():
    own = {f"cut-f{n}": scores(f"c{n}/1", f"c{n}/2", value=n, fid=10.0 * n) for n in range(3)}
    found = of(own, {name: record(name, n) for n, name in enumerate(own)}, 3)
    assert list(found.scores) == ["cut"]
    assert found.runs_of("cut") == ("cut-f0", "cut-f1", "cut-f2")
    one = found.scores["cut"]
    assert one.tile_ids == ["c0/1", "c0/2", "c1/1", "c1/2", "c2/1", "c2/2"]
    np.testing.assert_array_equal(one.tiles["ssim"], [0, 0, 1, 1, 2, 2])
    assert one.of_set == {"fid": pytest.approx(10)}
    assert one.of_case.keys() == {"c0", "c1", "c2"}
    assert one.reasons["lpips"] == {"no weights": 3}


def test_folds_that_are_not_all_scored_are_not_compared():
    own = {"cut-f0": scores("c0/1"), "cut-f2": scores("c2/1")}
    records = {f"cut-f{n}": record(f"cut-f{n}", n) for n in range(3)}
    found = of(own, records, 3, {"cut-f1": "not scored yet"})
    assert found.scores == {}
    assert found.left_out["cut-f0"] == "2 of 3 folds are scored, and a fold alone is no test"
    assert found.left_out["cut-f1"] == "not scored yet"


def test_a_run_without_folds_is_not_compared_with_runs_of_all_but_one_of_another_data_set_is():
    own = {f"cut-f{n}": scores(f"c{n}/1") for n in range(3)} | {"plain": scores("c0/1"), "other": scores("c0/1")}
    records = {f"cut-f{n}": record(f"cut-f{n}", n) for n in range(3)}
    records |= {"plain": record("plain", None), "other": record("other", None, "bci")}
    found = of(own, records, 3)
    assert set(found.scores) == {"cut", "other"}
    assert found.left_out["plain"].startswith("tested on fold 0 alone")


def test_a_set_without_folds_stays_as_it_is():
    test = gather.TestSet("cohort", "test", {"plain": scores("c0/1")}, {})
    assert with_folds_joined(test, {"plain": record("plain", None)}, None) is test


def test_a_metric_that_a_fold_lacks_is_nan_for_its_tiles():
    lacking = scores("c1/1")
    lacking.tiles.clear()
    lacking.of_set.clear()
    one = joined_scores([scores("c0/1"), lacking])
    np.testing.assert_array_equal(one.tiles["ssim"], [1, np.nan])
    assert np.isnan(one.of_set["fid"])
