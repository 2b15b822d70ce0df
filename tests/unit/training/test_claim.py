"""One training a run folder."""

import os
import subprocess
import sys

import pytest

from hepipe.errors import StoreError
from hepipe.training.claim import claimed

HOLD = """
import sys, time
from pathlib import Path
from hepipe.training.claim import claimed
with claimed(Path(sys.argv[1]), run="r"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "r")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_of_a_run_is_refused_with_the_first_ones_process(tmp_path, holder):
    with pytest.raises(StoreError, match=rf"run r: process {holder.pid} on host .* two trainings would overwrite"):
        claimed(tmp_path / "r", run="r").__enter__()


def test_a_killed_training_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    with claimed(tmp_path / "r", run="r"):
        assert [path.name for path in (tmp_path / "r").iterdir()] == [".training.lock"]
    assert list((tmp_path / "r").iterdir()) == []


def test_the_lock_goes_with_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "r", run="r"):
        raise ZeroDivisionError
    with claimed(tmp_path / "r", run="r"):
        pass


def test_another_run_trains_beside_it(tmp_path, holder):
    with claimed(tmp_path / "other", run="other"):
        assert os.listdir(tmp_path / "r") == [".training.lock"]
