"""Every row of `index.csv` in `--golden-dir` is one test."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import pytest
from cases import CHECKS, Case

from hepipe.models.catalog import catalog

SHARED_PARTS = ("conditional_diffusion", "metrics", "model_repo_metrics")

for module in sorted(Path(__file__).parent.glob("*.py")):
    if module.stem not in ("cases", "test_golden"):
        importlib.import_module(module.stem)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" not in metafunc.fixturenames:
        return
    folder, index = golden_folder(metafunc.config), golden_folder(metafunc.config) / "index.csv"
    if not index.is_file() and metafunc.config.getoption("--golden-dir"):
        raise pytest.UsageError(f"--golden-dir {folder}: no index.csv there")
    if not index.is_file():
        reason = f"no golden values in {folder.name}; give their folder as --golden-dir"
        rows = [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    else:
        with index.open(newline="") as file:
            rows = [pytest.param(row, id=row["file"]) for row in csv.DictReader(file)]
    metafunc.parametrize("row", rows)


def golden_folder(config: pytest.Config) -> Path:
    return Path(config.getoption("--golden-dir") or config.rootpath.parent / "shared" / "golden")


def test_golden(row: dict[str, str], pytestconfig: pytest.Config) -> None:
    model, kind = row["model"], row["kind"]
    check = CHECKS.get((model, kind))
    if check is None and model in catalog():
        pytest.fail(f"{model} is in the zoo, but no function checks its {kind}")
    if check is None:
        pytest.xfail(f"{model} is {'a shared part' if model in SHARED_PARTS else 'a model'} not built yet")
    check(Case(golden_folder(pytestconfig) / row["file"]))


def test_every_function_is_for_rows_that_a_test_could_meet() -> None:
    assert {"pyramid_pix2pix", "cssp2p"} <= {model for model, _ in CHECKS}
