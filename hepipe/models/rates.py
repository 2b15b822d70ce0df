"""How long a run will take, from what was measured before; where nothing was, it says so and guesses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from hepipe.errors import StoreError
from hepipe.models.resolved import ResolvedRun
from hepipe.specs.training import TrainingSpec
from hepipe.stores.costs import COST, Cost, Expected, Rate, Workload, read_cost, read_rates

RATES = Path("rates.json")
"""What a benchmark measured, in the working folder."""

UNKNOWN = "no rate known: neither a finished run nor a benchmark of this model and preset"


def training_workload(run: ResolvedRun, *, machine: str = "") -> Workload:
    """What decides how long a step of a run takes."""
    spec = run.training
    return Workload(
        stage="train",
        model=run.model,
        preset=run.preset,
        options=_options(run),
        unit="step",
        tiles_a_unit=spec.batch_size,
        side_px=spec.crop_px,
        precision=spec.precision,
        speed=speed_in_words(spec),
        device=spec.device,
        machine=machine,
        processes=spec.gpus,
        threads=1 if spec.device == "cuda" else spec.threads,
    )


def speed_in_words(spec: TrainingSpec) -> str:
    """How a run's networks are made fast; empty for eager ones."""
    said = [f"compile {spec.compile}"] if spec.compile != "none" else []
    return ", ".join([*said, "channels last"] if spec.channels_last else said)


def prediction_workload(run: ResolvedRun, *, side_px: int, machine: str = "") -> Workload:
    """What decides how long the prediction of a tile takes."""
    return training_workload(run, machine=machine).model_copy(
        update={
            "stage": "predict",
            "unit": "tile",
            "tiles_a_unit": 1,
            "side_px": side_px,
            "processes": 1,
            "precision": "fp32",
            "speed": "",
        }
    )


def accounts(runs: Path) -> list[Cost]:
    """What every run of a folder spent, on its training and on each split that it predicted.

    One of another version is left out.
    """
    found = []
    for form in (f"*/{COST}", f"*/on/*/*/*.{COST}"):
        for path in sorted(runs.glob(form)):
            with suppress(StoreError):
                found.append(read_cost(path))
    return found


def known_rates(runs: Path, *, file: Path | None = None) -> list[Rate]:
    """Rates of all finished runs of a folder, and those of a benchmark's file.

    Args:
        runs: Folder of the runs' folders; may be missing.
        file: Of a benchmark; None takes `rates.json` of the working folder, if it is there.

    Raises:
        StoreError: The file is no list of rates.
    """
    found = [
        Rate(workload=cost.workload, seconds=cost.seconds_a_unit, source=f"run {cost.run}")
        for cost in accounts(runs)
        if cost.finished and cost.seconds_a_unit
    ]
    if file is not None or RATES.is_file():
        found += read_rates(file or RATES)
    return found


def expected(workload: Workload, n_units: int, rates: Iterable[Rate]) -> Expected:
    """Wall time of some units: the median of the nearest rates, with what they rest on.

    A rate of another batch or crop is scaled by its pixels; one of another machine is taken as it is and named.
    Another model, preset, option, device or precision counts for nothing.
    """
    alike = [rate for rate in rates if _kind(rate.workload) == _kind(workload)]
    if not alike:
        return Expected(ground=UNKNOWN)
    nearest = min(_distance(rate.workload, workload) for rate in alike)
    taken = [rate for rate in alike if _distance(rate.workload, workload) == nearest]
    seconds = median(rate.seconds * _share(workload, rate.workload) for rate in taken)
    return Expected(wall_s=seconds * n_units, ground=_ground(workload, taken))


def _kind(work: Workload) -> tuple[object, ...]:
    return (work.stage, work.unit, work.model, work.preset, work.options, work.device, work.precision, work.speed)


def _distance(rate: Workload, wanted: Workload) -> tuple[bool, bool, bool]:
    """Smaller is nearer: another machine is worse than other threads or processes, those than other sizes."""
    other_machine = bool(wanted.machine) and rate.machine != wanted.machine
    other_hands = (rate.processes, rate.threads) != (wanted.processes, wanted.threads)
    return other_machine, other_hands, (rate.tiles_a_unit, rate.side_px) != (wanted.tiles_a_unit, wanted.side_px)


def _share(wanted: Workload, rate: Workload) -> float:
    return (wanted.tiles_a_unit * wanted.side_px**2) / (rate.tiles_a_unit * rate.side_px**2)


def _ground(wanted: Workload, taken: Sequence[Rate]) -> str:
    sources = list(dict.fromkeys(rate.source for rate in taken))
    named = ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
    rate = taken[0].workload
    other_machine, other_hands, other_size = _distance(rate, wanted)
    said = [f"measured in {named}"]
    if other_machine or not wanted.machine:
        machines = sorted({one.workload.machine or "a machine that is not named" for one in taken})
        said.append(f"on {', '.join(machines)}")
    if other_hands:
        kind = "GPUs" if rate.device == "cuda" else "threads"
        said.append(f"with {rate.units_at_once} {kind} in place of {wanted.units_at_once}")
    if other_size:
        said.append(f"scaled by pixels from {rate.tiles_a_unit} × {rate.side_px} px")
    return ", ".join(said)


def _options(run: ResolvedRun) -> str:
    return json.dumps(run.provenance.spec.get("options", {}), sort_keys=True)
