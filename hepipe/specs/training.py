"""The sections `training`, `runs` and `evaluation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split
from hepipe.specs.start import by_network


class SelectSpec(Spec):
    """What chooses the checkpoint of a run."""

    metric: Literal[
        "last", "mae", "psnr", "ssim", "msssim", "css_ihc", "css_he", "pd_effnetlite0", "lpips_alex", "lpips_vgg"
    ] = Field("last", description="`last`: the final weights; else the mean over crops of validation tiles.")
    mode: Literal["min", "max"] | None = Field(None, description="Which way is better; empty: the metric's own.")
    every: int = Field(500, gt=0, description="Steps between two validations.")
    max_tiles: int = Field(64, gt=0, description="Validation tiles looked at, evenly spread.")


BudgetRule = Literal["equal_steps", "published_epochs", "own_original_steps"]


class BudgetSpec(Spec):
    """How long every run trains: a rule for all of them."""

    rule: BudgetRule = Field(
        "equal_steps",
        description="equal_steps: `n_steps` for all; published_epochs: each model's own passes over the training "
        "tiles; own_original_steps: the steps that each model's paper took on its own data.",
    )
    batch: Literal["protocol", "published"] = Field(
        "protocol", description="protocol: `batch_size` for all; published: each model's own."
    )
    most_steps: int | None = Field(None, gt=0, description="No run takes more, for trials; schedules shrink with it.")


class NormalizeSpec(Spec):
    """Which stains a run sees in other colours than the store's; one word in the config means the H&E."""

    he: Literal["none", "reinhard", "macenko"] = Field("none", description="The model's input, at use as in training.")
    ihc: Literal["none", "reinhard", "macenko"] = Field(
        "none", description="What it learns to draw: scores still compare with the IHC as stored."
    )


class TrainingSpec(Spec):
    """One protocol for all runs; a run may override it."""

    revision: Literal[2] = 2
    n_steps: int = Field(2000, gt=0, description="Iterations under the budget rule equal_steps.")
    budget: BudgetSpec = BudgetSpec()
    batch_size: int = Field(4, gt=0)
    accumulation: int = Field(1, gt=0, description="Micro-batches per step; `batch_size` is what a step sees in all.")
    sync_batch_norm: bool = Field(
        False, description="Batch norms take their statistics over the tiles of all processes of a step, not of each."
    )
    mpp: float | None = Field(None, gt=0, description="µm per px of what the model sees; empty: as stored.")
    crop_px: int = Field(256, gt=0, description="Side of the random training crop, px at `mpp`.")
    flips: bool = Field(True, description="Flip and turn both stains alike.")
    sample_with_replacement: bool = Field(
        False, description="Every draw is of any tile, as in ASP's released code; else every tile once an epoch."
    )
    normalize: NormalizeSpec = Field(
        NormalizeSpec(),
        description="Colours brought to the median of the training split's cases: none, reinhard or macenko.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: Literal["none", "default", "max-autotune-no-cudagraphs"] = Field(
        "none", description="Mode in which torch compiles the networks; the last times kernels, cuDNN's too, to choose."
    )
    channels_last: bool = Field(False, description="Lay weights out channels last, which tensor cores read as it is.")
    device: Literal["cpu", "cuda"] = "cpu"
    gpus: int = Field(1, ge=1, le=64, description="Processes of a run on `cuda`, a GPU each, that share a batch.")
    threads: int = Field(2, ge=1, description="Threads of torch on a CPU: part of the result, so named here.")
    workers: int = Field(2, ge=0, description="Threads that decode tiles; no part of the result.")
    cache_mb: int = Field(1024, ge=0, description="Decoded tiles kept in memory, MB per process.")
    checkpoint_every: int = Field(500, gt=0, description="Steps between two resume files.")
    sample_every: int = Field(500, gt=0, description="Steps between two pictures of validation tiles.")
    log_every: int = Field(20, gt=0, description="Steps between two rows of the history.")
    tensorboard: bool = Field(False, description="Write the history as TensorBoard events too.")
    select: SelectSpec = SelectSpec()

    @field_validator("budget", mode="before")
    @classmethod
    def _one_word_means_the_rule(cls, value: Any) -> Any:
        return {"rule": value} if isinstance(value, str) else value

    @field_validator("normalize", mode="before")
    @classmethod
    def _one_word_means_the_he(cls, value: Any) -> Any:
        return {"he": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _pieces_hold_a_tile(self) -> TrainingSpec:
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation ({self.accumulation}) cuts a batch of {self.batch_size} into pieces without a tile"
            )
        if self.gpus > 1 and self.device != "cuda":
            raise ValueError(f"gpus ({self.gpus}) go with device cuda, found {self.device}")
        if self.gpus > self.batch_size:
            raise ValueError(f"gpus ({self.gpus}) cannot share a batch of {self.batch_size}: each needs a tile")
        return self


PROTOCOL = (
    "budget",
    "n_steps",
    "batch_size",
    "mpp",
    "crop_px",
    "flips",
    "sample_with_replacement",
    "normalize",
    "precision",
    "select",
)
"""Keys of `training` that a fair comparison shares; the others say how a run is carried out."""


def outside_protocol(run: TrainingSpec, protocol: TrainingSpec) -> dict[str, str]:
    """What of a run's training differs from the protocol: key to what it has and what the protocol says.

    Which crops validate, and how often, belongs to the rule that chooses a checkpoint.
    """
    own, common = (_flat(spec.model_dump(mode="json", include=set(PROTOCOL))) for spec in (run, protocol))
    if run.budget.rule == protocol.budget.rule != "equal_steps":
        own["n_steps"] = common["n_steps"]
    if run.budget.batch == protocol.budget.batch == "published":
        own["batch_size"] = common["batch_size"]
    return {key: f"{_said(own[key])}, protocol {_said(common[key])}" for key in own if own[key] != common[key]}


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found


def _said(value: Any) -> str:
    return "as stored" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


TestOn = Mapping[str, tuple[Split, ...]]


def one_or_several(value: Any) -> Any:
    """A split alone means a list of one."""
    if not isinstance(value, Mapping):
        return value
    return {name: (splits,) if isinstance(splits, str) else splits for name, splits in value.items()}


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
    init_from: Mapping[str, str] = Field(
        default_factory=dict,
        description="What training starts from, by network or as a whole: `run:NAME`, `weights:FILE`, or the path of a "
        "finished model or of its authors' checkpoint.",
    )
    fold: int | None = Field(
        None,
        ge=0,
        description="Fold of the data set that is its test, the next one being val; `all` makes a run of each, NAME-f0 "
        "and so on.",
    )
    test_on: TestOn | None = Field(None, description="Data set to the split, or splits, that it is evaluated on.")
    training: TrainingSpec

    _splits = field_validator("test_on", mode="before")(one_or_several)
    _start = field_validator("init_from", mode="before")(by_network)


class StitchSpec(Spec):
    """How the crops of a tile that is predicted piece by piece are put together."""

    overlap_frac: float = Field(
        0.25, ge=0, le=0.75, description="Least share of a crop's side that neighbours have in common."
    )
    blend: Literal["linear", "mean"] = Field(
        "linear", description="linear: a crop counts less towards its edge; mean: alike everywhere."
    )


class EvaluationSpec(Spec):
    """What is measured, and where."""

    revision: Literal[1] = 1
    test_on: TestOn = Field(
        default_factory=dict, description="Data set to the split, or splits; empty: the run's own test."
    )
    tile_px: int = Field(0, ge=0, description="Prediction tile, px; 0 takes whole stored tiles.")
    stitch: StitchSpec = StitchSpec()
    mpp_slack: float = Field(
        0.05, ge=0, lt=0.5, description="A store whose µm/px is within this share of a run's is shown as stored."
    )
    batch_size: int = Field(4, gt=0)
    primary: tuple[str, ...] = ("fd_effnetlite0", "pd_effnetlite0", "css_he", "iod_ccc", "dab_dice")
    dab_thresholds_od: tuple[float, float, float] = Field((0.2, 0.4, 0.6), description="Of pixel H-scores, OD index.")
    bootstrap: int = Field(2000, ge=100)

    _splits = field_validator("test_on", mode="before")(one_or_several)

    def prediction(self) -> str:
        """What predicted tiles depend on, as JSON: another table of scores stains nothing again."""
        return self.model_dump_json(include={"revision", "tile_px", "stitch", "mpp_slack", "batch_size"})

    def scoring(self) -> str:
        """What scores depend on, as JSON."""
        return self.model_dump_json(include={"revision", "batch_size", "dab_thresholds_od"})


def protocol_in_words(training: TrainingSpec, evaluation: EvaluationSpec) -> dict[str, str]:
    """What all runs of a comparison share, for people: what is settled, and how."""
    budget, select, stitch = training.budget, training.select, evaluation.stitch
    length = {
        "equal_steps": f"{training.n_steps:,} steps for every run",
        "published_epochs": "as many passes over the training tiles as each model's authors took",
        "own_original_steps": "as many steps as each model's paper took on its own data",
    }[budget.rule]
    batch = f"{training.batch_size} tiles for every run" if budget.batch == "protocol" else "each model's own"
    whole = evaluation.tile_px == 0
    blend = "falling towards their edges" if stitch.blend == "linear" else "alike everywhere"
    return {
        "budget": length + (f", at most {budget.most_steps:,}" if budget.most_steps is not None else ""),
        "batch": batch,
        "resolution": "as stored" if training.mpp is None else f"{training.mpp:g} µm/px",
        "training crop": f"{training.crop_px} px, {'flipped and turned' if training.flips else 'as it lies'}",
        "draws": "any tile at any time" if training.sample_with_replacement else "every tile once an epoch",
        "colours": ", ".join(
            f"{name} {'as stored' if way == 'none' else f'by {way}'}"
            for name, way in (("H&E", training.normalize.he), ("IHC", training.normalize.ihc))
        ),
        "precision": training.precision,
        "checkpoint": "the last"
        if select.metric == "last"
        else f"best {select.metric} on up to {select.max_tiles} validation crops, every {select.every:,} steps",
        "prediction": "whole tiles, or the largest crops that a model takes" if whole else f"{evaluation.tile_px} px",
        "stitching": f"crops share {stitch.overlap_frac:.0%} of their side at least and count {blend}",
    }
