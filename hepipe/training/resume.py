"""Resume files: where a training stands, as tensors and plain values, one file a process.

A file appears whole under the name of its step. Processes may be killed between each other's writes, so that a step
counts only when every one of them has its file. Files of another configuration or data set are never continued.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hepipe.models.ranks import all_agree, wait_for_all


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

    def load(self, device: torch.device, *, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest state that every process has, or None; `say` hears of every one that is passed over."""
        wait_for_all()
        for step in sorted(self._steps(), reverse=True):
            state, problem = self._read(step, device)
            if all_agree(state is not None, device):
                return state
            say(f"does not go on from step {step}: {problem or 'the file of another process is no use'}")
        return None

    def _read(self, step: int, device: torch.device) -> tuple[dict[str, Any] | None, str]:
        """A state, or None and why it is no use."""
        missing = [rank for rank in range(self.n_ranks) if not self._path(step, rank).exists()]
        if missing:
            return None, f"process {missing[0]} of {self.n_ranks} had not written its resume file"
        path = self._path(step, self.rank)
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            key, n_ranks, best_step = state["key"], state["n_ranks"], state["best_step"]
        except torch.OutOfMemoryError:
            raise
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError) as error:
            return None, f"{path.name} is damaged ({type(error).__name__})"
        if key != self.key:
            return None, f"{path.name} is of another configuration, data set or part; the first new one replaces it"
        if n_ranks != self.n_ranks:
            return None, f"{path.name} was written by {n_ranks} processes, now there are {self.n_ranks}"
        if best_step is not None:
            try:
                with safe_open(self._best(best_step), framework="pt"):
                    pass
            except (OSError, SafetensorError) as error:
                return None, f"{self._best(best_step).name}, its best weights, are damaged ({type(error).__name__})"
        return state, ""

    def save(self, step: int, state: Mapping[str, Any], *, best_step: int | None) -> None:
        """Write the state after `step` iterations, then delete the files it makes useless."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(step, self.rank)
        with _written_whole(path) as beside:
            torch.save(
                {**state, "step": step, "key": self.key, "n_ranks": self.n_ranks, "best_step": best_step}, beside
            )
        # Every process has its file before rank 0 deletes the older ones.
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
        with _written_whole(self._best(step)) as beside:
            save_file(dict(state), beside)

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


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place once it is on the disk: a power cut leaves the old one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
