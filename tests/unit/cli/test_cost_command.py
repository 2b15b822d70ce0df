import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from hepipe.cli import cost, doctor
from hepipe.config import load_config
from hepipe.errors import ConfigError
from hepipe.models.rates import UNKNOWN, training_workload
from hepipe.models.resolved import resolve_run
from hepipe.report.plan import NOT_COUNTED, plan, totals
from hepipe.stores.costs import COST, Cost, Expected, Rate, Session, Workload, write_cost, write_rates

app = typer.Typer()
cost.register(app)
doctor.register(app)  # an app of one command would take no name of it

TRAINING = {"n_steps": 50, "batch_size": 2, "crop_px": 64, "threads": 2}


@pytest.fixture
def raw():
    return {
        "datasets": {"set": {"synth": {}}},
        "training": TRAINING,
        "runs": {
            "colour": {"model": "pixel_map", "preset": "tiny", "dataset": "set"},
            "mean": {"model": "mean_colour", "preset": "tiny", "dataset": "set"},
        },
    }


@pytest.fixture
def results(make_index, tmp_path):
    """A results folder whose one data set is assembled."""
    make_index({"train": 4, "val": 2, "test": 3}, tile_px=64)
    return tmp_path


def rate(config, run, seconds):
    work = training_workload(resolve_run(run, config.runs[run]))
    return Rate(workload=work, seconds=seconds, source="a benchmark")


def test_before_anything_is_known_nothing_is_guessed(raw, tmp_path):
    colour, mean = plan(load_config(raw), tmp_path / "results")
    train, predict = colour.stages
    assert (train.n_units, train.expected.ground, train.device_hours) == (50, UNKNOWN, None)
    assert (predict.n_units, predict.expected.ground, predict.disk_bytes) == (None, NOT_COUNTED, None)
    assert (mean.stages[0].n_units, mean.stages[0].expected.ground) == (None, NOT_COUNTED)
    assert totals([colour, mean])[0].open == 4


def test_a_rate_gives_core_hours_of_the_cores_asked_for(raw, results, tmp_path):
    config = load_config(raw)
    write_rates(tmp_path / "measured.json", [rate(config, "colour", 0.5)])
    colour, _ = plan(config, results, rates_file=tmp_path / "measured.json")
    train = colour.stages[0]
    assert train.expected.wall_s == pytest.approx(25)
    assert train.device_hours == pytest.approx(25 * 2 / 3600)
    assert "a benchmark" in train.expected.ground


def test_disk_is_counted_from_shapes_and_from_tiles_that_lie_there(raw, results):
    config = load_config(raw)
    colour, _ = plan(config, results)
    assert colour.stages[0].disk_bytes == 4 * (3 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3)  # three 1 x 1 convolutions
    assert colour.stages[1].disk_bytes == 3 * 64 * 64 * 3
    work = Workload(stage="predict", model="m", preset="p", unit="tile", side_px=64, device="cpu")
    session = Session(units=10, wall_s=1.0, cpu_s=1.0, memory_mb=1.0, ended=True)
    half = Cost(
        run="r",
        key="k",
        workload=work,
        n_units=10,
        expected=Expected(ground=""),
        sessions=(session,),
        disk_bytes=10 * 64 * 64 * 3 // 2,
    )
    write_cost(results / "runs" / "r" / "on" / "set" / "test" / f"virtual.{COST}", half)
    again, _ = plan(config, results)
    assert again.stages[1].disk_bytes == pytest.approx(3 * 64 * 64 * 3 / 2)


def test_passes_over_the_tiles_are_counted_in_steps_once_the_tiles_are(raw, results, tmp_path):
    raw["runs"] = {"cut": {"model": "cut", "preset": "paper", "dataset": "set"}}
    raw["training"] = {**TRAINING, "budget": "published_epochs"}
    config = load_config(raw)
    before, after = plan(config, tmp_path / "none")[0], plan(config, results)[0]
    assert before.stages[0].n_units is None
    steps = resolve_run("cut", config.runs["cut"]).n_steps(4)
    assert after.stages[0].n_units == steps > 50


def test_a_run_that_cannot_be_made_is_told_and_counted_as_open(raw, tmp_path):
    raw["runs"]["odd"] = {"model": "cut", "preset": "tiny", "dataset": "set", "options": {"widht": 3}}
    odd = plan(load_config(raw), tmp_path)[-1]
    assert "widht" in odd.problem
    assert totals([odd])[0].open == 1


def hepipe(*options):
    return CliRunner().invoke(app, ["cost", *map(str, options)], catch_exceptions=False).output


def test_the_table_fits_a_terminal_and_says_what_is_open(raw, results, tmp_path):
    config, rates = tmp_path / "config.yaml", tmp_path / "measured.json"
    config.write_text(yaml.safe_dump(raw))
    write_rates(rates, [rate(load_config(raw), "colour", 0.5)])
    text = hepipe("--config", config, "--results", results, "--rates", rates)
    assert max(map(len, text.splitlines())) <= 100
    assert "25 s" in text
    assert "0.014 CPU h" in text
    assert "CPU-hours (cores asked for) in all: 0.014, and 3 jobs of which nothing is known" in text
    told = json.loads(hepipe("--config", config, "--results", results, "--rates", rates, "--json"))
    assert told["runs"][0]["stages"][0]["device_hours"] == pytest.approx(25 * 2 / 3600)
    assert told["totals"][0]["open"] == 3


def test_a_config_that_is_none_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    for text, said in (
        ("a: [", "no YAML"),
        ("- 1", "sections such as"),
        ("runs: {}\nruns: {}", "runs: stands in line 1"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            hepipe("--config", path)


def test_a_config_without_runs_trains_nothing(raw, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"datasets": raw["datasets"]}))
    assert "trains nothing" in hepipe("--config", path)
