"""The guide of docs/models.md cannot rot: its table is made again, and its example goes through the contract tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import hepipe
from hepipe.cli import doctor, models
from hepipe.models.catalog import ZOO, catalog, read_entry

ROOT = Path(__file__).parents[3]
CONTRACT = "tests/unit/models/test_zoo.py"
GUIDE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
app = typer.Typer()
models.register(app)
doctor.register(app)  # an app of one command would take no name of it


@pytest.fixture
def example():
    """Name and text of the zoo file that the guide shows."""
    found = re.search(r"```python\n# hepipe/models/zoo/(\w+)\.py\n(.*?)```", GUIDE, re.DOTALL)
    return found[1], found[2]


def test_the_guide_s_table_is_that_of_the_zoo():
    shown = re.search(r"<!-- models: begin -->\n(.*?)\n<!-- models: end -->", GUIDE, re.DOTALL)[1]
    made = CliRunner().invoke(app, ["models", "--markdown"], catch_exceptions=False).output.strip()
    assert shown.splitlines() == made.splitlines(), "write docs/models.md anew: hepipe models --markdown"


def test_the_guide_names_every_literal_that_a_file_must_state(example, tmp_path):
    name, text = example
    assert name not in catalog()
    stated = {line.split(" =")[0].split(":")[0] for line in text.splitlines() if re.match(r"[A-Z_]+(:.*)? = ", line)}
    for literal in stated - {"PRESETS", "NOT_RELEASED"}:
        assert f"| `{literal}` |" in GUIDE, literal
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    assert {"paper", "small", "tiny"} <= set(read_entry(path).presets)


def test_the_guide_s_example_keeps_the_contract_as_one_more_file_of_the_zoo(example, tmp_path):
    name, text = example
    package = Path(hepipe.__file__).parent
    shutil.copytree(package, tmp_path / "hepipe", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "hepipe" / ZOO.relative_to(package) / f"{name}.py").write_text(text)
    # -P keeps the working folder, where the package lies too, off the path.
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", name]
    done = subprocess.run(
        [*command, CONTRACT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    n_asked = len(re.findall(r"^def test_\w+\((?:entry|method)\b", (ROOT / CONTRACT).read_text(), re.MULTILINE))
    assert f"{n_asked} passed" in done.stdout


def test_the_readme_s_table_agrees_with_the_guide_s():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in catalog():
        row = next(line for line in readme.splitlines() if line.startswith("| `") and f"`{name}`" in line)
        _, _, _, _, weighs, gmac, _ = next(line for line in GUIDE.splitlines() if f"| `{name}` |" in line).split(" | ")
        if name not in ("identity", "mean_colour", "pixel_map"):
            assert f"| {weighs} | {gmac}" in row, name
