"""Batch norm in training: statistics over the tiles of all processes, and the error of statistics over one value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from hepipe.errors import ConfigError
from hepipe.models.method import Method
from hepipe.models.ranks import n_ranks


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = _SumOverRanks.apply(gradients[0].contiguous())
        return total


class _OverRanks(_BatchNorm):
    """Batch norm over the tiles of all processes while it trains; alone, and where it keeps no statistics, as it was.

    Written out, for torch's SyncBatchNorm runs on GPUs only, is no BatchNorm2d, and divides gradients by the number of
    processes rather than by their tiles.
    """

    def forward(self, input: Tensor) -> Tensor:
        # Staining by the statistics of a single tile stops tracking for a while; only rank 0 may be doing that.
        by_itself = self.running_mean is not None and not self.track_running_stats
        if not self.training or by_itself or n_ranks() == 1:
            output: Tensor = super().forward(input)
            return output
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._normalized(input.float()).to(input.dtype)

    def _normalized(self, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums: Tensor = _SumOverRanks.apply(torch.cat([x.sum(axes), count]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = x - mean.view(shape)
        squares: Tensor = _SumOverRanks.apply(centred.square().sum(axes))
        variance = squares / n
        self._track(mean.detach(), variance.detach(), n)
        normalized = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, n: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        step = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var.dtype), step)


class _BatchNorm1dOverRanks(_OverRanks, nn.BatchNorm1d):
    pass


class _BatchNorm2dOverRanks(_OverRanks, nn.BatchNorm2d):
    pass


class _BatchNorm3dOverRanks(_OverRanks, nn.BatchNorm3d):
    pass


_OVER_RANKS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm1dOverRanks,
    nn.BatchNorm2d: _BatchNorm2dOverRanks,
    nn.BatchNorm3d: _BatchNorm3dOverRanks,
}


def join_batch_norms(method: nn.Module) -> list[str]:
    """Let every batch norm take its statistics over all processes, in place; gives their names.

    The modules stay the same objects, so that names of tensors, averages and optimizers stay as they are. Parts that
    never train are left alone.
    """
    joined = []
    for name, module in method.named_modules():
        if type(module) in _OVER_RANKS:
            module.__class__ = _OVER_RANKS[type(module)]
            joined.append(name)
    return joined


def has_batch_norm(method: Method) -> bool:
    """Whether a player normalises by the statistics of its batch."""
    return any(isinstance(module, _BatchNorm) for player in method.players().values() for module in player.modules())


@contextmanager
def refusing_single_values(method: Method, *, run: str) -> Iterator[None]:
    """While open, a norm whose statistics would be over one value is an error that says what to do.

    Args:
        method: The model.
        run: Its name, for the message.

    Raises:
        ConfigError: On the forward pass that comes to such a layer, before anything has changed.
    """

    def hook(name: str) -> Any:
        def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            sides = "x".join(map(str, x.shape[2:])) or "1"
            if isinstance(module, _BatchNorm):
                over_ranks = n_ranks() if isinstance(module, _OverRanks) else 1
                if module.training and over_ranks * x.numel() == x.shape[1]:
                    other = ", or options.norm: instance" if has_choice else ""
                    raise ConfigError(
                        f"run {run}: batch norm {name} sees one tile and a map of {sides}: one value has no spread. "
                        "Set training.batch_size to at least 2 tiles for each process and each piece of "
                        f"training.accumulation, or a larger training.crop_px{other}"
                    )
            elif x[0, 0].numel() == 1:
                raise ConfigError(
                    f"run {run}: instance norm {name} sees a map of {sides}: one value has no spread. Set a larger "
                    "training.crop_px"
                )

        return check

    assert isinstance(method, nn.Module)
    # Several zoo files let the norm be chosen; theirs is the Config that the method keeps.
    has_choice = hasattr(getattr(method, "config", None), "norm")
    hooks = [
        module.register_forward_pre_hook(hook(name))
        for name, module in method.named_modules()
        if isinstance(module, _BatchNorm | _InstanceNorm)
    ]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
