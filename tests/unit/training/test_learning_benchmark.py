"""What benchmarks/learning.py makes of score tables; nothing is trained here."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import SCORES, write_table

FILE = Path(__file__).parents[3] / "benchmarks" / "learning.py"


@pytest.fixture(scope="module")
def learning():
    spec = importlib.util.spec_from_file_location("learning_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def write_scores(path, *, dice, fractions, ccc=0.5, fd=40.0):
    head = {"run": "r", "dataset": "restained", "split": "test", "patient_id": None, "her2_score": None}
    values = [(None, "iod_ccc", ccc), (None, "fd_effnetlite0", fd)]
    for place, (overlap, fraction) in enumerate(zip(dice, fractions, strict=True)):
        tile = {"dab_dice": overlap, "dab_pos_fraction_real": fraction, "psnr": 20.0 + place, "ssim": 0.5}
        values += [(f"t{place}", metric, value) for metric, value in tile.items()]
    rows = [
        {**head, "case_id": None, "tile_id": tile, "metric": metric, "value": value, "status": "ok"}
        for tile, metric, value in values
    ]
    write_table(rows, path, SCORES, Provenance(artefact="scores", subject="r", spec={}))


def test_dice_is_the_mean_over_tiles_with_enough_dab_and_undefined_tiles_do_not_count(learning, tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, dice=[0.4, 0.8, 0.0, None, None], fractions=[0.05, 0.5, 0.049, 0.0, None])
    found = learning.result("r", "cut", 0, path, 1.0)
    assert found.dab_dice == pytest.approx(0.6)
    assert found.iod_ccc == 0.5
    assert found.fd == 40.0
    assert found.psnr == 22.0


def test_a_model_is_held_against_the_best_colour_map_of_any_seed_and_against_the_plain_h_and_e(learning):
    def one(model, seed, ccc, dice, fd):
        return learning.Result(f"{model}{seed}", model, seed, 1.0, ccc, dice, fd, 20.0, 0.5, {})

    rows = learning.table(
        [
            one("cut", 0, 0.5, 0.3, 90.0),
            one("pixel_map", 0, 0.4, 0.1, 150.0),
            one("pixel_map", 1, 0.6, 0.0, 150.0),
            one("identity", 0, 0.9, 0.9, 80.0),
        ]
    )
    by_run = {(row["model"], row["seed"]): row for row in rows}
    assert by_run["cut", "0"]["beats"] == "no yes no"
    assert by_run["cut", "0"]["- identity"] == "+10.0"
    assert by_run["identity", "0"]["beats"] == ""
    assert [row["model"] for row in rows] == ["identity", "pixel_map", "pixel_map", "cut"]


def test_without_a_rival_nothing_counts_as_beaten(learning):
    rows = learning.table([learning.Result("c", "cut", 0, math.nan, 0.5, 0.3, 90.0, 20.0, 0.5, {})])
    assert rows[0]["beats"] == "no no no"


def test_models_and_seeds_that_are_asked_for_stand_beside_both_rivals(learning, tmp_path):
    config = learning.write_config(tmp_path / "learning.yaml", models=[], seeds=[])
    assert {"identity", "pixel_map", "cut"} <= {run.model for run in config.runs.values()}
    assert {run.preset for run in config.runs.values()} == {"small"}
    one = learning.write_config(tmp_path / "one.yaml", models=["cut"], seeds=[3])
    assert [(run.model, run.seed) for run in one.runs.values()] == [("identity", 0), ("pixel_map", 0), ("cut", 3)]
