"""The configuration: a frozen `Spec` per section, checked before anything runs.

The Snakefile imports this file, so it stays light: no arrays, no torch, no slide reader. Every stage's `revision` is
raised when the numbers that the stage writes change, since Snakemake cannot see package code.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from hepipe.errors import ConfigError
from hepipe.registration_spec import RegistrationSpec as RegistrationSpec
from hepipe.sheet import SCORES, CaseRow, Score, read_sheet
from hepipe.spec import Spec as Spec
from hepipe.spec import merged
from hepipe.tiling_spec import StoreSpec as StoreSpec
from hepipe.tiling_spec import TilingSpec as TilingSpec

Split = Literal["train", "val", "test"]
SYNTH_MPP = 0.5


class SlidesSpec(Spec):
    """How slide files are opened and checked."""

    revision: Literal[2] = 2
    readers: tuple[Literal["direct", "openslide", "tiffslide", "picture"], ...] = Field(
        ("direct", "openslide", "tiffslide", "picture"),
        min_length=1,
        description="Tried in this order; the one that opened a slide stands in its artefacts. direct: tiles decoded "
        "here, where their pixels are openslide's.",
    )
    icc: Literal["as_scanned", "srgb"] = Field(
        "as_scanned", description="srgb: pixels are converted as they are read, where a slide carries a profile."
    )
    mpp_tolerance: float = Field(0.01, ge=0, lt=0.2, description="How much finer than level 0 a read may ask.")
    min_tissue_mm2: float = Field(0.05, ge=0, description="A slide with less tissue than this is empty, mm².")
    max_dark_frac: float = Field(0.6, gt=0, le=1, description="More than this share dark: not a brightfield slide.")


Region = Literal["tumour", "invasive", "in_situ", "normal", "necrosis", "control", "exclude"]
"""What a person has outlined on the H&E slide; `tumour` does not say which."""
RegionName = Region | Literal["ignore"]


class TissueSpec(Spec):
    """How tissue is found on both slides."""

    revision: Literal[3] = 3
    mpp: float = Field(8.0, gt=0, description="Resolution of the masks, µm per px; coarser slides use their own.")
    channel: Literal["saturation", "od"] = Field("od", description="What Otsu's threshold is taken of.")
    close_um: float = Field(24.0, ge=0, description="Radius of the closing, µm.")
    min_hole_um2: float = Field(10_000.0, ge=0, description="Holes smaller than this are filled, µm².")
    min_piece_um2: float = Field(20_000.0, ge=0, description="Pieces smaller than this are dropped, µm².")
    region_names: Mapping[str, RegionName] = Field(
        {}, description="Names of QuPath's classes beside the known ones, in small letters, to ours or to `ignore`."
    )


class StainsSpec(Spec):
    """How stain vectors and DAB masks are made."""

    revision: Literal[1] = 1
    vectors: Literal["fixed", "macenko", "vahadane"] = Field("macenko", description="How a slide's vectors are found.")
    sample_tiles: int = Field(48, ge=4, description="Windows of tissue that a slide's vectors are estimated from.")
    white: Literal["auto", "fixed"] = Field("auto", description="auto: measured on empty glass; fixed: 255.")
    min_dab_frac: float = Field(0.02, ge=0, description="Less DAB than this share of tissue: the fixed vectors.")
    dab_sigma_um: float = Field(0.75, ge=0, description="Gaussian before Otsu, µm.")
    dab_open_um: float = Field(0.0, ge=0, description="Radius of the erosion and dilation after Otsu, µm.")
    dab_close_um: float = Field(1.0, ge=0, description="Radius of the mask's closing, µm.")
    dab_floor_od: float = Field(0.15, ge=0, description="A tile's threshold is never below this optical density.")


class Limit(Spec):
    """A filter: a tile is dropped when the measurement lies outside."""

    min: float | None = None
    max: float | None = None

    def passes(self, value: float) -> bool:
        """Whether a measured value is inside; an undefined one (nan) is."""
        return not ((self.min is not None and value < self.min) or (self.max is not None and value > self.max))


DEFAULT_LIMITS: Mapping[str, Limit] = {
    "outside_frac_he": Limit(max=0.05),
    "outside_frac_ihc": Limit(max=0.05),
    "lost_frac_he": Limit(max=0.25),
    "lost_frac_ihc": Limit(max=0.25),
    "pen_he": Limit(max=0.02),
    "pen_ihc": Limit(max=0.02),
    "rim_um_he": Limit(max=50),
    "rim_um_ihc": Limit(max=50),
    "crease_he": Limit(max=0.28),
    "crease_ihc": Limit(max=0.25),
    "shade_he": Limit(max=0.25),
    "shade_ihc": Limit(max=0.22),
    "veil_he": Limit(max=0.14),
    "veil_ihc": Limit(max=0.09),
    "blur_he": Limit(max=0.75),
    "blur_ihc": Limit(max=0.7),
    "doubling_he": Limit(max=0.09),
    "doubling_ihc": Limit(max=0.09),
}
"""For tiles at about 0.25 to 1 µm per px. Set on synthetic cohorts of seeds 2 and 3 so that 99 % of clean tiles stay,
and no stricter than what 18 sound public H&E and IHC pictures reach; units as in `hepipe/quality/`."""


Alignment = Literal["aligned", "weak", "misaligned", "beyond"]


class AlignmentSpec(Spec):
    """What a tile's class of alignment is, for one kind of section; these defaults: the same section stained again.

    aligned: within every limit. beyond: no partner within the search range. misaligned: further off than `far_um`, or
    less alike than `unlike_peak`. weak: the rest, and what cannot be measured.
    """

    max_shift_um: float = Field(
        0.8, gt=0, description="Largest shift of an aligned tile, µm: 99 % of drawn tissue off by over 1 µm has more."
    )
    far_um: float = Field(2.0, gt=0, description="A larger shift: misaligned, µm.")
    min_peak: float = Field(0.3, description="Least correlation of an aligned tile, of haematoxylin in windows.")
    unlike_peak: float = Field(0.1, description="Less correlation: misaligned.")
    min_matched_frac: float = Field(0.5, ge=0, le=1, description="Least share of windows with a partner when aligned.")
    beyond_matched_frac: float = Field(0.1, ge=0, le=1, description="A smaller share: beyond the search range.")
    max_untrusted_frac: float = Field(0.2, ge=0, le=1, description="Most of an aligned tile that no window supports.")


class ConsecutiveAlignmentSpec(AlignmentSpec):
    """The defaults of the next section: shifts and correlation are of low-passed total density."""

    max_shift_um: float = Field(10.0, gt=0, description="As above.")
    far_um: float = Field(20.0, gt=0, description="As above.")
    min_peak: float = Field(0.5, description="As above, of the whole tile's low-passed density.")
    unlike_peak: float = Field(0.05, description="As above.")


class AlignmentsSpec(Spec):
    """Classes of alignment by kind of section, never pooled: what is near for the next section is far for the same."""

    drop: tuple[Alignment, ...] = Field(("misaligned", "beyond"), description="Tiles of these classes are dropped.")
    restained: AlignmentSpec = AlignmentSpec()
    consecutive: ConsecutiveAlignmentSpec = ConsecutiveAlignmentSpec()


class QualitySpec(Spec):
    """Which tiles are dropped: limits on the raw measurements of the tile table, and classes of alignment."""

    revision: Literal[2] = 2
    limits: Mapping[str, Limit] = Field(
        DEFAULT_LIMITS,
        description="Measurement to its limit; those given stand in place of all defaults. Never changes the tiles.",
    )
    alignment: AlignmentsSpec = AlignmentsSpec()
    alarm_dropped_frac: float = Field(0.8, gt=0, le=1, description="More dropped than this: the case needs review.")


class SplitsSpec(Spec):
    """How patients are divided."""

    revision: Literal[1] = 1
    shares: Mapping[Split, float] = Field(
        {"train": 0.6, "val": 0.2, "test": 0.2}, description="Wanted shares of tiles."
    )
    seed: int = Field(1, ge=0)

    @field_validator("shares")
    @classmethod
    def _sum_to_one(cls, shares: Mapping[Split, float]) -> Mapping[Split, float]:
        if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
            raise ValueError(f"shares must be 0 or more and add up to 1, found {dict(shares)}")
        return shares


class SynthSpec(Spec):
    """A synthetic cohort: its case ids follow from these values."""

    revision: Literal[1] = 1
    patients: int = Field(12, ge=1, le=10_000)
    seed: int = Field(1, ge=0)
    side_um: float = Field(1200.0, ge=400, le=3000, description="Side of a slide, µm; drawn in memory: 1.5 GB at 1200.")
    section: Literal["restained", "consecutive"] = "restained"
    artifacts: bool = Field(True, description="Plant pen, fold, blur, bubble and so on.")
    pairs: int = Field(12, ge=0, description="Aligned tile pairs written beside the slides, for imports.")
    pair_px: int = Field(256, ge=32, description="Side of those pairs, px.")


class ImportSpec(Spec):
    """A tile set made elsewhere."""

    revision: Literal[2] = 2
    kind: Literal["folder", "aligned"] = Field(
        description="folder: two folders, paired by name; aligned: H&E left, IHC right in one picture."
    )
    path: str = Field("", description="Folder of the set, relative to `data`. A path: it stays out of artefacts.")
    he: str = Field("HE", description="kind folder: folder of H&E tiles inside `path`.")
    ihc: str = Field("IHC", description="kind folder: folder of IHC tiles inside `path`.")
    mpp: float = Field(gt=0, description="µm per px of the tiles: these files carry none.")
    marker: str = "HER2"
    section: Literal["restained", "consecutive"] = "consecutive"
    score_pattern: str | None = Field(None, description="Regular expression with one group: the score in a file name.")
    case_pattern: str | None = Field(None, description="Regular expression with one group: the case in a file name.")
    split: Split = Field("test", description="Split of tiles that lie in no folder train, val or test.")
    allow_missing: bool = Field(False, description="Drop names that stand on one side only, instead of an error.")


class Sections(Spec):
    """The sections that a data set may override."""

    slides: SlidesSpec = SlidesSpec()
    registration: RegistrationSpec = RegistrationSpec()
    tissue: TissueSpec = TissueSpec()
    stains: StainsSpec = StainsSpec()
    tiling: TilingSpec = TilingSpec()
    store: StoreSpec = StoreSpec()
    quality: QualitySpec = QualitySpec()
    splits: SplitsSpec = SplitsSpec()


class DatasetSpec(Spec):
    """One data set: a slide sheet, a synthetic cohort or an import, and what it overrides."""

    sheet: str | None = None
    slides_folder: str | None = Field(
        None, description="Paths in the sheet are relative to this folder of `data`; empty: to the sheet's own folder."
    )
    synth: SynthSpec | None = None
    import_: ImportSpec | None = Field(None, alias="import")
    note: str = Field("", description="Said in the report, such as a nominal resolution.")
    sections: Sections

    @model_validator(mode="after")
    def _one_source(self) -> DatasetSpec:
        if sum(source is not None for source in (self.sheet, self.synth, self.import_)) != 1:
            raise ValueError("give exactly one of sheet, synth, import")
        if self.import_ is not None and not self.import_.path:
            raise ValueError("import.path is missing: the folder of the tile set")
        return self


class SelectSpec(Spec):
    """What chooses the checkpoint of a run."""

    metric: Literal["last", "mae", "psnr", "ssim", "msssim", "css_ihc", "css_he", "pd_effnetlite0", "lpips_alex"] = (
        Field("last", description="`last`: the final weights; else the mean over crops of validation tiles.")
    )
    mode: Literal["min", "max"] | None = Field(None, description="Which way is better; empty: the metric's own.")
    every: int = Field(500, gt=0, description="Steps between two validations.")
    max_tiles: int = Field(64, gt=0, description="Validation tiles looked at, evenly spread.")


class TrainingSpec(Spec):
    """One protocol for all runs; a run may override it."""

    revision: Literal[1] = 1
    n_steps: int = Field(2000, gt=0, description="Iterations.")
    batch_size: int = Field(4, gt=0)
    accumulation: int = Field(1, gt=0, description="Micro-batches per step; `batch_size` is what a step sees in all.")
    mpp: float | None = Field(None, gt=0, description="µm per px of what the model sees; empty: as stored.")
    crop_px: int = Field(256, gt=0, description="Side of the random training crop, px at `mpp`.")
    flips: bool = Field(True, description="Flip and turn both stains alike.")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(2, ge=1, description="Threads of torch on a CPU: part of the result, so named here.")
    workers: int = Field(2, ge=0, description="Threads that decode tiles; no part of the result.")
    cache_mb: int = Field(1024, ge=0, description="Decoded tiles kept in memory, MB per process.")
    checkpoint_every: int = Field(500, gt=0, description="Steps between two resume files.")
    sample_every: int = Field(500, gt=0, description="Steps between two pictures of validation tiles.")
    log_every: int = Field(20, gt=0, description="Steps between two rows of the history.")
    tensorboard: bool = Field(False, description="Write the history as TensorBoard events too.")
    select: SelectSpec = SelectSpec()

    @model_validator(mode="after")
    def _pieces_hold_a_tile(self) -> TrainingSpec:
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation ({self.accumulation}) cuts a batch of {self.batch_size} into pieces without a tile"
            )
        return self


class RunSpec(Spec):
    """One training run."""

    model: str = Field(pattern=r"^[a-z0-9_]+$")
    dataset: str
    preset: str = "paper"
    seed: int = Field(0, ge=0)
    options: Mapping[str, Any] = Field(default_factory=dict, description="Hyperparameters that differ from the preset.")
    parts: Mapping[str, str] = Field(
        default_factory=dict, description="Part of the model to a run's name or weights role."
    )
    test_on: Mapping[str, Split] | None = Field(None, description="Data set to split that it is evaluated on.")
    training: TrainingSpec


class EvaluationSpec(Spec):
    """What is measured, and where."""

    revision: Literal[1] = 1
    test_on: Mapping[str, Split] = Field(
        default_factory=dict, description="Data set to split; empty: the run's own test."
    )
    tile_px: int = Field(0, ge=0, description="Prediction tile, px; 0 takes whole stored tiles.")
    batch_size: int = Field(4, gt=0)
    primary: tuple[str, ...] = ("fd_effnetlite0", "pd_effnetlite0", "css_he", "iod_ccc", "dab_dice")
    dab_thresholds_od: tuple[float, float, float] = Field((0.2, 0.4, 0.6), description="Of pixel H-scores, OD index.")
    bootstrap: int = Field(2000, ge=100)


class Config(Spec):
    """The whole configuration, expanded: every data set and run holds its own complete sections."""

    seed: int = Field(1, ge=0)
    weights: str = "weights"
    data: str = Field(".", description="Folder that `slides_folder` and an import's `path` are relative to.")
    pseudonyms: str | None = Field(None, description="A secret: ids in results become keyed hashes of the sheet's ids.")
    datasets: Mapping[str, DatasetSpec] = Field(min_length=1)
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
        return self

    def targets(self, run: str) -> dict[str, Split]:
        """Data set to split that a run is evaluated on."""
        spec = self.runs[run]
        return dict(spec.test_on or self.evaluation.test_on or {spec.dataset: "test"})


_SECTIONS = tuple(Sections.model_fields)


def load_config(raw: Mapping[str, Any]) -> Config:
    """The checked configuration from what YAML gave.

    Sections at the top are defaults; a data set's sections and a run's `training` override them key by key.

    Raises:
        ConfigError: Every problem with the path of its key.
    """
    top = dict(raw)
    shared = {name: _mapping(top.pop(name, {}), name) for name in _SECTIONS}
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
        sections = {key: merged(shared[key], own.pop(key, {})) for key in _SECTIONS}
        datasets[name] = {**own, "sections": sections}
    runs = {}
    for name, entry in _mapping(top.get("runs", {}), "runs").items():
        own = dict(_mapping(entry, f"runs.{name}"))
        runs[name] = {**own, "training": merged(training, own.pop("training", {}))}
    try:
        config = Config.model_validate({**top, "datasets": datasets, "runs": runs})
    except ValidationError as error:
        problems += _problems(error)
    if problems:
        raise ConfigError("config:\n  " + "\n  ".join(problems))
    return config


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
            marker="HER2",
            her2_score=score,
            section=spec.section,
            landmarks=str(folder / case_id / "landmarks.csv"),
            batch=f"b{number % 3 + 1}",
        )


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
