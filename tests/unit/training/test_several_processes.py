"""Two processes of torchrun against one that sees the same batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import several_processes as both
import torch

SCRIPT = Path(both.__file__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def index(folder, make_index_in):
    return make_index_in(folder, {"train": 7, "val": 2}, tile_px=40)


@pytest.fixture(scope="module")
def two(index, folder):
    """What each of two processes tells, from one start of both: torch takes longest."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(index), str(folder)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    codes = [process.wait(timeout=1200) for process in processes]
    assert codes == [0, 0]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def by_name(rows):
    return {(row["step"], row["phase"], row["name"]): row["value"] for row in rows}


@pytest.mark.parametrize("name", [name for name in both.TRAININGS if "apart" not in name])
def test_two_processes_lose_and_stain_like_one(two, index, folder, tmp_path, name):
    most = 1e-8 if "double" in name else 1e-4
    rows, method, tiles = both.trained(index, tmp_path, name)
    one, first, second = by_name(rows), by_name(two[0][name]), by_name(two[1][name])
    assert one.keys() == first.keys()
    losses = [key for key in one if not key[2].endswith((".gradient", ".rate"))]
    assert {key[2].split(".")[0] for key in losses if key[1] == "train"} == method.players().keys()
    for key in losses:
        assert first[key] == pytest.approx(one[key], abs=most, rel=most), key
    # Only the first process validates; all others know the means over all tiles as it does.
    assert {key: value for key, value in first.items() if key[1] == "train"} == second
    assert ("val" in {key[1] for key in first}) == ("select" in both.TRAININGS[name][2])
    with both.all_in_double("double" in name):
        seeds = torch.tensor([4, 5])
        fresh, other = (both.built(*both.TRAININGS[name][:2]) for _ in range(2))
        other.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
        stains = [model.train(False).stain(tiles, seeds=seeds) for model in (fresh, method, other)]
    assert float((stains[1] - stains[2]).abs().max()) <= most
    assert float((stains[0] - stains[1]).abs().max()) > 10 * most or name == "bbdm", "too little was learnt to differ"


def test_without_the_option_batch_norms_of_two_processes_see_their_own_tiles(two, index, tmp_path):
    name = "cssp2p apart, double"
    rows, _, _ = both.trained(index, tmp_path, name)
    one, first = by_name(rows), by_name(two[0][name])
    assert max(abs(one[key] - first[key]) for key in one if key[2].endswith(".loss")) > 1e-3


def test_two_killed_processes_go_on_together_from_the_step_that_both_can_read(two):
    assert two[0]["resumed"] == two[0]["cut, double"]
    assert two[1]["resumed"] == two[1]["cut, double"]


def test_an_overflow_of_one_process_makes_all_skip_the_step(two):
    fresh = both.Overflowing().net.weight.detach().flatten().tolist()
    for told in two:
        first, second = told["overflow"]
        assert first["weight"] == fresh
        assert (first["skipped"], first["gradient"], first["scale"]) == (1.0, 0.0, 2.0**15)
        assert second["weight"] != fresh
        assert (second["skipped"], second["scale"]) == (0.0, 2.0**15)
    assert two[0]["overflow"] == two[1]["overflow"]


def test_every_process_names_the_term_that_is_nan_on_one(two):
    assert two[0]["error"] == two[1]["error"]
    assert "run r: net.odd became nan at step 0" in two[0]["error"]


def test_a_gradient_stays_none_only_where_no_process_has_one(two):
    assert two[0]["flags"] == two[1]["flags"] == [[[3.0, 3.0], [1.0, 1.0], None], [3.0]]


def test_batch_norms_of_two_processes_are_those_of_one(two):
    alone = both.norms(alone=True)
    for one, first, second in zip(alone, two[0]["norms"], two[1]["norms"], strict=True):
        for key in ("output", "input"):
            apart = torch.tensor(first[key] + second[key])
            torch.testing.assert_close(apart, torch.tensor(one[key]), atol=2e-5, rtol=1e-4)
        for told in (first, second):
            assert told["state"].keys() == one["state"].keys()
            for key, value in one["state"].items():
                torch.testing.assert_close(torch.tensor(told["state"][key]), torch.tensor(value), atol=1e-5, rtol=1e-5)
            for mine, theirs in zip(told["own"], one["own"], strict=True):
                torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), atol=1e-4, rtol=1e-4)


def test_the_others_wait_a_day_while_rank_0_validates(two):
    assert two[0]["wait_s"] == 24 * 3600
