"""What the zoo's files state about themselves, read without importing one; and whether a run can work.

A file's name is the model's name. Its literals are read as syntax, so that the Snakefile and `--help` know every
model without torch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from hepipe.config import Config
from hepipe.errors import ConfigError, WeightsError
from hepipe.specs.start import RUN, runs_of
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.weights.start import start_files

ZOO = Path(__file__).parent / "zoo"

Pairing = Literal["paired", "unpaired", "both"]

CARRIED = ("dab_mask", "score", "loose_ihc")
"""What the loader can put into a batch beside both stains (`dataset/tiles.py`)."""


@dataclass(frozen=True)
class PartNeed:
    """A part that a preset takes.

    Attributes:
        kind: Another run's finished model, or a weights file of a role.
        role: Role of the weights file; empty for a run.
        optional: May be absent; the run records it.
        training_only: Prediction passes none.
    """

    kind: Literal["run", "weights"]
    role: str
    optional: bool
    training_only: bool


@dataclass(frozen=True)
class Published:
    """How long a model's authors trained it.

    Attributes:
        epochs: Passes over the training tiles; 0 for a method that fits in one and takes no steps.
        batch_size: Tiles of a step.
        steps: Steps on the paper's own data.
    """

    epochs: int | None = None
    batch_size: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Entry:
    """One zoo file.

    Attributes:
        name: Of the model and its file.
        title: First line of its docstring.
        pairing: Which tiles a batch joins.
        presets: Names of its configs.
        needs: By preset, `*` for all: what a batch must carry beside both stains.
        parts: By preset, `*` for all: name of each part to its form, such as `run~` or `weights:resnet50?`.
        size: By preset, `*` for all others: `{"multiple": 16}` or `{"exact": 256}`, px.
        streams: Further samplers: name to (pool, batch size).
        published: By preset, `*` for all others: how long its authors trained; empty where the file says nothing.
    """

    name: str
    title: str
    pairing: Pairing
    presets: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, Mapping[str, str]]
    size: Mapping[str, Mapping[str, int]]
    streams: Mapping[str, tuple[str, int]]
    published: Mapping[str, Published] = field(default_factory=dict)

    def published_of(self, preset: str) -> Published:
        """How long the authors trained a preset, as far as the file says."""
        return self.published.get(preset, self.published.get("*", Published()))

    def needs_of(self, preset: str) -> tuple[str, ...]:
        """What the batch of a preset must carry."""
        return tuple(dict.fromkeys([*self.needs.get("*", ()), *self.needs.get(preset, ())]))

    def presets_without(self, needs: Sequence[str]) -> tuple[str, ...]:
        """The presets whose batch need carry none of these."""
        return tuple(preset for preset in self.presets if not {*needs} & {*self.needs_of(preset)})

    def parts_of(self, preset: str) -> dict[str, PartNeed]:
        """The parts that a preset takes."""
        forms = {**self.parts.get("*", {}), **self.parts.get(preset, {})}
        return {name: _part_need(self.name, form) for name, form in forms.items()}

    def takes(self, side_px: int, preset: str) -> bool:
        """Whether the networks of a preset work on tiles of this side."""
        size = self._size_of(preset)
        if "exact" in size:
            return side_px == size["exact"]
        return side_px % size["multiple"] == 0

    def largest(self, side_px: int, preset: str) -> int:
        """The largest side up to `side_px` that the networks of a preset work on; 0 when there is none."""
        size = self._size_of(preset)
        if "exact" in size:
            return size["exact"] if size["exact"] <= side_px else 0
        return side_px - side_px % size["multiple"]

    def size_in_words(self, preset: str) -> str:
        """What sides a preset takes, for messages."""
        size = self._size_of(preset)
        return f"{size['exact']} px" if "exact" in size else f"multiples of {size['multiple']} px"

    def nearest_in_words(self, side_px: int, preset: str) -> str:
        """The sides on either hand of one that a preset does not take, for messages; empty where it takes but one."""
        size = self._size_of(preset)
        if "exact" in size:
            return ""
        below, above = self.largest(side_px, preset), self.largest(side_px, preset) + size["multiple"]
        return f", such as {below} or {above}" if below else f", such as {above}"

    def _size_of(self, preset: str) -> Mapping[str, int]:
        return self.size.get(preset, self.size["*"])


@cache
def catalog() -> Mapping[str, Entry]:
    """Every model of the zoo by name."""
    files = sorted(path for path in ZOO.glob("*.py") if not path.name.startswith("_"))
    return {path.stem: read_entry(path) for path in files}


def read_entry(path: Path) -> Entry:
    """What a zoo file states.

    Raises:
        ConfigError: A literal is missing or is no literal.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }

    def literal(name: str) -> Any:
        try:
            return ast.literal_eval(values[name])
        except KeyError:
            raise ConfigError(f"model {path.stem}: its file states no {name}") from None
        except ValueError:
            raise ConfigError(f"model {path.stem}: {name} must be a plain literal") from None

    presets = values.get("PRESETS")
    if not isinstance(presets, ast.Dict) or not all(isinstance(key, ast.Constant) for key in presets.keys):
        raise ConfigError(f"model {path.stem}: PRESETS must be a dict with plain names as keys")
    pairing, size = literal("PAIRING"), literal("SIZE")
    if pairing not in ("paired", "unpaired", "both"):
        raise ConfigError(f"model {path.stem}: PAIRING is {pairing!r}; paired, unpaired or both expected")
    if "*" not in size or any(len(one) != 1 or not one.keys() <= {"multiple", "exact"} for one in size.values()):
        raise ConfigError(
            f"model {path.stem}: SIZE is {size!r}; by preset, * for all others, multiple or exact expected"
        )
    return Entry(
        name=path.stem,
        title=(ast.get_docstring(tree) or "").split("\n")[0],
        pairing=pairing,
        presets=tuple(str(cast(ast.Constant, key).value) for key in presets.keys),
        needs={preset: tuple(needs) for preset, needs in literal("NEEDS").items()},
        parts=literal("PARTS"),
        size=size,
        streams={name: tuple(stream) for name, stream in literal("STREAMS").items()},
        published=_published(path.stem, literal("PUBLISHED")) if "PUBLISHED" in values else {},
    )


def _published(model: str, stated: Any) -> dict[str, Published]:
    names = {one.name for one in fields(Published)}
    for preset, values in stated.items():
        whole = isinstance(values, dict) and values.keys() == names
        if not whole or any(value is not None and not isinstance(value, int) for value in values.values()):
            raise ConfigError(
                f"model {model}: PUBLISHED of {preset} is {values!r}; epochs, batch_size and steps expected, each a "
                "whole number or None"
            )
    return {preset: Published(**values) for preset, values in stated.items()}


def find_entry(model: str, *, where: str) -> Entry:
    """A model's entry.

    Raises:
        ConfigError: No such model; the message starts with `where`, the key's path.
    """
    try:
        return catalog()[model]
    except KeyError:
        raise ConfigError(f"{where}: no model {model!r}; there are {', '.join(catalog())}") from None


def check_run(config: Config, name: str) -> None:
    """Whether a run can work, as far as it shows before anything has run.

    Raises:
        ConfigError: Every problem, each with the path of its key.
    """
    problems = list(_problems(config, name))
    if problems:
        raise ConfigError("config:\n  " + "\n  ".join(problems))


def check_targets(config: Config, markers: Mapping[str, frozenset[str]]) -> None:
    """Whether every run can be evaluated where it is asked to be, as far as it shows before anything has run.

    Args:
        config: The whole configuration.
        markers: Data set to what its IHC stains.

    Raises:
        ConfigError: Every problem, each with the path of its key and both data sets.
    """
    problems = list(
        dict.fromkeys(
            problem
            for name, run in config.runs.items()
            if run.model in catalog() and run.preset in catalog()[run.model].presets
            for dataset, split in config.targets(name)
            for problem in _target_problems(config, name, dataset, markers)
        )
    )
    if problems:
        raise ConfigError("config:\n  " + "\n  ".join(problems))


def _target_problems(config: Config, name: str, dataset: str, markers: Mapping[str, frozenset[str]]) -> Iterator[str]:
    run, entry = config.runs[name], catalog()[config.runs[name].model]
    where = f"evaluation.test_on.{dataset}" if run.test_on is None else f"runs.{name}.test_on.{dataset}"
    own, theirs = markers.get(run.dataset, frozenset()), markers.get(dataset, frozenset())
    if own and theirs and not theirs <= own:
        yield (
            f"{where}: its IHC is {', '.join(sorted(theirs))}, but run {name} learns {', '.join(sorted(own))} on "
            f"{run.dataset}; evaluate it on a data set of its marker"
        )
    stored, seen = (config.datasets[one].stored_mpp for one in (dataset, run.dataset))
    seen = run.training.mpp or seen
    if stored is None or seen is None:
        return
    is_alike = abs(stored - seen) <= config.evaluation.mpp_slack * seen
    if stored > seen and not is_alike:
        yield (
            f"{where}: {dataset} is stored at {stored:g} µm/px, but run {name} is trained on {run.dataset} at "
            f"{seen:g}, which is finer; train it with training.mpp of {stored:g} or more"
        )
        return
    spec = config.datasets[dataset]
    if spec.import_ is not None:
        return
    side = round(spec.sections.tiling.tile_px * (1.0 if is_alike else stored / seen))
    predicted = config.evaluation.tile_px
    if predicted > side:
        yield f"evaluation.tile_px: {predicted} px, but run {name} sees tiles of {dataset} at {side} px"
    elif not predicted and entry.largest(side, run.preset) == 0:
        yield (
            f"{where}: run {name} sees tiles of {dataset} at {side} px, and {run.model} {run.preset} takes "
            f"{entry.size_in_words(run.preset)}"
        )


def check_choice(run: RunSpec, *, where: str) -> Entry:
    """The entry of a run's model, after checking model, preset, names of its parts and the training crop.

    Raises:
        ConfigError: With the path of each key.
    """
    entry = find_entry(run.model, where=f"{where}.model")
    problems = list(_choice_problems(entry, run, where))
    if problems:
        raise ConfigError("config:\n  " + "\n  ".join(problems))
    return entry


def runs_needed(config: Config, name: str) -> dict[str, str]:
    """Part name to the run whose finished model it is; what the rule `train` depends on."""
    run = config.runs[name]
    entry = find_entry(run.model, where=f"runs.{name}.model")
    return {
        part: run.parts[part]
        for part, need in entry.parts_of(run.preset).items()
        if need.kind == "run" and part in run.parts
    }


def _problems(config: Config, name: str) -> Iterator[str]:
    run, where = config.runs[name], f"runs.{name}"
    if run.model not in catalog():
        yield f"{where}.model: no model {run.model!r}; there are {', '.join(catalog())}"
        return
    entry = catalog()[run.model]
    yield from _choice_problems(entry, run, where)
    if run.preset not in entry.presets:
        return
    for part, need in entry.parts_of(run.preset).items():
        other = run.parts.get(part)
        if need.kind == "run" and other is not None:
            if other not in config.runs:
                yield f"{where}.parts.{part}: no run {other!r}; there are {', '.join(config.runs)}"
            elif name in ancestors(config, other):
                yield f"{where}.parts.{part}: run {other} itself depends on {name}"
    yield from _start_problems(config, name, f"{where}.init_from")
    dataset = config.datasets[run.dataset]
    if dataset.import_ is None:
        tiling = dataset.sections.tiling
        mpp = run.training.mpp or tiling.mpp
        if mpp < tiling.mpp:
            yield f"{where}.training.mpp: {mpp} is finer than the {tiling.mpp} µm/px that {run.dataset} stores"
        side = round(tiling.tile_px * tiling.mpp / mpp)
        if run.training.crop_px > side:
            yield (
                f"{where}.training.crop_px: {run.training.crop_px} px wanted, "
                f"but tiles of {run.dataset} are {side} px at {mpp} µm/px"
            )
    predicted = config.evaluation.tile_px
    if predicted and not entry.takes(predicted, run.preset):
        takes = entry.size_in_words(run.preset)
        yield f"evaluation.tile_px: {predicted} px, but {run.model} {run.preset} of run {name} takes {takes}"


def _choice_problems(entry: Entry, run: RunSpec, where: str) -> Iterator[str]:
    if run.preset not in entry.presets:
        yield f"{where}.preset: {run.model} has no preset {run.preset!r}; it has {', '.join(entry.presets)}"
        return
    for need in entry.needs_of(run.preset):
        if need not in CARRIED:
            yield f"{where}.preset: {run.model} {run.preset} needs {need!r}, which no tile store carries"
    parts = entry.parts_of(run.preset)
    for part in run.parts:
        if part not in parts:
            has = f"it takes {', '.join(parts)}" if parts else "it takes none"
            yield f"{where}.parts.{part}: {run.model} {run.preset} has no such part; {has}"
    for part, form in parts.items():
        if form.kind == "run" and not form.optional and part not in run.parts:
            yield f"{where}.parts.{part}: missing; name the run whose finished model is the {part}"
    yield from budget_problems(
        entry.published_of(run.preset), run.training, of=f"{run.model} {run.preset}", where=where
    )
    if not entry.takes(run.training.crop_px, run.preset):
        takes = entry.size_in_words(run.preset)
        yield (
            f"{where}.training.crop_px: {run.training.crop_px} px, but {run.model} {run.preset} takes {takes}"
            f"{entry.nearest_in_words(run.training.crop_px, run.preset)}"
        )


def budget_problems(published: Published, training: TrainingSpec, *, of: str, where: str) -> Iterator[str]:
    """What the budget asks of a model that its file does not say; `of` names model and preset."""
    budget = training.budget
    if published.epochs == 0:
        return
    lacking = {
        "equal_steps": None,
        "published_epochs": "number of epochs" if published.epochs is None else None,
        "own_original_steps": "number of steps on its own data" if published.steps is None else None,
    }[budget.rule]
    if lacking is not None:
        yield (
            f"{where}.training.budget.rule: {budget.rule}, but no {lacking} is known of {of}; give this run a rule "
            "of its own, such as equal_steps with n_steps, which the report then calls outside the protocol"
        )
    if budget.batch == "published" and published.batch_size is None:
        yield f"{where}.training.budget.batch: published, but no batch size is known of {of}; use protocol"


def _start_problems(config: Config, name: str, where: str) -> Iterator[str]:
    """What is wrong with what a run starts from, before anything of it has run."""
    init_from = config.runs[name].init_from
    for source in init_from.values():
        if source.startswith(RUN):
            other = source.removeprefix(RUN)
            if other not in config.runs:
                yield f"{where}: no run {other!r}; there are {', '.join(config.runs)}"
            elif name in ancestors(config, other):
                yield f"{where}: run {other} itself depends on {name}"
    try:
        start_files(init_from)
    except (ConfigError, WeightsError) as error:
        yield f"{where}: {str(error).removeprefix('init_from: ')}"


def ancestors(config: Config, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The run and every run that it builds on or starts from, and those that these do."""
    if name in seen or name not in config.runs:
        return {name}
    run = config.runs[name]
    parents = {parent for parent in [*run.parts.values(), *runs_of(run.init_from)] if parent in config.runs}
    return {name}.union(*(ancestors(config, parent, seen | {name}) for parent in parents))


def _part_need(model: str, form: str) -> PartNeed:
    kind, _, role = form.rstrip("?~").partition(":")
    if kind not in ("run", "weights") or (kind == "weights") != bool(role):
        raise ConfigError(f"model {model}: part {form!r}; `run` or `weights:<role>` expected, with ? or ~ at its end")
    marks = form[len(form.rstrip("?~")) :]
    return PartNeed(cast(Literal["run", "weights"], kind), role, "?" in marks, "~" in marks)
