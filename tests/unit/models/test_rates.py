import pytest

from hepipe.errors import StoreError
from hepipe.models.rates import UNKNOWN, expected, known_rates, prediction_workload, training_workload
from hepipe.models.resolved import ResolvedRun
from hepipe.specs.training import TrainingSpec
from hepipe.stores.costs import COST, Cost, Expected, Rate, Session, Workload, read_cost, write_cost, write_rates
from hepipe.stores.provenance import Provenance


def work(**changed):
    values = {
        "stage": "train",
        "model": "cut",
        "preset": "small",
        "unit": "step",
        "tiles_a_unit": 4,
        "side_px": 128,
        "device": "cpu",
        "machine": "Some CPU",
        "threads": 2,
    }
    return Workload.model_validate(values | changed)


def rate(seconds, source="run a", **changed):
    return Rate(workload=work(**changed), seconds=seconds, source=source)


def account(*sessions, run="a", key="k", **changed):
    workload = work(**changed)
    return Cost(run=run, key=key, workload=workload, n_units=10, expected=Expected(ground=UNKNOWN), sessions=sessions)


def session(units, wall_s, *, ended=True, memory_mb=100.0):
    return Session(units=units, wall_s=wall_s, cpu_s=wall_s, memory_mb=memory_mb, ended=ended)


def record(**training):
    return ResolvedRun(
        name="mine",
        model="cut",
        preset="small",
        dataset="d",
        seed=0,
        config={},
        parts={},
        training=TrainingSpec.model_validate(training),
        pairing="unpaired",
        needs=(),
        provenance=Provenance(artefact="run", subject="mine", spec={"options": {"width": 8}}),
    )


def test_nothing_is_guessed_without_a_rate():
    assert expected(work(), 100, []) == Expected(wall_s=None, ground=UNKNOWN)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "asp"},
        {"preset": "paper"},
        {"options": '{"width": 8}'},
        {"device": "cuda"},
        {"precision": "bf16"},
        {"speed": "compile default"},
        {"stage": "predict"},
    ],
)
def test_a_rate_of_other_work_counts_for_nothing(other):
    assert expected(work(), 100, [rate(1.0, **other)]).wall_s is None


def test_the_same_work_is_taken_as_it_was_measured_and_several_by_their_median():
    rates = [rate(0.1), rate(0.2, "run b"), rate(0.9, "run c"), rate(7.0, "run d", side_px=256)]
    found = expected(work(), 100, rates)
    assert found.wall_s == pytest.approx(20)
    assert found.ground == "measured in run a, run b, run c"


def test_another_size_is_scaled_by_its_pixels_and_says_so():
    found = expected(work(side_px=256, tiles_a_unit=2), 10, [rate(0.5)])
    assert found.wall_s == pytest.approx(0.5 * 10 * (2 * 256**2) / (4 * 128**2))
    assert found.ground == "measured in run a, scaled by pixels from 4 × 128 px"


def test_this_machine_goes_before_another_which_is_named():
    other = rate(9.0, "run b", machine="Other CPU", threads=16)
    assert expected(work(), 1, [other, rate(1.0, side_px=64)]).wall_s == pytest.approx(4.0)
    found = expected(work(), 1, [other])
    assert (found.wall_s, found.ground) == (
        9.0,
        "measured in run b, on Other CPU, with 16 threads in place of 2",
    )


def test_a_rate_for_a_machine_that_is_not_known_yet_names_where_it_was_measured():
    found = expected(work(machine=""), 2, [rate(1.0)])
    assert (found.wall_s, found.ground) == (2.0, "measured in run a, on Some CPU")


def test_a_killed_session_counts_as_spent_and_rates_come_from_finished_accounts_alone(tmp_path):
    broken = account(session(4, 8.0, ended=False))
    whole = account(session(4, 8.0, ended=False, memory_mb=300.0), session(8, 4.0), run="b")
    assert (whole.wall_s, whole.seconds_a_unit, whole.memory_mb) == (12.0, 1.0, 300.0)
    assert whole.device_hours == pytest.approx(12 * 2 / 3600)
    for cost in (broken, whole):
        write_cost(tmp_path / cost.run / COST, cost)
    write_cost(tmp_path / "b" / "on" / "d" / "test" / f"virtual.{COST}", whole.model_copy(update={"run": "c"}))
    found = [(rate.source, rate.seconds) for rate in known_rates(tmp_path)]
    assert found == [("run b", 1.0), ("run c", 1.0)]


def test_a_benchmark_s_rates_lie_in_the_working_folder_or_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert known_rates(tmp_path / "runs") == []
    for name, seconds in (("rates.json", 0.25), ("others.json", 0.5)):
        write_rates(tmp_path / name, [rate(seconds, "benchmark")])
    assert [found.seconds for found in known_rates(tmp_path / "runs")] == [0.25]
    assert [found.seconds for found in known_rates(tmp_path / "runs", file=tmp_path / "others.json")] == [0.5]
    (tmp_path / "rates.json").write_text("[{}]")
    with pytest.raises(StoreError, match="no list of rates"):
        known_rates(tmp_path / "runs")


def test_an_account_of_another_version_is_no_rate(tmp_path):
    path = tmp_path / "a" / COST
    write_cost(path, account(session(1, 1.0)))
    assert read_cost(path).finished
    path.write_text(path.read_text().replace('"run"', '"ran"'))
    assert known_rates(tmp_path) == []


def test_a_run_s_record_says_what_its_work_is():
    run = record(batch_size=8, crop_px=64, threads=3)
    training = training_workload(run, machine="Some CPU")
    assert (training.tiles_a_unit, training.side_px, training.units_at_once) == (8, 64, 3)
    assert training.options == '{"width": 8}'
    prediction = prediction_workload(run, side_px=512)
    assert (prediction.unit, prediction.tiles_a_unit, prediction.side_px) == ("tile", 1, 512)
    gpus = training_workload(record(device="cuda", gpus=2, threads=3, compile="default", channels_last=True))
    assert (gpus.units_at_once, gpus.speed) == (2, "compile default, channels last")
