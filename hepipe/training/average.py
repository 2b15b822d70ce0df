"""Exponential averages of weights: one move a step, in place."""

from __future__ import annotations

import torch

from hepipe.models.method import Average, Progress


@torch.no_grad()
def move(average: Average, at: Progress) -> None:
    """Bring `into` closer to `of` by 1 - decay; float buffers too, whole-number ones are copied."""
    decay = average.decay(at)
    own, target = _tensors(average.into), _tensors(average.of)
    assert own.keys() == target.keys(), sorted(own.keys() ^ target.keys())
    for name, value in own.items():
        if value.is_floating_point():
            value.lerp_(target[name].to(value.dtype), 1 - decay)
        else:
            value.copy_(target[name])


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
