"""A run killed at random points, Snakemake and its jobs alike, ends in the same dataset."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
KILLS = 10


def working_folder(path: Path, base: dict) -> Path:
    """A folder that looks like the repository to `hepipe run`."""
    path.mkdir()
    for name in ("Snakefile", "workflow", "profiles", "envs"):
        (path / name).symlink_to(ROOT / name)
    config = {**base, "datasets": {"cohort": base["datasets"]["cohort"]}, "evaluation": {"test_on": {"cohort": "test"}}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def start(folder: Path, *, cores: int) -> subprocess.Popen[bytes]:
    """`hepipe run` in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "hepipe", "run", "--cores", str(cores)],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def fingerprint(folder: Path) -> str:
    return json.loads((folder / "results/cohort/dataset.json").read_text())["fingerprint"]


def model(folder: Path) -> bytes:
    return (folder / "results/runs/pyramid/model.safetensors").read_bytes()


def test_ten_kills_on_two_cores_end_in_the_fingerprint_and_the_model_of_a_quiet_run_on_one(tmp_path, base):
    quiet = working_folder(tmp_path / "quiet", base)
    began = time.monotonic()
    assert start(quiet, cores=1).wait(timeout=1800) == 0, (quiet / "output.txt").read_text()[-3000:]
    whole_run = time.monotonic() - began

    killed = working_folder(tmp_path / "killed", base)
    draw = random.Random(20)
    kills = 0
    for _ in range(KILLS):
        process = start(killed, cores=2)
        try:
            process.wait(timeout=draw.uniform(0.04, 0.16) * whole_run)
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert start(killed, cores=2).wait(timeout=1800) == 0, (killed / "output.txt").read_text()[-3000:]
    assert kills >= 8, f"only {kills} kills hit a run of {whole_run:.0f} s"
    assert fingerprint(killed) == fingerprint(quiet)
    assert model(killed) == model(quiet)
