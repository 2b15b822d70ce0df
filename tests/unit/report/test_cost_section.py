import html
import json
import re

import pytest

from hepipe.report.page import write_report
from hepipe.report.spec import ReportSpec
from hepipe.stores.costs import COST, Cost, Expected, Session, Workload, write_cost


def account(run, *sessions, stage="train", expected=None, disk_bytes=None):
    workload = Workload(
        stage=stage,
        model="cut",
        preset="small",
        unit="step" if stage == "train" else "tile",
        tiles_a_unit=4 if stage == "train" else 1,
        side_px=64,
        device="cpu",
        machine="Some CPU",
        threads=2,
    )
    before = expected or Expected(ground="no rate known")
    return Cost(
        run=run,
        key="k",
        workload=workload,
        n_units=40,
        expected=before,
        sessions=sessions,
        disk_bytes=disk_bytes,
    )


def session(units, wall_s, *, ended=True):
    return Session(units=units, wall_s=wall_s, cpu_s=wall_s, memory_mb=512.0, ended=ended)


@pytest.fixture
def section(results, cohort, tmp_path):
    def write(*costs, runs=("mine",)):
        results.dataset("restained", cohort)
        for run in runs:
            results.run(run, "restained", model="cut")
        for cost in costs:
            folder = results.folder / "runs" / cost.run
            if cost.workload.stage == "predict":
                write_cost(folder / "on" / "restained" / "test" / f"virtual.{COST}", cost)
            else:
                write_cost(folder / COST, cost)
        spec = ReportSpec.model_validate_json(json.dumps(results.spec))
        page = tmp_path / "report.html"
        write_report(results.folder, spec, page=page, status=tmp_path / "status.tsv", tables=tmp_path / "tables")
        found = re.search(r'<section id="cost">.*?</section>', page.read_text(encoding="utf-8"), re.DOTALL)[0]
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found)).split())

    return write


def test_what_was_expected_stands_beside_what_it_took(section):
    shown = section(
        account(
            "mine",
            session(40, 3600.0),
            expected=Expected(wall_s=1800.0, ground="measured in run a"),
            disk_bytes=2_000_000,
        ),
        account("mine", session(40, 20.0), stage="predict", disk_bytes=500_000),
    )
    assert "train, 40 steps cut, small; Some CPU, 2 cores 30.0 min measured in run a 60.0 min 2 90 s a step" in shown
    assert "512.0 MB 2.0 MB" in shown
    assert "GPU memory" not in shown
    assert "predict, 40 tiles" in shown
    assert "– no rate known 20 s 0.0111 0.5 s a tile" in shown
    assert "In all 2.01 CPU core-hours; 2.5 MB of models and virtual tiles." in shown


def test_a_killed_job_s_time_is_counted_and_an_unfinished_one_says_so(section):
    shown = section(account("mine", session(10, 100.0, ended=False), session(40, 200.0)))
    assert "5.0 min in 2 sessions" in shown
    shown_of_half = account("mine", session(10, 100.0, ended=False))
    assert not shown_of_half.finished


def test_a_run_without_an_account_is_named(section):
    shown = section(account("mine", session(40, 10.0, ended=False)), runs=("mine", "other"))
    assert "not finished" in shown
    assert "Without an account: other." in shown


def test_no_account_at_all_leaves_a_remark(section):
    assert "No run of this report has an account" in section()
