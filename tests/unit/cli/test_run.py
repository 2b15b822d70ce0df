"""`hepipe run`: locks of dead and living runs, one error for many jobs, where the time went."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from hepipe.cli import run
from hepipe.errors import HepipeError


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A working folder with a lock in it; returns where the record of the run belongs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.output.lock").touch()
    return tmp_path / "run.json"


def test_a_folder_without_a_lock_needs_no_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run.clear_dead_lock(tmp_path / "nowhere.json")


def test_a_lock_without_a_record_names_the_command_to_use(locked):
    with pytest.raises(HepipeError, match="snakemake --unlock"):
        run.clear_dead_lock(locked)


def test_a_living_run_is_left_alone(locked):
    run.write_run_record(locked)
    with pytest.raises(HepipeError, match=f"another run works here \\(process {os.getpid()}\\)"):
        run.clear_dead_lock(locked)


def test_a_run_on_another_host_is_left_alone(locked):
    locked.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "5"}))
    with pytest.raises(HepipeError, match="host elsewhere"):
        run.clear_dead_lock(locked)


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1], ids=["the number went to another process", "no process"])
def test_a_dead_run_is_unlocked(locked, monkeypatch, pid):
    calls = []
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: calls.append(command))
    locked.write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "started": "1"}))
    run.clear_dead_lock(locked)
    assert [command[-1] for command in calls] == ["--unlock"]


def test_a_killed_process_that_nobody_waited_for_is_dead():
    process = subprocess.Popen(["sleep", "60"])
    assert run._started(process.pid)
    process.kill()
    deadline = time.monotonic() + 10
    while run._started(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Path(f"/proc/{process.pid}").exists()
    assert run._started(process.pid) == ""
    process.wait()


def test_a_folder_that_cannot_be_written_to_is_an_error_with_advice(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(HepipeError, match="cannot be written to"):
        run.write_run_record(tmp_path / "results/private/run.json")
    with pytest.raises(HepipeError, match="it is a file, a folder is expected; move what is there away"):
        run.check_folder(tmp_path / "results")


def test_a_folder_that_is_there_or_can_be_made_passes(tmp_path):
    run.check_folder(tmp_path)
    run.check_folder(tmp_path / "results")


def test_many_failed_jobs_with_one_reason_are_one_line(tmp_path, monkeypatch):
    lines = []
    for number in range(3):
        log = tmp_path / f"job{number}.log"
        log.write_text("Traceback …\nOSError: [Errno 28] No space left on device\n\n")
        lines += [
            f"Error in rule tile_case:\n    jobid: {number}\n    log: {log} (check log file(s) for error details)"
        ]
    snakemake_log = tmp_path / "snakemake.log"
    snakemake_log.write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    text = run.explain(snakemake_log)
    assert text.startswith("hepipe: 3 jobs failed")
    assert "3 x OSError: [Errno 28] No space left on device (tile_case" in text
    assert len(text.splitlines()) == 2


def test_the_time_table_adds_up_by_rule(tmp_path):
    for rule, seconds in (("train/a", 3.0), ("train/b", 4.0), ("report", 1.0)):
        file = tmp_path / f"{rule}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")
    lines = run.time_table(tmp_path).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["train", "2", "jobs"], ["report", "1", "jobs"]]
    assert "7.0 s" in lines[1]


def test_a_run_without_a_report_still_says_which_cases_failed_and_why(tmp_path):
    status = {"state": "failed", "stage": "slides", "reason": "no pixel size in the file"}
    case = {"case_id": "c1", "status": status}
    doubt = {"state": "review", "stage": "registration", "reason": "look at the overlay"}
    waits = {"case_id": "c2", "status": doubt, "n_held": 4}
    card = {"name": "mine", "n_tiles": 9, "n_kept": 0, "cases": [case, waits]}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/dataset.json").write_text(json.dumps(card))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/dataset.json").write_text("{")
    assert run.verdicts(tmp_path) == [
        "  mine: 0 of 9 tiles kept",
        "    c1 failed at slides: no pixel size in the file",
        "    c2 in review, 4 tiles held back: look at the overlay",
        "  torn: its card is not readable",
    ]
