"""The sections `training`, `runs` and `evaluation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split


class SelectSpec(Spec):
    """What chooses the checkpoint of a run."""

    metric: Literal["last", "mae", "psnr", "ssim", "msssim", "css_ihc", "css_he", "pd_effnetlite0", "lpips_alex"] = (
        Field("last", description="`last`: the final weights; else the mean over crops of validation tiles.")
    )
    mode: Literal["min", "max"] | None = Field(None, description="Which way is better; empty: the metric's own.")
    every: int = Field(500, gt=0, description="Steps between two validations.")
    max_tiles: int = Field(64, gt=0, description="Validation tiles looked at, evenly spread.")


class NormalizeSpec(Spec):
    """Which stains a run sees in other colours than the store's; one word in the config means the H&E."""

    he: Literal["none", "reinhard", "macenko"] = Field("none", description="The model's input, at use as in training.")
    ihc: Literal["none", "reinhard", "macenko"] = Field(
        "none", description="What it learns to draw: scores still compare with the IHC as stored."
    )


class TrainingSpec(Spec):
    """One protocol for all runs; a run may override it."""

    revision: Literal[2] = 2
    n_steps: int = Field(2000, gt=0, description="Iterations.")
    batch_size: int = Field(4, gt=0)
    accumulation: int = Field(1, gt=0, description="Micro-batches per step; `batch_size` is what a step sees in all.")
    mpp: float | None = Field(None, gt=0, description="µm per px of what the model sees; empty: as stored.")
    crop_px: int = Field(256, gt=0, description="Side of the random training crop, px at `mpp`.")
    flips: bool = Field(True, description="Flip and turn both stains alike.")
    normalize: NormalizeSpec = Field(
        NormalizeSpec(),
        description="Colours brought to the median of the training split's cases: none, reinhard or macenko.",
    )
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
    fold: int | None = Field(
        None,
        ge=0,
        description="Fold of the data set that is its test, the next one being val; `all` makes a run of each, NAME-f0 "
        "and so on.",
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
