"""The configuration: a frozen `Spec` per section, checked before anything runs.

The Snakefile imports this file, so it stays light: no arrays, no torch, no slide reader. Every stage's `revision` is
raised when the numbers that the stage writes change, since Snakemake cannot see package code.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from hepipe.errors import ConfigError
from hepipe.sheet import SCORES, CaseRow, Score, read_sheet
from hepipe.specs.base import Spec, merged
from hepipe.specs.dataset import CurationSpec, Split, SplitsSpec
from hepipe.specs.imports import ImportSpec
from hepipe.specs.matrix import expanded
from hepipe.specs.quality import QualitySpec
from hepipe.specs.registration import RegistrationSpec
from hepipe.specs.slides import SlidesSpec, TissueSpec
from hepipe.specs.stains import StainsSpec
from hepipe.specs.start import runs_of, with_runs
from hepipe.specs.synth import SynthSpec
from hepipe.specs.tiling import StoreSpec, TilingSpec
from hepipe.specs.training import EvaluationSpec, RunSpec, TrainingSpec, outside_protocol


class Sections(Spec):
    """The sections that a data set may override."""

    slides: SlidesSpec = SlidesSpec()
    registration: RegistrationSpec = RegistrationSpec()
    tissue: TissueSpec = TissueSpec()
    stains: StainsSpec = StainsSpec()
    tiling: TilingSpec = TilingSpec()
    store: StoreSpec = StoreSpec()
    quality: QualitySpec = QualitySpec()
    curation: CurationSpec = CurationSpec()
    splits: SplitsSpec = SplitsSpec()


class DatasetSpec(Spec):
    """One data set: a slide sheet, a synthetic cohort or an import, and what it overrides."""

    sheet: str | None = None
    slides_folder: str | None = Field(
        None, description="Paths in the sheet are relative to this folder of `data`; empty: to the sheet's own folder."
    )
    synth: SynthSpec | None = None
    import_: ImportSpec | None = Field(None, alias="import")
    transforms: str | None = Field(
        None,
        description="Folder of a data set, relative to `data`, whose stored transforms are taken: nothing is "
        "registered, and section `registration` counts for nothing.",
    )
    note: str = Field("", description="Said in the report, such as a nominal resolution.")
    sections: Sections

    @model_validator(mode="after")
    def _one_source(self) -> DatasetSpec:
        if sum(source is not None for source in (self.sheet, self.synth, self.import_)) != 1:
            raise ValueError("give exactly one of sheet, synth, import")
        if self.import_ is not None and self.transforms is not None:
            raise ValueError("transforms goes with a sheet or synth: the tiles of an import are registered already")
        if self.import_ is not None and not self.import_.path:
            raise ValueError("import.path is missing: the folder of the tile set")
        return self

    @property
    def stored_mpp(self) -> float | None:
        """µm per px of its tiles; None where only the files of an import say."""
        if self.import_ is None:
            return self.sections.tiling.mpp
        return None if self.import_.mpp is None else self.import_.mpp * (2 if self.import_.halve else 1)

    @property
    def known_marker(self) -> str | None:
        """What its IHC stains; None where the rows of a slide sheet say."""
        if self.import_ is not None:
            return self.import_.marker
        return None if self.synth is None else SYNTH_MARKER


class Config(Spec):
    """The whole configuration, expanded: every data set and run holds its own complete sections."""

    seed: int = Field(1, ge=0)
    weights: str = "weights"
    data: str = Field(".", description="Folder that `slides_folder` and an import's `path` are relative to.")
    pseudonyms: str | None = Field(None, description="A secret: ids in results become keyed hashes of the sheet's ids.")
    datasets: Mapping[str, DatasetSpec] = Field(min_length=1)
    training: TrainingSpec = Field(
        TrainingSpec(), description="The protocol: what runs share unless they say otherwise."
    )
    runs: Mapping[str, RunSpec] = Field(default_factory=dict)
    evaluation: EvaluationSpec = EvaluationSpec()
    title: str = "hepipe report"

    @model_validator(mode="after")
    def _names_meet(self) -> Config:
        for name in [*self.datasets, *self.runs]:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(f"name {name!r}: letters, digits, '_', '-' expected")
        for name, run in self.runs.items():
            for dataset in [run.dataset, *(run.test_on or {}), *self.evaluation.test_on]:
                if dataset not in self.datasets:
                    raise ValueError(f"runs.{name}: no data set {dataset!r}; there are {', '.join(self.datasets)}")
            if (run.dataset, "train") in self.targets(name):
                where = "evaluation" if run.test_on is None else f"runs.{name}"
                raise ValueError(
                    f"{where}.test_on.{run.dataset}: train, on which run {name} trains; val or test expected"
                )
            if (problem := self._fold_problem(name, run)) is not None:
                raise ValueError(f"runs.{name}.{problem}")
        return self

    def _fold_problem(self, name: str, run: RunSpec) -> str | None:
        data = self.datasets[run.dataset]
        if run.fold is not None:
            count = data.sections.splits.folds
            if data.import_ is not None:
                return f"fold: {run.dataset} is imported and keeps the splits it came with; leave fold out"
            if count is None or run.fold >= count:
                has = "no folds: set its splits.folds" if count is None else f"folds 0 to {count - 1}"
                return f"fold: {run.fold}, but data set {run.dataset} has {has}"
        built_on = [(f"parts.{part}", other) for part, other in run.parts.items()]
        for key, other in [*built_on, *(("init_from", other) for other in runs_of(run.init_from))]:
            of_part = self.runs.get(other)
            if of_part is not None and of_part.dataset == run.dataset and of_part.fold != run.fold:
                return (
                    f"{key}: run {other} has fold {of_part.fold}, this one {run.fold}: it has trained on tiles "
                    "that this one is tested on; give both the same fold"
                )
        return None

    def targets(self, run: str) -> tuple[tuple[str, Split], ...]:
        """Data sets and splits that a run is evaluated on."""
        spec = self.runs[run]
        asked = spec.test_on or self.evaluation.test_on or {spec.dataset: ("test",)}
        return tuple(dict.fromkeys((dataset, split) for dataset, splits in asked.items() for split in splits))

    def outside(self, run: str) -> dict[str, str]:
        """Where a run's training is not the protocol's: key to both values. Files that it starts from are not named."""
        spec = self.runs[run]
        start = {"init_from": "another run or a checkpoint, protocol from scratch"} if spec.init_from else {}
        return {**outside_protocol(spec.training, self.training), **start}


SYNTH_MARKER = "HER2"
_SECTIONS = tuple(Sections.model_fields)
_CALIBRATION_BYTES = 1_000_000


def load_config(raw: Mapping[str, Any]) -> Config:
    """The checked configuration from what YAML gave.

    Sections at the top are defaults; a data set's sections and a run's `training` override them key by key.

    Raises:
        ConfigError: Every problem with the path of its key.
    """
    top = dict(raw)
    shared = {name: _calibrated(_mapping(top.pop(name, {}), name), name) for name in _SECTIONS}
    training = _mapping(top.pop("training", {}), "training")
    # On their own first: within each data set and run the same mistake would be told once for each, under its name.
    problems = _mistakes(Sections, shared)
    if problems:
        shared = {name: {} for name in _SECTIONS}
    mistakes = _mistakes(TrainingSpec, training, "training.")
    if mistakes:
        problems, training = [*problems, *mistakes], {}
    datasets = {}
    for name, entry in _mapping(top.get("datasets", {}), "datasets").items():
        own = dict(_mapping(entry, f"datasets.{name}"))
        sections = {
            key: merged(shared[key], _calibrated(own.pop(key, {}), f"datasets.{name}.{key}")) for key in _SECTIONS
        }
        datasets[name] = {**own, "sections": sections}
    runs = {}
    try:
        entries = expanded(_mapping(top.get("runs", {}), "runs"))
    except ConfigError as error:
        problems, entries = [*problems, str(error)], {}
    for name, entry in entries.items():
        own = dict(_mapping(entry, f"runs.{name}"))
        runs[name] = {**own, "training": merged(training, own.pop("training", {}))}
    try:
        runs = _each_fold(runs, datasets)
    except ConfigError as error:
        problems.append(str(error))
    try:
        config = Config.model_validate({**top, "datasets": datasets, "training": training, "runs": runs})
    except ValidationError as error:
        problems += _problems(error)
    if problems:
        raise ConfigError("config:\n  " + "\n  ".join(problems))
    return config


def _each_fold(runs: Mapping[str, Any], datasets: Mapping[str, Any]) -> dict[str, Any]:
    """Runs with `fold: all` as one run a fold; parts that are such runs too are those of the same fold."""
    folds: dict[str, int] = {}
    for name, run in runs.items():
        if run.get("fold") == "all":
            sections = datasets.get(run.get("dataset"), {}).get("sections", {})
            count = sections.get("splits", {}).get("folds")
            if not isinstance(count, int):
                raise ConfigError(
                    f"runs.{name}.fold: all, but data set {run.get('dataset')} has no folds; set its splits.folds"
                )
            folds[name] = count
    made: dict[str, Any] = {}
    for name, run in runs.items():
        for fold in range(folds[name]) if name in folds else (None,):
            parts = run.get("parts", {})
            if fold is not None and isinstance(parts, Mapping):
                parts = {part: f"{other}-f{fold}" if other in folds else other for part, other in parts.items()}
            start = run.get("init_from")
            if fold is not None and start is not None:
                start = with_runs(start, {other: f"{other}-f{fold}" for other in folds})
            own = name if fold is None else f"{name}-f{fold}"
            if own in made or (fold is not None and own in runs):
                raise ConfigError(f"runs.{own}: stands in the config and is made by fold: all of {name}; rename one")
            followed = {key: value for key, value in (("parts", parts), ("init_from", start)) if value}
            made[own] = run if fold is None else {**run, "fold": fold, **followed}
    return made


def case_rows(config: Config, dataset: str) -> list[CaseRow]:
    """The pairs of a data set; none for an import. Ids are replaced when `pseudonyms` is set."""
    spec = config.datasets[dataset]
    if spec.synth is not None:
        return list(synth_rows(spec.synth, Path("results/synth") / dataset))
    if spec.sheet is None:
        return []
    folder = None if spec.slides_folder is None else Path(config.data) / spec.slides_folder
    rows = read_sheet(Path(spec.sheet), folder)
    if config.pseudonyms is None:
        return rows
    secret = config.pseudonyms
    return [
        row.model_copy(
            update={
                "case_id": pseudonym(secret, row.case_id, "C"),
                "patient_id": pseudonym(secret, row.patient_id, "P"),
            }
        )
        for row in rows
    ]


def decision_files(config: Config, dataset: str) -> list[Path]:
    """The CSV files of people's decisions on a data set, relative to where the workflow runs, as slide sheets are.

    Raises:
        ConfigError: One is not there: without it the data set would be another one.
    """
    paths = [Path(name) for name in config.datasets[dataset].sections.curation.decisions]
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"datasets.{dataset}.curation.decisions: no file {path}; make it with `hepipe curate`, or take it out "
                "of the list"
            )
    return paths


def transforms_folder(config: Config, dataset: str) -> Path | None:
    """The folder whose stored transforms a data set takes; None where it registers its pairs.

    Raises:
        ConfigError: It holds none.
    """
    spec = config.datasets[dataset]
    if spec.transforms is None:
        return None
    folder = Path(config.data) / spec.transforms
    if not (folder / "registered").is_dir():
        raise ConfigError(
            f"datasets.{dataset}.transforms: {folder} has no folder `registered` with transforms; give the folder of "
            "a data set, such as results/cohort, or what `hepipe dataset pack` made of it"
        )
    return folder


def pseudonym(secret: str, name: str, prefix: str) -> str:
    """A keyed hash in place of an id; the sheet's own id cannot be found without the secret."""
    return prefix + hmac.new(secret.encode(), name.encode(), hashlib.sha256).hexdigest()[:10]


def synth_rows(spec: SynthSpec, folder: Path) -> Iterator[CaseRow]:
    """The pairs of a synthetic cohort, three patients a score in turn; files appear when they are drawn."""
    for number in range(spec.patients):
        case_id = f"s{spec.seed}-{number + 1:03d}"
        score: Score = SCORES[number % len(SCORES)]
        yield CaseRow(
            case_id=case_id,
            patient_id=f"p{spec.seed}-{number + 1:03d}",
            he=str(folder / case_id / "he.tif"),
            ihc=str(folder / case_id / "ihc.tif"),
            marker=SYNTH_MARKER,
            her2_score=score,
            section=spec.section,
            landmarks=str(folder / case_id / "landmarks.csv"),
            batch=f"b{number % 3 + 1}",
        )


def _calibrated(section: Any, path: str) -> Any:
    """The section with `dab_calibration`, a file of `hepipe stains calibrate`, replaced by the thresholds in it.

    So no path enters an artefact, and another calibration runs again what depends on it.
    """
    if not isinstance(section, Mapping) or "dab_calibration" not in section or not path.endswith("stains"):
        return section
    rest = dict(section)
    name = rest.pop("dab_calibration")
    key = f"config:\n  {path}.dab_calibration"
    if "dab_thresholds_od" in rest:
        raise ConfigError(f"{key}: dab_thresholds_od is given too; keep one of the two")
    if not isinstance(name, str):
        raise ConfigError(f"{key}: the name of a file expected, found {type(name).__name__}")
    try:
        with Path(name).open("rb") as file:
            text = file.read(_CALIBRATION_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{key}: {name} cannot be read: {error.strerror}; `hepipe stains calibrate` makes it"
        ) from None
    try:
        found = json.loads(text) if len(text) <= _CALIBRATION_BYTES else None
    except ValueError:
        found = None
    thresholds = found.get("thresholds_od") if isinstance(found, Mapping) else None
    if thresholds is None:
        raise ConfigError(
            f"{key}: {name} is no calibration: no thresholds_od in it; run `hepipe stains calibrate` again"
        )
    return {**rest, "dab_thresholds_od": thresholds}


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"config:\n  {path}: a mapping expected, found {type(value).__name__}")
    return value


def _mistakes(kind: type[Spec], values: Mapping[str, Any], path: str = "") -> list[str]:
    try:
        kind.model_validate(values)
    except ValidationError as error:
        return [f"{path}{problem}" for problem in _problems(error)]
    return []


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"] if part != "sections")
        message = problem["msg"].removeprefix("Value error, ")
        yield f"{path}: {message}" if path else message
