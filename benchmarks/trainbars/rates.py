"""What the benchmark measured, as rates that `hepipe cost` and the report's estimates read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from hepipe.models.rates import speed_in_words
from hepipe.models.resolved import zoo_module
from hepipe.models.spending import machine_name
from hepipe.specs.training import TrainingSpec
from hepipe.stores.costs import Rate, Workload, read_rates, write_rates

SOURCE = "benchmarks/train.py"


def rate(
    model: str,
    runs: list[dict[str, Any]],
    *,
    preset: str,
    side: int,
    batch: int,
    threads: int,
    device: str,
    settings: Mapping[str, Any],
) -> Rate | None:
    """The median of a model's runs under one setting; None when one of them failed."""
    if not runs or any("problem" in run for run in runs):
        return None
    spec = TrainingSpec.model_validate({"crop_px": side, "batch_size": batch, "device": device, **settings})
    workload = Workload(
        stage="train",
        model=model,
        preset=preset,
        options=_options(model, preset, side),
        unit="step",
        tiles_a_unit=batch,
        side_px=side,
        precision=spec.precision,
        speed=speed_in_words(spec),
        device=spec.device,
        machine=machine_name(torch.device(device)),
        threads=1 if device == "cuda" else threads,
    )
    return Rate(workload=workload, seconds=median(1 / run["steps_s"] for run in runs), source=SOURCE)


def add_rates(path: Path, rates: list[Rate]) -> None:
    """Put rates into a file; those of the same work take the place of older ones."""
    known = read_rates(path) if path.is_file() else ()
    new = {found.workload for found in rates}
    write_rates(path, [*(found for found in known if found.workload not in new), *rates])


def _options(model: str, preset: str, side: int) -> str:
    """What the benchmark builds otherwise than the preset: a model of one side is built for the measured one."""
    built_for = getattr(zoo_module(model).PRESETS[preset], "full_size", side)
    return json.dumps({} if built_for == side else {"full_size": side}, sort_keys=True)
