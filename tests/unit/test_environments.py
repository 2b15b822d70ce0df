"""The conda environments, the exact pins and the ranges name the same versions."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^[\s-]*([A-Za-z0-9_.-]+)==(\S+)$", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def ranges() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    parsed = [Requirement(text) for text in texts]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_names_the_pinned_versions(path):
    named = pins(path.read_text())
    assert named, path
    assert {name: CONSTRAINTS.get(name) for name in named} == named


def test_every_dependency_is_pinned_within_its_range():
    own = {canonicalize_name("hepipe")}
    for name, requirement in ranges().items():
        if name in own:
            continue
        assert name in CONSTRAINTS, f"{name} has no pin in constraints.txt"
        assert CONSTRAINTS[name] in requirement.specifier, (name, CONSTRAINTS[name], str(requirement.specifier))


def test_torch_is_pinned_without_a_build_so_that_one_file_gives_cpu_and_cuda():
    assert re.search(r"^torch==[0-9.]+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_the_slide_environment_has_no_torch():
    assert "torch" not in pins((ROOT / "envs/slides.yaml").read_text())
