"""A run with every value filled in: the record that `train`, `predict` and `score` read."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, ValidationError

from hepipe.errors import ConfigError, StoreError
from hepipe.models.catalog import PartNeed, check_choice
from hepipe.specs.base import Spec
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.stores.provenance import Provenance, digest
from hepipe.weights.store import find, state


class ResolvedPart(Spec):
    """What fills one part of a model."""

    kind: str = Field(description="run or weights.")
    source: str = Field("", description="Run name or weights role; empty when absent.")
    sha256: str = Field("", description="Of the weights file; a run's is in the finished model's header.")
    training_only: bool = False
    absent: bool = Field(False, description="An optional part that the run does without.")


class ResolvedRun(Spec):
    """`config.json` of a run."""

    name: str
    model: str
    preset: str
    dataset: str
    fold: int | None = Field(None, description="Fold of the data set that is its test.")
    seed: int
    config: Mapping[str, Any] = Field(description="The model's complete hyperparameters.")
    parts: Mapping[str, ResolvedPart]
    training: TrainingSpec
    pairing: str
    needs: tuple[str, ...]
    provenance: Provenance

    @property
    def digest(self) -> str:
        """Of everything that shapes the trained weights; a resume file of another digest is not continued."""
        shaping = self.model_dump(mode="json", exclude={"provenance": True, "name": True})
        for harmless in ("workers", "cache_mb", "tensorboard"):
            del shaping["training"][harmless]
        if self.fold is None:
            del shaping["fold"]
        return digest(shaping)


def zoo_module(model: str) -> ModuleType:
    """The zoo file of a model; importing it brings torch."""
    return importlib.import_module(f"hepipe.models.zoo.{model}")


def resolve_run(name: str, run: RunSpec) -> ResolvedRun:
    """The complete record of a run.

    Raises:
        ConfigError: Unknown model, preset, part or option, or an option's value that its Config refuses.
        WeightsError: A part's weights file is missing or not the right one.
    """
    where = f"runs.{name}"
    entry = check_choice(run, where=where)
    preset: Spec = zoo_module(run.model).PRESETS[run.preset]
    try:
        config = type(preset).model_validate({**preset.model_dump(), **run.options})
    except ValidationError as error:
        problems = [
            f"{where}.options.{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise ConfigError("config:\n  " + "\n  ".join(problems)) from None
    parts = {part: _resolve_part(run.parts.get(part), need) for part, need in entry.parts_of(run.preset).items()}
    return ResolvedRun(
        name=name,
        model=run.model,
        preset=run.preset,
        dataset=run.dataset,
        fold=run.fold,
        seed=run.seed,
        config=config.model_dump(mode="json"),
        parts=parts,
        training=run.training,
        pairing=entry.pairing,
        needs=entry.needs_of(run.preset),
        provenance=Provenance(artefact="run", subject=name, spec=run.model_dump(mode="json")),
    )


def _resolve_part(named: str | None, need: PartNeed) -> ResolvedPart:
    """What fills a part; a weights role has the file that is there now, whose hash `train` expects to find again."""
    if need.kind == "run":
        return ResolvedPart(kind="run", source=named or "", training_only=need.training_only, absent=named is None)
    role = named or need.role
    found = state(role)
    if found.state == "missing" and need.optional and named is None:
        return ResolvedPart(kind="weights", source=role, training_only=need.training_only, absent=True)
    find(role)  # raises when it is missing or not the file that the manifest means
    return ResolvedPart(kind="weights", source=role, sha256=found.sha256, training_only=need.training_only)


def write_resolved(path: Path, run: ResolvedRun) -> None:
    """Store the record whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_resolved(path: Path) -> ResolvedRun:
    """The record of a run.

    Raises:
        StoreError: Missing or of another version.
    """
    try:
        return ResolvedRun.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        raise StoreError(f"{path}: not a readable run record ({type(error).__name__}); run resolve_run again") from None
