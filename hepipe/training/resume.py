"""Resume files: where a training stands, as tensors and plain values, one file a process.

A file appears whole under the name of its step. Processes may be killed between each other's writes, so that a step
counts only when every one of them has its file. Files of another configuration or data set are never continued.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hepipe.models.ranks import wait_for_all


class ResumeFolder:
    """The resume files of one run, seen by one of its processes."""

    def __init__(self, folder: Path, *, key: str, rank: int = 0, n_ranks: int = 1) -> None:
        """A folder that may not exist yet.

        Args:
            folder: Of the run.
            key: Digest of configuration and data; files with another key are deleted when a new one is written.
            rank: Of this process.
            n_ranks: Processes that train together.
        """
        self.folder = folder
        self.key = key
        self.rank = rank
        self.n_ranks = n_ranks

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state that every process has, or None."""
        for step in sorted(self._steps(), reverse=True):
            if not all(self._path(step, rank).exists() for rank in range(self.n_ranks)):
                continue
            state: dict[str, Any] = torch.load(self._path(step, self.rank), map_location=device, weights_only=True)
            if state["key"] == self.key and state["n_ranks"] == self.n_ranks:
                return state
        return None

    def save(self, step: int, state: Mapping[str, Any], *, best_step: int | None) -> None:
        """Write the state after `step` iterations, then delete the files it makes useless."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(step, self.rank)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save({**state, "step": step, "key": self.key, "n_ranks": self.n_ranks}, beside)
        os.replace(beside, path)
        wait_for_all()
        if self.rank == 0:
            kept = {self._path(step, rank).name for rank in range(self.n_ranks)}
            kept |= set() if best_step is None else {self._best(best_step).name}
            for other in self.folder.iterdir():
                if other.name not in kept:
                    other.unlink(missing_ok=True)
        wait_for_all()

    def save_best(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep a finished state. Under its step, so that a resumed run finds the one its own record names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._best(step)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(dict(state), beside)
        os.replace(beside, path)

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The finished state of a step."""
        state: dict[str, Tensor] = load_file(self._best(step))
        return state

    def clear(self) -> None:
        """Delete the folder: pools in it hold images, and the finished model stands elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> set[int]:
        names = [path.name for path in self.folder.glob("step-*.pt")]
        return {int(found[1]) for name in names if (found := re.match(r"step-(\d+)-", name))}

    def _path(self, step: int, rank: int) -> Path:
        return self.folder / f"step-{step:08d}-rank{rank}.pt"

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}.safetensors"
