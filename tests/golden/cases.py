"""Golden cases: the arrays of a file, the functions that check them, and how close is close.

A module of this folder contributes functions for its rows of the index:

    @golden("cssp2p", "smoothing")
    def smoothing(case: Case) -> None:
        near(pool_scale(case["x"]), case["down"], atol=1e-5)

Cases of one model and kind differ in sizes, seeds and options, so a function takes all of these from `case.config`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Check = Callable[["Case"], None]

CHECKS: dict[tuple[str, str], Check] = {}


def golden(model: str, *kinds: str) -> Callable[[Check], Check]:
    """Register a function for every row of this model and these kinds."""

    def register(check: Check) -> Check:
        for kind in kinds:
            assert (model, kind) not in CHECKS, f"two functions for {model} {kind}"
            CHECKS[model, kind] = check
        return check

    return register


class Case:
    """One row of the index: a file (or, in `metrics`, a folder) and what it holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        with np.load(self.path) as file:
            return {name: file[name] for name in file.files}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings: a JSON text under `config` or `config_json`."""
        text = self.arrays.get("config", self.arrays.get("config_json"))
        return {} if text is None else json.loads(str(text))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The arrays below a prefix, under the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self.arrays if name.startswith(prefix)}


def near(actual: Any, expected: Any, *, atol: float = 0.0, rtol: float = 0.0, what: str = "") -> None:
    """Every element within atol + rtol·|expected|; shapes equal."""
    actual, expected = (np.asarray(x.detach().numpy() if isinstance(x, Tensor) else x) for x in (actual, expected))
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, {expected.shape} expected"
    np.testing.assert_allclose(actual, expected, atol=atol, rtol=rtol, err_msg=what)


def near_gradient(actual: Tensor | None, expected: Tensor, *, share: float = 1e-3, what: str = "gradient") -> None:
    """Every element within a share of the largest entry."""
    assert actual is not None, f"{what}: none"
    near(actual, expected, atol=share * float(expected.abs().max()), what=what)


def leaf(tensor: Tensor) -> Tensor:
    """A copy that collects a gradient."""
    return tensor.clone().requires_grad_()
