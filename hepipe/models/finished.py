"""Building a method from its record, and the finished model on disk: safetensors without extra state."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hepipe.errors import ConfigError, StoreError, WeightsError
from hepipe.models.method import Method, Part
from hepipe.models.resolved import ResolvedRun, read_resolved, zoo_module
from hepipe.stores.provenance import Provenance
from hepipe.weights.store import load, state

_EXTRA = "_extra_state"
"""Last word of the key under which torch keeps a module's `get_extra_state`."""


def build_method(run: ResolvedRun, parts: Mapping[str, Part]) -> Method:
    """A fresh method of a run, seeded by it, so that every process starts from the same weights."""
    module = zoo_module(run.model)
    config = type(module.PRESETS[run.preset]).model_validate(dict(run.config))
    torch.manual_seed(run.seed)
    method: Method = module.build(config, parts)
    return method


def load_parts(run: ResolvedRun, folders: Mapping[str, Path], *, training: bool) -> dict[str, Part]:
    """The parts of a run: from the folder of the run that fills it, or the weights file of its role.

    Prediction leaves out what is for training only.

    Raises:
        ConfigError: A part has no folder, or a folder no part.
        WeightsError: A weights file is not the one that was there when the run was resolved.
    """
    wanted = {
        name: part for name, part in run.parts.items() if not part.absent and (training or not part.training_only)
    }
    if unknown := sorted(folders.keys() - run.parts.keys()):
        raise ConfigError(f"run {run.name}: {run.model} {run.preset} takes no part {', '.join(unknown)}")
    runs = {name for name, part in wanted.items() if part.kind == "run"}
    if missing := sorted(runs - folders.keys()):
        raise ConfigError(f"run {run.name}: part {', '.join(missing)} not given; use --part NAME=RUN_FOLDER")
    parts = {}
    for name, part in sorted(wanted.items()):
        if part.kind == "run":
            path = folders[name] / "model.safetensors"
            other = read_resolved(folders[name] / "config.json")
            parts[name] = Part(read_state(path), dict(other.config), file_sha256(path))
            continue
        found = state(part.source)
        if found.sha256 != part.sha256:
            raise WeightsError(
                f"weights role {part.source} is {found.state} or another file than when run {run.name} was resolved; "
                "resolve the run again"
            )
        parts[name] = Part(load(part.source), {}, part.sha256)
    return parts


def device_of(run: ResolvedRun) -> torch.device:
    """The device that the run names.

    Raises:
        ConfigError: cuda is asked for and there is none.
    """
    name = run.training.device
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"runs.{run.name}.training.device: cuda asked for, but torch {torch.__version__} sees no such device; "
            "see `hepipe doctor`, or set cpu"
        )
    return torch.device(name)


def finished_state(method: Method) -> dict[str, Tensor]:
    """What of a method's state the finished model holds: tensors on the CPU, no extra state."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in method.state_dict().items()
        if name.rpartition(".")[2] != _EXTRA
    }


def write_finished(path: Path, state: Mapping[str, Tensor], provenance: Provenance) -> None:
    """Store a finished model whole; its header holds the provenance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(dict(state), beside, metadata={"hepipe": provenance.model_dump_json()})
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a finished model.

    Raises:
        StoreError: Missing or no safetensors.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise StoreError(f"{path}: not a readable model ({type(error).__name__}); run `train` again") from None
    return state


def read_finished_provenance(path: Path) -> Provenance:
    """How a finished model was made: config digest, dataset fingerprint, parts."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return Provenance.model_validate_json(metadata["hepipe"])
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise StoreError(f"{path}: not a model of hepipe ({type(error).__name__})") from None


def load_state(method: Method, state: Mapping[str, Tensor], *, what: str) -> None:
    """Put a finished model's tensors into a method; its extra state stays as built.

    Raises:
        StoreError: Listing missing, unexpected and differently shaped tensors; nothing is loaded then.
    """
    own: dict[str, Any] = method.state_dict()
    check_state(own, state, what=what)
    method.load_state_dict({**own, **state})


def check_state(own: Mapping[str, Any], state: Mapping[str, Tensor], *, what: str) -> None:
    """Whether tensors are those of a method's state, of the same shapes.

    Raises:
        StoreError: Listing missing, unexpected and differently shaped ones.
    """
    tensors = {name: value for name, value in own.items() if name.rpartition(".")[2] != _EXTRA}
    problems = [f"missing {name}" for name in sorted(tensors.keys() - state.keys())]
    problems += [f"unexpected {name}" for name in sorted(state.keys() - tensors.keys())]
    problems += [
        f"{name} of shape {tuple(state[name].shape)}, {tuple(tensors[name].shape)} expected"
        for name in sorted(tensors.keys() & state.keys())
        if state[name].shape != tensors[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise StoreError(f"{what}: holds another model's weights: {shown}")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
