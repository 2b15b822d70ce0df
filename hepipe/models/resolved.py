"""A run with every value filled in: the record that `train`, `predict` and `score` read."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, ValidationError

from hepipe.errors import ConfigError, StoreError
from hepipe.models.catalog import Entry, PartNeed, Published, budget_problems, check_choice, find_entry
from hepipe.specs.base import Spec
from hepipe.specs.start import RUN
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.stores.provenance import Provenance, digest
from hepipe.weights.start import split_group, start_files
from hepipe.weights.store import file_sha256, find, state


class ResolvedPart(Spec):
    """What fills one part of a model."""

    kind: str = Field(description="run, weights, or file of what a run starts from.")
    source: str = Field("", description="Run name, weights role, or group within a file; empty when absent.")
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
    init_from: Mapping[str, ResolvedPart] = Field(
        default_factory=dict, description="Network, * for any, to what it starts from: a run or a file by its hash."
    )
    training: TrainingSpec
    published: Published = Field(Published(), description="How long the model's authors trained it.")
    pairing: str
    needs: tuple[str, ...]
    provenance: Provenance

    @property
    def digest(self) -> str:
        """Of everything that shapes the trained weights; a resume file of another digest is not continued."""
        shaping = self.model_dump(mode="json", exclude={"provenance": True, "name": True})
        for harmless in ("workers", "cache_mb", "tensorboard"):
            del shaping["training"][harmless]
        for changes_the_last_digits in ("compile", "channels_last"):
            if shaping["training"][changes_the_last_digits] in ("none", False):
                del shaping["training"][changes_the_last_digits]
        if self.fold is None:
            del shaping["fold"]
        if not self.init_from:
            del shaping["init_from"]
        if self.training.budget.rule == "equal_steps":
            del shaping["published"]
        return digest(shaping)

    def n_steps(self, n_tiles: int) -> int:
        """Iterations under the run's budget.

        Args:
            n_tiles: Tiles that the run trains on. A last batch that is a part counts as a step.

        Raises:
            ConfigError: The rule asks for what is not known of the model.
        """
        of = f"{self.model} {self.preset}"
        if problems := list(budget_problems(self.published, self.training, of=of, where=f"runs.{self.name}")):
            raise ConfigError("config:\n  " + "\n  ".join(problems))
        training = self.training
        wanted = {
            "equal_steps": training.n_steps,
            "published_epochs": (self.published.epochs or 0) * -(-n_tiles // training.batch_size),
            "own_original_steps": self.published.steps or 0,
        }[training.budget.rule]
        # A method that fits in one pass takes no steps: its rule is met whatever stands here.
        wanted = wanted or training.n_steps
        return min(wanted, training.budget.most_steps or wanted)

    def budgeted(self, n_tiles: int) -> ResolvedRun:
        """The run with the iterations of its budget."""
        training = self.training.model_copy(update={"n_steps": self.n_steps(n_tiles)})
        return self.model_copy(update={"training": training})


def zoo_module(model: str) -> ModuleType:
    """The zoo file of a model; importing it brings torch."""
    return importlib.import_module(f"hepipe.models.zoo.{model}")


def misfit(model: str, config: Spec, training: TrainingSpec) -> str:
    """What of a protocol a model cannot follow, beyond the literal SIZE, as its file says; empty for nothing."""
    module = zoo_module(model)
    return module.misfit(config, training) if hasattr(module, "misfit") else ""


def entry_of(run: ResolvedRun, *, where: str) -> Entry:
    """The entry of a run's model, with the sides that it takes as the run's options have it.

    Raises:
        ConfigError: No such model.
    """
    entry, module = find_entry(run.model, where=where), zoo_module(run.model)
    if not hasattr(module, "multiple"):
        return entry
    config = type(module.PRESETS[run.preset]).model_validate(dict(run.config))
    return replace(entry, size={**entry.size, run.preset: {"multiple": module.multiple(config)}})


def resolve_run(name: str, run: RunSpec) -> ResolvedRun:
    """The complete record of a run.

    Raises:
        ConfigError: Unknown model, preset, part or option, or an option's value that its Config refuses.
        WeightsError: A part's weights file is missing or not the right one.
    """
    where = f"runs.{name}"
    entry = check_choice(run, where=where)
    module = zoo_module(run.model)
    preset: Spec = module.PRESETS[run.preset]
    try:
        config = type(preset).model_validate({**preset.model_dump(), **run.options})
    except ValidationError as error:
        problems = [
            f"{where}.options.{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise ConfigError("config:\n  " + "\n  ".join(problems)) from None
    published = entry.published_of(run.preset)
    training = run.training
    if training.budget.batch == "published" and published.batch_size is not None:
        training = _with_batch(training, published.batch_size, where=where)
    if problem := misfit(run.model, config, training):
        raise ConfigError(f"config:\n  {where}.{problem}")
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
        init_from=_resolve_start(run.init_from),
        training=training,
        published=published,
        pairing=entry.pairing,
        needs=entry.needs_of(run.preset),
        # Without `init_from`, which names files; the record has their hashes.
        provenance=Provenance(artefact="run", subject=name, spec=run.model_dump(mode="json", exclude={"init_from"})),
    )


def _resolve_start(init_from: Mapping[str, str]) -> dict[str, ResolvedPart]:
    """What a run starts from; a run's hash is known once it has trained, and stands in the finished model."""
    found = {
        network: ResolvedPart(kind="run", source=source.removeprefix(RUN), training_only=True)
        for network, source in init_from.items()
        if source.startswith(RUN)
    }
    for network, text in start_files(init_from).items():
        path, group = split_group(text)
        found[network] = ResolvedPart(kind="file", source=group, sha256=file_sha256(path), training_only=True)
    return found


def _with_batch(training: TrainingSpec, batch_size: int, *, where: str) -> TrainingSpec:
    """The published batch in place of the protocol's."""
    try:
        return TrainingSpec.model_validate({**training.model_dump(), "batch_size": batch_size})
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"config:\n  {where}.training.budget.batch: published is {batch_size} tiles, and {problem}"
        ) from None


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
