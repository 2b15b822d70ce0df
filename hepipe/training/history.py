"""What a training says of itself: loss terms by step, kept on the device until they are wanted."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hepipe.errors import ConfigError, HepipeError
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import HISTORY, write_table


@runtime_checkable
class _Arrival(Protocol):
    """As torch.cuda.Event."""

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


@dataclass(frozen=True)
class _Noted:
    """Terms of one turn on their way to the CPU; `ready` is None when they are there."""

    step: int
    names: tuple[str, ...]
    values: Tensor
    ready: _Arrival | None

    @property
    def is_here(self) -> bool:
        return self.ready is None or self.ready.query()


class History:
    """Rows of the history table; training terms are means over the steps between two rows."""

    def __init__(self, run: str, *, events: Path | None = None) -> None:
        """An empty history.

        Args:
            run: Name of the run, for messages.
            events: Folder of TensorBoard events; None writes none.

        Raises:
            ConfigError: Events are asked for and tensorboard is not installed.
        """
        self.run = run
        self.steps: list[int] = []
        self.phases: list[str] = []
        self.names: list[str] = []
        self.values: list[float] = []
        self._coming: deque[_Noted] = deque()
        self._waiting: dict[str, list[float]] = {}
        self._events = None if events is None else _event_writer(events, run)

    def note(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Keep terms of one turn, and look at those that have reached the CPU: all of them there, no stall of a GPU.

        Raises:
            HepipeError: A term was not finite; names the first one and its step.
        """
        if not terms:
            return
        values = torch.stack([value.detach().float().mean() for value in terms.values()])
        ready: _Arrival | None = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            ready = event
        self._coming.append(_Noted(step, tuple(terms), values, ready))
        while self._coming and self._coming[0].is_here:
            self._take(self._coming.popleft())

    def _take(self, noted: _Noted) -> None:
        for name, value in zip(noted.names, noted.values.tolist(), strict=True):
            if not math.isfinite(value):
                player, _, term = name.rpartition(".")
                what = f"the gradient of {player}, whose loss terms are finite," if term == "gradient" else name
                raise HepipeError(
                    f"run {self.run}: {what} became {value} at step {noted.step}; nothing after that is of use. Try a "
                    "lower learning rate, precision fp32, or look at the tiles; a resume file, if there is one, is "
                    "from before"
                )
            self._waiting.setdefault(name, []).append(value)

    def flush(self, step: int) -> dict[str, float]:
        """Write the mean of each noted term as a row of `step`, and return them.

        Raises:
            HepipeError: A term was not finite; names the first one and its step.
        """
        while self._coming:
            noted = self._coming.popleft()
            if noted.ready is not None:
                noted.ready.synchronize()
            self._take(noted)
        row = {name: sum(found) / len(found) for name, found in self._waiting.items()}
        self._waiting.clear()
        self.add(step, "train", row)
        return row

    def add(self, step: int, phase: str, row: Mapping[str, float]) -> None:
        """Add values as they are."""
        for name, value in row.items():
            self.steps.append(step)
            self.phases.append(phase)
            self.names.append(name)
            self.values.append(value)
            if self._events is not None:
                self._events.add_scalar(f"{phase}/{name}", value, step)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, for a resume file."""
        return {
            "steps": torch.tensor(self.steps, dtype=torch.int64),
            "phases": list(self.phases),
            "names": list(self.names),
            "values": torch.tensor(self.values, dtype=torch.float64),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a resume file."""
        self.steps, self.values = state["steps"].tolist(), state["values"].tolist()
        self.phases, self.names = list(state["phases"]), list(state["names"])
        if self._events is not None and self.steps:
            # What a killed training wrote after its last resume file comes again.
            self._events.purge_after(self.steps[-1])

    def rows(self) -> Iterable[dict[str, Any]]:
        """Rows of the table HISTORY."""
        for step, phase, name, value in zip(self.steps, self.phases, self.names, self.values, strict=True):
            yield {"step": step, "phase": phase, "name": name, "value": value}

    def write(self, path: Path, provenance: Provenance) -> None:
        """Store the table whole."""
        write_table(list(self.rows()), path, HISTORY, provenance)
        if self._events is not None:
            self._events.close()


class _Events:
    """TensorBoard events; the file is opened with the first value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._purge_step: int | None = None
        self._writer: Any = None

    def purge_after(self, step: int) -> None:
        """TensorBoard leaves out what older files say of later steps."""
        self._purge_step = step + 1

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Add a point of a curve."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.folder, purge_step=self._purge_step)
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def _event_writer(folder: Path, run: str) -> _Events:
    if find_spec("tensorboard") is None:
        raise ConfigError(
            f"runs.{run}.training.tensorboard: tensorboard is not installed; pip install tensorboard, or set false"
        )
    return _Events(folder)
