"""How far a training is: a bar on a terminal, an occasional line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 30.0


class Meter:
    """Steps, images a second and time to go, on stderr."""

    def __init__(self, *, name: str, start: int, n_steps: int) -> None:
        self.name = name
        self.start = start
        self.n_steps = n_steps
        self._began = self._said = time.monotonic()
        self._images = 0
        self._terms = ""
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=n_steps, initial=start, desc=name, unit="step", dynamic_ncols=True)

    def say(self, text: str) -> None:
        """A line of its own."""
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
            self._bar.set_postfix_str(f"{rate:.1f} img/s {self._terms}", refresh=False)
        elif now - self._said >= LINE_EVERY_S or step == self.n_steps:
            self._said = now
            left = (self.n_steps - step) * (now - self._began) / max(step - self.start, 1)
            minutes, seconds = divmod(round(left), 60)
            self.say(f"step {step}/{self.n_steps} {rate:.1f} img/s eta {minutes}:{seconds:02d} {self._terms}")

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()
