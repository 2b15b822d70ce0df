"""What the runs of a config will cost, before they run: device-hours and disk, from rates that were measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from hepipe.config import Config
from hepipe.dataset.tiles import SplitTiles
from hepipe.errors import HepipeError
from hepipe.models.method import Fits, Method
from hepipe.models.rates import accounts, expected, known_rates, prediction_workload, training_workload
from hepipe.models.resolved import ResolvedRun, resolve_run, zoo_module
from hepipe.models.size import META
from hepipe.models.spending import machine_name
from hepipe.specs.dataset import Split
from hepipe.stores.costs import Cost, Expected, Rate, Workload
from hepipe.stores.tables import INDEX, read_columns

NOT_COUNTED = "its tiles are not counted yet: run `hepipe run datasets` first"


@dataclass(frozen=True)
class Stage:
    """One job of a run.

    Attributes:
        what: `train`, or `predict <data set> <split>`.
        n_units: Steps or tiles; None where tiles are not counted yet.
        expected: Wall time and what it rests on.
        units_at_once: GPUs or CPU cores that it takes.
        disk_bytes: Of what it leaves; None where unknown.
    """

    what: str
    n_units: int | None
    expected: Expected
    units_at_once: int
    disk_bytes: int | None = None

    @property
    def device_hours(self) -> float | None:
        """GPU-hours or core-hours."""
        return None if self.expected.wall_s is None else self.expected.wall_s * self.units_at_once / 3600


@dataclass(frozen=True)
class PlannedRun:
    """One run of a config.

    Attributes:
        name: Of the run.
        about: Model and preset.
        device: cpu or cuda.
        is_trained: Whether its finished model lies there.
        stages: Its training, then its predictions.
        resume_bytes: Of resume files while it trains, at most; None where unknown.
        problem: Why it cannot be planned; empty when it can.
    """

    name: str
    about: str
    device: str
    is_trained: bool
    stages: tuple[Stage, ...] = ()
    resume_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Total:
    """Over all runs of a config; `open` counts the jobs that no number is known of.

    Attributes:
        device: cpu or cuda.
        device_hours: GPU-hours or core-hours of the jobs that are known.
        open: Jobs without a rate or a count.
    """

    device: str
    device_hours: float
    open: int


def totals(planned: Sequence[PlannedRun]) -> list[Total]:
    """By device, of every run with its predictions, done or not."""
    found = []
    for device in dict.fromkeys(run.device for run in planned):
        runs = [run for run in planned if run.device == device]
        hours = [stage.device_hours for run in runs for stage in run.stages]
        unknown = hours.count(None) + sum(bool(run.problem) for run in runs)
        found.append(Total(device, sum((hour for hour in hours if hour is not None), 0.0), unknown))
    return found


def plan(config: Config, results: Path, *, rates_file: Path | None = None) -> list[PlannedRun]:
    """Every run of a config, trained or not.

    Args:
        config: Whole.
        results: Where indices and accounts of earlier runs are looked for; may be missing.
        rates_file: Of a benchmark; None takes `rates.json` if it is there.

    Raises:
        StoreError: The rates file cannot be read.
    """
    runs = results / "runs"
    planner = _Planner(config, results, known_rates(runs, file=rates_file), _bytes_a_value(accounts(runs)))
    return [planner.run(name) for name in config.runs]


@dataclass(frozen=True)
class _Planner:
    config: Config
    results: Path
    rates: Sequence[Rate]
    bytes_a_value: float | None

    def run(self, name: str) -> PlannedRun:
        spec = self.config.runs[name]
        about, device = f"{spec.model}, {spec.preset}", spec.training.device
        is_trained = (self.results / "runs" / name / "model.safetensors").is_file()
        try:
            run = resolve_run(name, spec)
            method = _method(run)
            weights, resume = (None, None) if method is None else _sizes(method, run)
            stages = [replace(self._training(run, method), disk_bytes=weights)]
            stages += [self._prediction(run, *target) for target in self.config.targets(name)]
        except HepipeError as error:
            return PlannedRun(name, about, device, is_trained, problem=str(error))
        return PlannedRun(name, about, device, is_trained, tuple(stages), resume)

    def _training(self, run: ResolvedRun, method: Method | None) -> Stage:
        work = training_workload(run, machine=_this_machine(run))
        n_tiles = self._counts(run, run.dataset).get("train")
        if isinstance(method, Fits):  # sees every tile once
            work, n_units = work.model_copy(update={"unit": "tile", "tiles_a_unit": 1}), n_tiles
        elif run.training.budget.rule == "published_epochs" and n_tiles is None:
            n_units = None
        else:
            n_units = run.n_steps(n_tiles or 1)
        return self._stage("train", work, n_units)

    def _prediction(self, run: ResolvedRun, dataset: str, split: Split) -> Stage:
        what = f"predict {dataset} {split}"
        n_tiles = self._counts(run, dataset).get(split)
        index = self._index(run, dataset)
        side_px = SplitTiles(index, split, mpp=run.training.mpp).side_px if n_tiles else 0
        work = prediction_workload(run, side_px=side_px or 1, machine=_this_machine(run))
        if not n_tiles or not side_px:
            reason = NOT_COUNTED if n_tiles is None else "no tile in this split"
            return Stage(what, n_tiles, Expected(ground=reason), work.units_at_once)
        values = n_tiles * side_px**2 * 3
        return replace(self._stage(what, work, n_tiles), disk_bytes=round(values * (self.bytes_a_value or 1.0)))

    def _stage(self, what: str, work: Workload, n_units: int | None) -> Stage:
        if n_units is None:
            return Stage(what, None, Expected(ground=NOT_COUNTED), work.units_at_once)
        return Stage(what, n_units, expected(work, n_units, self.rates), work.units_at_once)

    def _index(self, run: ResolvedRun, dataset: str) -> Path:
        folded = run.fold is not None and dataset == run.dataset
        return self.results / dataset / (f"fold-{run.fold}.parquet" if folded else "index.parquet")

    def _counts(self, run: ResolvedRun, dataset: str) -> Mapping[str, int]:
        """Tiles by split; empty before the data set is assembled."""
        index = self._index(run, dataset)
        if not index.is_file():
            return {}
        table = read_columns(index, INDEX, columns=("split", "place"))
        places = zip(table["split"].to_pylist(), table["place"].to_pylist(), strict=True)
        counts = Counter(split for split, place in places if place == "inside")
        return {split: counts[split] for split in get_args(Split)}


def _this_machine(run: ResolvedRun) -> str:
    """The kind of device that would train it here; empty where this machine has none."""
    if run.training.device == "cuda" and not torch.cuda.is_available():
        return ""
    return machine_name(torch.device(run.training.device))


def _method(run: ResolvedRun) -> Method | None:
    """The shapes of a run's method; None where it is built from another run's model, which may not be there."""
    if any(part.kind == "run" and not part.absent for part in run.parts.values()):
        return None
    module = zoo_module(run.model)
    with META:
        method: Method = module.build(type(module.PRESETS[run.preset]).model_validate(dict(run.config)), {})
    return method


def _sizes(method: Method, run: ResolvedRun) -> tuple[int, int]:
    """Bytes of the finished model, and of the resume files that lie there at once while it trains."""
    tensors = [value for value in method.state_dict().values() if isinstance(value, Tensor)]
    state = sum(value.numel() * value.element_size() for value in tensors)
    trained = sum(p.numel() * p.element_size() for net in method.players().values() for p in net.parameters())
    best = 0 if run.training.select.metric == "last" else 2 * state
    # The new file is whole before the old one goes; Adam keeps two values a parameter.
    return state, 2 * (state + 2 * trained) * run.training.gpus + best


def _bytes_a_value(costs: Sequence[Cost]) -> float | None:
    """Of predicted tiles on disk, at most, from those that lie there: flat colours take next to nothing."""
    shares = [
        cost.disk_bytes / (cost.n_units * cost.workload.side_px**2 * 3)
        for cost in costs
        if cost.workload.stage == "predict" and cost.finished and cost.disk_bytes and cost.n_units
    ]
    return max(shares, default=None)
