import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hepipe.errors import WeightsError
from hepipe.weights import manifest, store
from hepipe.weights.manifest import Role, roles

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A role `toy`, whose file is known by the first digits of its hash."""
    path = save(tmp_path / "toy-1.pth", TENSORS)
    toy = Role(
        name="toy", files=("toy-1.pth",), sha256=store.file_sha256(path)[:8], upstream="toys", licence="none",
        enables="play", tensors={"a.weight": (2, 3)},
    )  # fmt: skip
    every = {"toy": toy}
    monkeypatch.setattr(manifest, "roles", lambda: every)
    monkeypatch.setattr(store, "roles", lambda: every)
    monkeypatch.setattr(store, "role", lambda name: every[name])
    return path


def test_the_shipped_manifest_is_complete():
    assert {"fid-inception", "resnet50", "vgg16", "lpips-alex", "standin", "her2-classifier"} <= roles().keys()
    for role in roles().values():
        assert role.files
        assert role.enables
        assert len(role.sha256) in (0, 8, 64)


def test_an_unknown_role_names_those_there_are():
    with pytest.raises(WeightsError, match="no weights role 'vgg'; there are fid-inception, "):
        manifest.role("vgg")


def test_a_missing_file_says_what_to_fetch_and_what_it_enables(source: Path, tmp_path: Path):
    assert store.state("toy", folder=tmp_path / "none").state == "missing"
    with pytest.raises(WeightsError, match=r"weights missing \(toy\): put toy-1.pth of toys into .*; it enables play"):
        store.find("toy", folder=tmp_path / "none")


def test_an_added_file_is_found_converted_with_its_hash(source: Path, tmp_path: Path):
    added = store.add("toy", source, folder=tmp_path / "w")
    assert (added.state, added.sha256) == ("ok", store.file_sha256(source))
    path = store.find("toy", folder=tmp_path / "w")
    assert path.name == "toy.safetensors"
    assert torch.equal(load_file(path)["a.weight"], TENSORS["a.weight"])
    assert store.load("toy", folder=tmp_path / "w").keys() == TENSORS.keys()


def test_an_upstream_file_in_the_folder_is_used_as_it_is(source: Path, tmp_path: Path):
    assert store.find("toy", folder=tmp_path) == source
    assert torch.equal(store.load("toy", folder=tmp_path)["a.bias"], TENSORS["a.bias"])


def test_a_wrong_hash_is_always_an_error(source: Path, tmp_path: Path):
    other = save(tmp_path / "other.pth", {"a.weight": torch.zeros(2, 3)})
    with pytest.raises(WeightsError, match=r"weights toy: other.pth has SHA-256 .*… expected \(toy-1.pth of toys\)"):
        store.add("toy", other, folder=tmp_path / "w")
    os.replace(other, source)
    assert store.state("toy", folder=tmp_path).state == "wrong hash"
    with pytest.raises(WeightsError, match="fetch the file again"):
        store.load("toy", folder=tmp_path)


def test_a_converted_file_that_has_changed_is_an_error(source: Path, tmp_path: Path):
    path = store.add("toy", source, folder=tmp_path / "w").path
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert store.state("toy", folder=tmp_path / "w").state == "wrong hash"


def test_wrong_tensors_are_an_error(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch):
    toy = Role("toy", ("toy-1.pth",), "", "toys", "none", "play", {"a.weight": (3, 2)})
    monkeypatch.setattr(store, "role", lambda name: toy)
    with pytest.raises(WeightsError, match=r"tensor a.weight of shape \(3, 2\) expected, found \(2, 3\)"):
        store.add("toy", source, folder=tmp_path / "w")


class Runs:
    """What a file with code in it does when it is read carelessly."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    bad = save(tmp_path / "bad.pth", {"a": Runs()})
    with pytest.raises(WeightsError, match=r"bad\.pth: holds \w+\.mkdir, which only running code can build"):
        store.read_torch_file(bad)
    assert not (tmp_path / "ran").exists()


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match="a dictionary of tensors expected, found list"):
        store.read_torch_file(save(tmp_path / "list.pth", [1, 2]))
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(WeightsError, match="not a torch file"):
        store.read_torch_file(tmp_path / "text.pth")


def test_a_checkpoint_with_a_state_dict_is_opened(tmp_path: Path):
    assert store.read_torch_file(save(tmp_path / "a.pth", {"state_dict": TENSORS})).keys() == TENSORS.keys()


def test_the_folder_is_the_option_then_the_variable_then_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HEPIPE_WEIGHTS", raising=False)
    assert store.weights_folder() == Path("weights")
    monkeypatch.setenv("HEPIPE_WEIGHTS", "elsewhere")
    assert store.weights_folder() == Path("elsewhere")
    assert store.weights_folder(Path("here")) == Path("here")


def test_a_converted_file_with_other_tensors_is_told_by_its_header(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store.add("toy", source, folder=tmp_path / "w")
    toy = Role("toy", ("toy-1.pth",), "", "toys", "none", "play", {"b.weight": (2, 3)})
    monkeypatch.setattr(store, "role", lambda name: toy)
    assert store.state("toy", folder=tmp_path / "w").state == "wrong tensors"
    with pytest.raises(WeightsError, match=r"toy.safetensors holds other tensors than b.weight of toy-1.pth"):
        store.find("toy", folder=tmp_path / "w")
