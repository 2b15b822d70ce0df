"""What a training or prediction took: wall time, memory and disk, in a side file of its own.

It is no part of any digest or fingerprint: the same model comes out of a fast machine and a slow one. A job that was
killed and went on has several sessions; what it had spent before counts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hepipe.errors import StoreError

COST = "cost.json"
"""In the folder of a run: what its training took."""


def cost_of_tiles(virtual: Path) -> Path:
    """Where the account of a store of virtual tiles lies: beside it."""
    return virtual.with_name(f"{virtual.stem}.{COST}")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Workload(_Frozen):
    """What decides how long one unit takes. Names a kind of machine, never a host."""

    stage: Literal["train", "predict"]
    model: str
    preset: str
    options: str = Field("{}", description="Hyperparameters that differ from the preset, as sorted JSON.")
    unit: Literal["step", "tile"] = Field(description="What is counted.")
    tiles_a_unit: int = Field(1, ge=1, description="Tiles that one unit sees, of all processes together.")
    side_px: int = Field(ge=1, description="Side of those tiles.")
    precision: str = "fp32"
    speed: str = Field("", description="How its networks are made fast, such as `compile default`; empty: eager.")
    device: Literal["cpu", "cuda"]
    machine: str = Field("", description="Name of the GPU or the CPU; empty: any.")
    processes: int = Field(1, ge=1, description="GPUs, or processes on a CPU.")
    threads: int = Field(1, ge=1, description="Of each process, on a CPU.")

    @property
    def units_at_once(self) -> int:
        """GPUs, or CPU cores, that are taken while it runs."""
        return self.processes * (1 if self.device == "cuda" else self.threads)


class Session(_Frozen):
    """One process from its start to its end, or to the last time it could say."""

    units: Count = Field(description="Steps or tiles done in it.")
    wall_s: Amount
    cpu_s: Amount = Field(description="Of all threads of the first process.")
    memory_mb: Amount = Field(description="Peak of resident memory of the first process.")
    device_mb: Amount | None = Field(None, description="Peak of GPU memory that torch held; None on a CPU.")
    ended: bool = Field(description="False for one that was killed or failed.")


class Expected(_Frozen):
    """What was expected before it began."""

    wall_s: Amount | None = Field(None, description="None where no rate was known.")
    ground: str = Field(description="What it rests on, or why there is none.")


class Cost(_Frozen):
    """What one run spent on one stage."""

    run: str
    key: str = Field(description="Of what was computed: another one begins a new account.")
    workload: Workload
    n_units: Count = Field(description="Steps or tiles in all.")
    expected: Expected
    sessions: tuple[Session, ...] = ()
    disk_bytes: Count | None = Field(None, description="Of the finished model or the predicted tiles.")

    @property
    def finished(self) -> bool:
        """Whether the last session came to its end."""
        return bool(self.sessions) and self.sessions[-1].ended

    @property
    def wall_s(self) -> float:
        """Of all sessions."""
        return sum(session.wall_s for session in self.sessions)

    @property
    def device_hours(self) -> float:
        """GPU-hours, or core-hours on a CPU: wall time by what was taken."""
        return self.wall_s * self.workload.units_at_once / 3600

    @property
    def seconds_a_unit(self) -> float | None:
        """Wall seconds of a step or tile, loading, validation and pictures included; None before the first one."""
        units = sum(session.units for session in self.sessions)
        return self.wall_s / units if units else None

    @property
    def memory_mb(self) -> float:
        """Peak over the sessions."""
        return max((session.memory_mb for session in self.sessions), default=0.0)

    @property
    def device_mb(self) -> float | None:
        """Peak over the sessions; None on a CPU."""
        return max((session.device_mb for session in self.sessions if session.device_mb is not None), default=None)


class Rate(_Frozen):
    """How long one unit of a workload took somewhere."""

    workload: Workload
    seconds: float = Field(gt=0, allow_inf_nan=False, description="Wall seconds of a unit.")
    source: str = Field(description="Where it was measured, such as a run's name.")


_RATES = TypeAdapter(tuple[Rate, ...])


def write_cost(path: Path, cost: Cost) -> None:
    """Store an account whole."""
    _write(path, cost.model_dump_json(indent=1))


def read_cost(path: Path) -> Cost:
    """An account.

    Raises:
        StoreError: Missing, or no account.
    """
    try:
        return Cost.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path}: no account of what a run took ({type(error).__name__}); it is written anew"
        ) from None


def write_rates(path: Path, rates: Sequence[Rate]) -> None:
    """Store measured rates whole."""
    _write(path, _RATES.dump_json(tuple(rates), indent=1).decode())


def read_rates(path: Path) -> tuple[Rate, ...]:
    """Measured rates.

    Raises:
        StoreError: Missing, or not a list of rates.
    """
    try:
        return _RATES.validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: no list of rates ({type(error).__name__}); measure again") from None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text + "\n", encoding="utf-8")
    os.replace(beside, path)
