"""How far a training is: a bar on a terminal, an occasional line in a log."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from tqdm import tqdm

LINE_EVERY_S = 30.0


class Meter:
    """Steps, images a second, time to go and most memory so far, on stderr; `quiet` says nothing."""

    def __init__(self, *, name: str, n_steps: int, device: torch.device, quiet: bool = False) -> None:
        self.name = name
        self.n_steps = n_steps
        self.device = device
        self.quiet = quiet
        self.start = 0
        self._began = self._said = time.monotonic()
        self._images = 0
        self._terms = ""
        self._bar: Any = None

    def begin(self, start: int) -> None:
        """The first step comes now."""
        self.start = start
        self._began = self._said = time.monotonic()
        if sys.stderr.isatty() and not self.quiet:
            self._bar = tqdm(total=self.n_steps, initial=start, desc=self.name, unit="step", dynamic_ncols=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            sys.stderr.write(f"{self.name}: {text}\n")
            sys.stderr.flush()

    def terms(self, row: Mapping[str, float]) -> None:
        """The newest loss terms."""
        if row:
            self._terms = " ".join(f"{name} {value:.4g}" for name, value in row.items() if name.endswith(".loss"))

    def tick(self, step: int, n_images: int) -> None:
        """One more step is done."""
        self._images += n_images
        now = time.monotonic()
        rate = self._images / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(1)
            if step % 10 == 0 or step == self.n_steps:
                self._bar.set_postfix_str(f"{rate:.1f} img/s {self._memory()} {self._terms}", refresh=False)
        elif now - self._said >= LINE_EVERY_S or step == self.n_steps:
            self._said = now
            left = (self.n_steps - step) * (now - self._began) / max(step - self.start, 1)
            minutes, seconds = divmod(round(left), 60)
            eta = f"eta {minutes}:{seconds:02d}"
            self.say(f"step {step}/{self.n_steps} {rate:.1f} img/s {eta} {self._memory()} {self._terms}".rstrip())

    def _memory(self) -> str:
        """The most that was in use: tensors on a GPU, else of the whole process."""
        if self.device.type == "cuda":
            most = torch.cuda.max_memory_allocated(self.device)
        else:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in kB
        return f"{most / 1e9:.1f} GB"

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()
