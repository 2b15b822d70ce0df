"""Authors' checkpoints: their tensor names turned into ours, with every mismatch said."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hepipe.errors import WeightsError

SHOWN = 20
"""Names of each kind that an error lists."""


class Mismatch(WeightsError):
    """Tensors of other names or shapes than a network's.

    Attributes:
        count: How many.
    """

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


def check_tensors(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str) -> None:
    """Whether the names and shapes are those expected.

    Raises:
        Mismatch: Lists missing, unexpected and differently shaped tensors.
    """
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} for {tuple(expected[name].shape)}"
            for name in sorted(given.keys() & expected.keys())
            if given[name].shape != expected[name].shape
        ],
    }
    if any(problems.values()):
        raise Mismatch(
            f"{source}: " + "; ".join(f"{kind}: {_listed(names)}" for kind, names in problems.items() if names),
            sum(map(len, problems.values())),
        )


def _listed(names: list[str]) -> str:
    # A stranger's names: what cannot be printed is shown as code points.
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def without_prefix(state: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """The same tensors under names that lost a wrapper's prefix, when every name has it."""
    for prefix in prefixes:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def spectral_name(released: str) -> str:
    """Our name of a tensor that torch's spectral-norm hook left: the raw weight and its two singular vectors."""
    for theirs, ours in (("weight_orig", "weight"), ("weight_u", "u"), ("weight_v", "v")):
        if released.endswith(f".{theirs}"):
            return released.removesuffix(theirs) + ours
    return released


def judge_name(released: str, *, last: int) -> str:
    """Our name of a tensor of a discriminator that its authors keep as `enc` and `final_conv`.

    Args:
        released: Theirs.
        last: Our number of the last convolution.
    """
    return spectral_name(released.replace("final_conv.", f"model.{last}.").replace("enc.", "model."))


def without_filters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors but the resampling kernels, which are constants here."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(".filt")}
