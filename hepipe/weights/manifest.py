"""The roles that weight files play, and how the right file is told."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from hepipe.errors import WeightsError


@dataclass(frozen=True)
class Role:
    """What one weights file is for.

    Attributes:
        name: As in `hepipe weights add ROLE`.
        files: Accepted names of the upstream file.
        sha256: Of the upstream file, whole or its first digits; empty when any file may play the role.
        upstream: Project that publishes it.
        licence: As that project states it.
        enables: What cannot be done without it.
        tensors: Names and shapes that the file must hold.
        package: Python package that carries the file, if one does.
        inside: The file's place in that package.
    """

    name: str
    files: tuple[str, ...]
    sha256: str
    upstream: str
    licence: str
    enables: str
    tensors: Mapping[str, tuple[int, ...]]
    package: str | None = None
    inside: str | None = None


@functools.cache
def roles() -> Mapping[str, Role]:
    """Every role by name."""
    text = resources.files("hepipe.weights").joinpath("weights.toml").read_text(encoding="utf-8")
    found = {}
    for name, entry in tomllib.loads(text).items():
        shapes = {tensor: tuple(shape) for tensor, shape in entry.pop("tensors").items()}
        found[name] = Role(name=name, files=tuple(entry.pop("files")), tensors=shapes, **entry)
    return found


def role(name: str) -> Role:
    """One role.

    Raises:
        WeightsError: There is none of this name.
    """
    if name not in roles():
        raise WeightsError(f"no weights role {name!r}; there are {', '.join(roles())}")
    return roles()[name]
