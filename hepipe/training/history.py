"""What a training says of itself: loss terms by step, kept on the device until they are wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepipe.errors import ConfigError, HepipeError
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import HISTORY, write_table


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
        self._waiting: list[tuple[int, str, Tensor]] = []
        self._events = None if events is None else _event_writer(events, run)

    def note(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Keep terms of one turn without waiting for the device."""
        self._waiting += [(step, name, value.detach()) for name, value in terms.items()]

    def flush(self, step: int) -> dict[str, float]:
        """Write the mean of each waiting term as a row of `step`, and return them.

        Raises:
            HepipeError: A term was not finite; names the first one and its step.
        """
        if not self._waiting:
            return {}
        values = torch.stack([value.float().mean() for _, _, value in self._waiting]).tolist()
        means: dict[str, list[float]] = {}
        for (at, name, _), value in zip(self._waiting, values, strict=True):
            if not math.isfinite(value):
                raise HepipeError(
                    f"run {self.run}: {name} became {value} at step {at}; nothing after that is of use. Try a lower "
                    "learning rate, precision fp32, or look at the tiles; training resumes from its last resume file"
                )
            means.setdefault(name, []).append(value)
        self._waiting.clear()
        row = {name: sum(found) / len(found) for name, found in means.items()}
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

    def rows(self) -> Iterable[dict[str, Any]]:
        """Rows of the table HISTORY."""
        for step, phase, name, value in zip(self.steps, self.phases, self.names, self.values, strict=True):
            yield {"step": step, "phase": phase, "name": name, "value": value}

    def write(self, path: Path, provenance: Provenance) -> None:
        """Store the table whole."""
        write_table(list(self.rows()), path, HISTORY, provenance)
        if self._events is not None:
            self._events.close()


def _event_writer(folder: Path, run: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            f"runs.{run}.training.tensorboard: tensorboard is not installed; pip install tensorboard, or set false"
        ) from None
    return SummaryWriter(folder)
