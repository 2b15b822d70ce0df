import dataclasses
import math

import numpy as np
import pytest
import torch

from hepipe.errors import WeightsError
from hepipe.evaluation import features, score
from hepipe.evaluation.pairs import TilePair
from hepipe.metrics import lpips
from hepipe.metrics.backbones import EfficientNetLite0
from hepipe.metrics.catalog import METRICS, of_level
from hepipe.specs.training import EvaluationSpec
from hepipe.stains.matrices import DAB, HAEMATOXYLIN, stain_matrix

NOTHING = features.Networks(
    None, {m.weights: f"not computed: weights missing ({m.weights})" for m in METRICS.values() if m.weights}, {}
)


def stained(rng, strength, side=40):
    amounts = np.stack([rng.uniform(0.1, 0.4, (side, side)), strength * rng.uniform(0, 1, (side, side))], -1)
    return np.round(255 * 10.0 ** -(amounts @ stain_matrix(HAEMATOXYLIN, DAB)[:2])).astype(np.uint8)


def pairs(n=6, *, strength=0.8, patients=True, seed=0, same=False):
    rng = np.random.default_rng(seed)
    for number in range(n):
        real = stained(rng, strength * (1 + number) / n)
        case = f"C{number % 3}" if patients else None
        fake = real if same else stained(rng, strength * (1 + number) / n)
        yield TilePair(f"t{number}", case, case, "2+", stained(rng, 0), real, fake, 0.5)


def rows_of(pairs, networks=NOTHING):
    return score.score_run(pairs, run="r", dataset="d", split="test", spec=EvaluationSpec(), networks=networks)


def of_set(rows):
    return {row["metric"]: row for row in rows if row["tile_id"] is None and row["case_id"] is None}


def test_every_metric_has_a_row_for_every_tile_and_for_the_set():
    rows = rows_of(pairs())
    tiles = [(row["tile_id"], row["metric"]) for row in rows if row["tile_id"] is not None]
    assert sorted(tiles) == sorted((f"t{n}", metric.name) for n in range(6) for metric in of_level("tile"))
    assert of_set(rows).keys() == {metric.name for metric in of_level("set")}


def test_a_row_has_a_value_or_a_reason():
    for row in rows_of(pairs()):
        assert (row["value"] is None) == (row["status"] != "ok"), row
        assert row["status"] == "ok" or row["status"].startswith("not computed: "), row


def test_values_lie_in_the_range_that_the_list_states():
    for row in rows_of(pairs()):
        if row["value"] is not None:
            metric = METRICS[row["metric"]]
            assert metric.low - 1e-9 <= row["value"] <= metric.high + 1e-9, row


def test_missing_weights_are_the_reason_of_the_cells_that_need_them():
    rows = rows_of(pairs())
    assert {row["status"] for row in rows if row["metric"] in {"fid", "kid_full"}} == {
        "not computed: weights missing (fid-inception)"
    }
    assert {row["status"] for row in rows if row["metric"] == "lpips_alex"} == {
        "not computed: weights missing (alexnet)"
    }


def test_a_copy_of_the_real_tiles_scores_best():
    rows = rows_of(pairs(same=True))
    best = {
        "mae": 0,
        "ssim": 1,
        "dab_dice": 1,
        "dab_hd95": 0,
        "psnr": math.inf,
        "hscore_px_error": 0,
        "dab_jsd_fixed": 0,
    }
    for row in rows:
        if row["tile_id"] is not None and row["metric"] in best and row["status"] == "ok":
            assert row["value"] == pytest.approx(best[row["metric"]]), row
    found = of_set(rows)
    assert found["iod_ccc"]["value"] == pytest.approx(1)
    assert found["iod_rel_err"]["value"] == 0
    assert found["r_path"]["value"] == pytest.approx(1)


def test_tiles_without_dab_have_no_overlap_and_say_so():
    rows = rows_of(pairs(strength=0.0))
    assert {row["status"] for row in rows if row["metric"] == "dab_dice"} == {score.EMPTY_MASKS}
    assert {row["value"] for row in rows if row["metric"] == "pos_fraction_error" and row["tile_id"]} == {0}


def test_small_tiles_have_no_multi_scale_ssim_and_say_so():
    assert {row["status"] for row in rows_of(pairs()) if row["metric"] == "msssim"} == {score.SMALL_TILE}


def test_a_case_sums_its_tiles():
    rows = rows_of(pairs())
    tiles = [row["value"] for row in rows if row["metric"] == "iod_real" and row["tile_id"] and row["case_id"] == "C1"]
    case = [row for row in rows if row["metric"] == "iod_real" and row["tile_id"] is None and row["case_id"] == "C1"]
    assert [row["value"] for row in case] == [pytest.approx(sum(tiles))]
    assert case[0]["her2_score"] == "2+"


def test_unknown_cases_leave_out_what_needs_them():
    found = of_set(rows_of(pairs(patients=False)))
    assert found["iod_ccc_case"]["status"] == "not computed: cases unknown"
    assert found["iod_ccc"]["status"] == "ok"


def test_no_tile_at_all_is_a_table_of_reasons():
    rows = rows_of(iter(()))
    assert rows
    assert all(row["value"] is None for row in rows)


def test_no_tile_at_all_is_no_error_with_the_stand_in_at_hand():
    others = {role: status for role, status in NOTHING.missing.items() if role != "standin"}
    at_hand = features.Networks(features.StandIn(EfficientNetLite0().state_dict()), others, {})
    found = of_set(rows_of(iter(()), networks=at_hand))
    assert found["fd_effnetlite0"]["status"] == "not computed: n=0 tiles < 50"


def test_batches_change_no_value():
    few, many = (
        score.score_run(
            pairs(), run="r", dataset="d", split="test", spec=EvaluationSpec(batch_size=size), networks=NOTHING
        )
        for size in (1, 5)
    )
    assert few == many


def test_the_stand_in_fills_its_own_columns_and_no_others():
    torch.manual_seed(0)
    network = features.StandIn(EfficientNetLite0().state_dict())
    missing = {role: reason for role, reason in NOTHING.missing.items() if role != "standin"}
    rows = rows_of(pairs(n=3), features.Networks(network, missing, {"standin": "0"}))
    assert {row["status"] for row in rows if row["metric"] == "pd_effnetlite0"} == {"ok"}
    assert of_set(rows)["fd_effnetlite0"]["status"] == "not computed: n=3 tiles < 50"
    assert of_set(rows)["fid"]["status"] == "not computed: weights missing (fid-inception)"


def test_other_tensors_than_the_networks_are_refused():
    with pytest.raises(WeightsError, match="standin: not the tensors of EfficientNet-Lite0"):
        features.StandIn({"conv1.weight": torch.zeros(3)})


def test_an_empty_weights_folder_names_every_role(tmp_path):
    found = features.networks(tmp_path)
    assert found.missing["fid-inception"] == "not computed: weights missing (fid-inception)"
    assert found.missing.keys() | found.hashes.keys() == {m.weights for m in METRICS.values() if m.weights}


def test_lpips_fills_its_column_where_backbone_and_heads_are_there_and_is_the_same_in_any_batch():
    torch.manual_seed(0)
    backbone = {f"features.{name}": value for name, value in lpips.alexnet_layers().state_dict().items()}
    heads = {f"lin{n}.model.1.weight": torch.rand(1, w, 1, 1) for n, w in enumerate((64, 192, 384, 256, 256))}
    network = lpips.Lpips("alex", features=backbone, heads=heads)
    missing = {role: reason for role, reason in NOTHING.missing.items() if role != "alexnet"}
    at_hand = features.Networks(None, missing, {"alexnet": "0", "lpips-alex": "0"}, {"lpips_alex": network})
    few, many = (
        score.score_run(
            pairs(n=3), run="r", dataset="d", split="test", spec=EvaluationSpec(batch_size=size), networks=at_hand
        )
        for size in (1, 3)
    )
    found = [[row["value"] for row in rows if row["metric"] == "lpips_alex"] for rows in (few, many)]
    assert len(found[0]) == 3
    assert all(value > 0 for value in found[0])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert {row["status"] for row in few if row["metric"] == "lpips_vgg"} == {"not computed: weights missing (vgg16)"}


def test_a_backbone_without_its_heads_says_which_file_is_missing(tmp_path, monkeypatch):
    asked = features.state

    def without_heads(role, *, folder=None):
        found = asked(role, folder=folder)
        return dataclasses.replace(found, state="ok") if role == "alexnet" else found

    monkeypatch.setattr(features, "state", without_heads)
    assert features.networks(tmp_path).missing["alexnet"] == "not computed: weights missing (lpips-alex)"
