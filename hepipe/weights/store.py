"""The weights folder: finding, checking, adding and loading a file. Nothing here downloads."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hepipe.errors import WeightsError
from hepipe.weights.checkpoint import read_torch
from hepipe.weights.manifest import Role, role, roles

if TYPE_CHECKING:
    from torch import Tensor

PREFIX_DIGITS = 8
MAX_NAMED_BYTES = 1_000_000_000
"""Of a file that is read whole."""


@dataclass(frozen=True)
class RoleState:
    """Whether a role is filled.

    Attributes:
        role: Which.
        path: The file that fills it, or would.
        state: `ok`, `missing`, `wrong hash`, `wrong tensors`. The last is only told of converted files, whose header
            lists their tensors; for others `load` tells it.
        sha256: Of the file as it came from upstream; empty when missing.
    """

    role: Role
    path: Path | None
    state: Literal["ok", "missing", "wrong hash", "wrong tensors"]
    sha256: str


def weights_folder(option: Path | None = None) -> Path:
    """The option if given, else HEPIPE_WEIGHTS, else `weights`."""
    return option or Path(os.environ.get("HEPIPE_WEIGHTS") or "weights")


def state(name: str, *, folder: Path | None = None) -> RoleState:
    """What fills a role: a converted file, an upstream file in the folder, or one in an installed package."""
    wanted = role(name)
    place = weights_folder(folder)
    converted = place / f"{name}.safetensors"
    if converted.is_file():
        record = _record(converted)
        source = str(record.get("sha256", ""))
        if file_sha256(converted) != record.get("file_sha256") or not _is_right(wanted, source):
            return RoleState(wanted, converted, "wrong hash", source)
        shapes = _header(converted)
        fits = all(shapes.get(tensor) == shape for tensor, shape in wanted.tensors.items())
        return RoleState(wanted, converted, "ok" if fits else "wrong tensors", source)
    for path in [*(place / file for file in wanted.files), *_packaged(wanted)]:
        if path.is_file():
            sha256 = file_sha256(path)
            return RoleState(wanted, path, "ok" if _is_right(wanted, sha256) else "wrong hash", sha256)
    return RoleState(wanted, None, "missing", "")


def status(*, folder: Path | None = None) -> list[RoleState]:
    """The state of every role."""
    return [state(name, folder=folder) for name in roles()]


def find(name: str, *, folder: Path | None = None) -> Path:
    """The file that fills a role.

    Raises:
        WeightsError: None does, or it has the wrong hash or tensors.
    """
    found = state(name, folder=folder)
    if found.state == "missing" or found.path is None:
        raise WeightsError(
            f"weights missing ({name}): put {found.role.files[0]} of {found.role.upstream} into "
            f"{weights_folder(folder)}; it enables {found.role.enables}"
        )
    if found.state == "wrong hash":
        raise WeightsError(
            f"weights {name}: {found.path.name} has SHA-256 {found.sha256[:PREFIX_DIGITS] or 'unknown'}…, "
            f"{found.role.sha256[:PREFIX_DIGITS] or 'that of its record'}… expected; fetch the file again"
        )
    if found.state == "wrong tensors":
        raise WeightsError(
            f"weights {name}: {found.path.name} holds other tensors than {', '.join(found.role.tensors)} of "
            f"{found.role.files[0]}; add the right file again"
        )
    return found.path


def load(name: str, *, folder: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a role, on the CPU.

    Raises:
        WeightsError: Missing, wrong hash or wrong tensors.
    """
    path = find(name, folder=folder)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = dict(load_file(path))
    else:
        tensors = read_torch_file(path)
    _check_tensors(role(name), tensors)
    return tensors


def add(name: str, source: Path, *, folder: Path | None = None) -> RoleState:
    """Check a file, convert it to safetensors in the weights folder and record its hash.

    Raises:
        WeightsError: Wrong hash, not a plain dictionary of tensors, wrong tensors.
    """
    from safetensors.torch import load_file, save

    wanted = role(name)
    if not source.is_file():
        raise WeightsError(f"weights {name}: {source}: no such file")
    sha256 = file_sha256(source)
    if not _is_right(wanted, sha256):
        raise WeightsError(
            f"weights {name}: {source.name} has SHA-256 {sha256[:PREFIX_DIGITS]}…, "
            f"{wanted.sha256[:PREFIX_DIGITS]}… expected ({wanted.files[0]} of {wanted.upstream})"
        )
    tensors = dict(load_file(source)) if source.suffix == ".safetensors" else read_torch_file(source)
    _check_tensors(wanted, tensors)
    place = weights_folder(folder)
    place.mkdir(parents=True, exist_ok=True)
    target = place / f"{name}.safetensors"
    beside = place / f".{target.name}.{os.getpid()}"
    # Shared storage, as of tied layers, does not survive in safetensors.
    beside.write_bytes(save({key: value.contiguous().clone() for key, value in tensors.items()}))
    record = {"role": name, "sha256": sha256, "file_sha256": file_sha256(beside), "source": source.name}
    os.replace(beside, target)
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, _record_path(target))
    return state(name, folder=folder)


def named_file(name: str, *, folder: Path | None = None) -> Path:
    """A file of the user's in the weights folder, which fills no role.

    Args:
        name: Of the file, without folders.
        folder: Of the weights; None: the usual one.

    Raises:
        WeightsError: Not there, a link that leads out of the folder, or too large.
    """
    place = weights_folder(folder)
    path = place / name
    if Path(name).name != name or not path.is_file():
        raise WeightsError(f"weights file {name!r}: not in {place}; put it there, or set HEPIPE_WEIGHTS to its folder")
    if path.resolve().parent != place.resolve():
        raise WeightsError(f"weights file {name}: a link that leads out of {place}; put the file itself there")
    size = path.stat().st_size
    if size > MAX_NAMED_BYTES:
        raise WeightsError(f"weights file {name}: {size / 1e9:.1f} GB, at most {MAX_NAMED_BYTES / 1e9:g} GB expected")
    return path


def named_bytes(name: str, sha256: str, *, folder: Path | None = None) -> bytes:
    """The bytes of such a file, hashed as they are given back.

    Args:
        name: Of the file, without folders.
        sha256: What it must have, 64 hex digits.
        folder: Of the weights; None: the usual one.

    Raises:
        WeightsError: As of `named_file`, or another file.
    """
    content = named_file(name, folder=folder).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"weights file {name}: SHA-256 {found} found, {sha256} expected; "
            "fetch the file again, or state its hash where it is named"
        )
    return content


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a torch file, read without running code from it.

    Raises:
        WeightsError: Not such a file.
    """
    import torch

    content = read_torch(path)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(torch.is_tensor(value) for value in content.values()):
        raise WeightsError(f"{path.name}: a dictionary of tensors expected, found {type(content).__name__}")
    return dict(content)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_right(wanted: Role, sha256: str) -> bool:
    return bool(sha256) and sha256.startswith(wanted.sha256)


def _check_tensors(wanted: Role, tensors: Mapping[str, Tensor]) -> None:
    for name, shape in wanted.tensors.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise WeightsError(
                f"weights {wanted.name}: tensor {name} of shape {shape} expected, found {found or 'none'}; "
                f"is this {wanted.files[0]}?"
            )


def _packaged(wanted: Role) -> list[Path]:
    if wanted.package is None or wanted.inside is None:
        return []
    spec = importlib.util.find_spec(wanted.package)
    return [] if spec is None or spec.origin is None else [Path(spec.origin).parent / wanted.inside]


def _header(converted: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor, read without torch: a length and JSON at the start of the file."""
    with converted.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def _record_path(converted: Path) -> Path:
    return converted.with_suffix(".json")


def _record(converted: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(_record_path(converted).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record
