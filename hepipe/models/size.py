"""How large a method's networks are: parameters, and multiply-adds of a forward pass, counted without computing one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hepipe.models.method import Method, Part
from hepipe.models.resolved import zoo_module
from hepipe.specs.base import Spec

META = torch.device("meta")


def on_meta(model: str, preset: str = "paper", parts: Mapping[str, Part] | None = None, **options: Any) -> Method:
    """A method of shapes alone: no memory for weights, and no time to draw them.

    Args:
        model: Of the zoo.
        preset: Of the model.
        parts: As `build` takes them.
        options: Hyperparameters that differ from the preset.
    """
    module = zoo_module(model)
    known: Spec = module.PRESETS[preset]
    config = type(known).model_validate({**known.model_dump(), **options})
    with META:
        method: Method = module.build(config, parts or {})
    return method


def networks(method: Method) -> dict[str, nn.Module]:
    """The networks of a method by name, without the copies that averages keep of them."""
    assert isinstance(method, nn.Module), type(method)
    copies = {id(average.into) for average in method.averages().values()}
    return {name: child for name, child in method.named_children() if id(child) not in copies}


def parameters(method: Method) -> dict[str, int]:
    """Trainable and fixed parameters of each network that has any."""
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks(method).items()}
    return {name: count for name, count in counts.items() if count}


def gmac(run: Callable[[], object]) -> float:
    """Thousand million multiply-adds of convolutions and products while `run` runs, by torch's counter.

    Norms, activations, blurs by arithmetic and the like are not counted, as in published figures.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        run()
    return float(counter.get_total_flops()) / 2e9


def forward_gmac(network: nn.Module, *shapes: Sequence[int]) -> float:
    """Of one forward pass in eval mode of a network on the meta device, for inputs of these shapes."""
    was_training = network.training
    network.train(False)
    inputs = [torch.empty(tuple(shape), device=META) for shape in shapes]
    try:
        return gmac(lambda: network(*inputs))
    finally:
        network.train(was_training)


def staining_gmac(method: Method, side_px: int, *, to: str = "ihc") -> float:
    """Of staining one tile with a method on the meta device, all passes of a sampler included.

    A network that is called again with inputs of the same shapes is counted again, but not run again.
    """
    tile = torch.empty(1, 3, side_px, side_px, device=META)
    seeds: Tensor = torch.zeros(1, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    assert isinstance(method, nn.Module), type(method)
    with _repeats_counted(list(method.children()), counter) as repeated, counter, torch.no_grad():
        method.stain(tile, seeds=seeds, to=to)
    return (counter.get_total_flops() + sum(repeated)) / 2e9


@contextmanager
def _repeats_counted(found: Sequence[nn.Module], counter: FlopCounterMode) -> Iterator[list[int]]:
    """Gives the operations of the calls that were answered without running; on the meta device no values differ."""
    repeated: list[int] = []
    known: dict[tuple[object, ...], tuple[int, Any]] = {}

    def wrapped(network: nn.Module) -> Callable[..., Any]:
        forward = network.forward

        def call(*inputs: Any, **options: Any) -> Any:
            named = [*enumerate(inputs), *sorted(options.items())]
            shapes = ((key, tuple(one.shape) if isinstance(one, Tensor) else repr(one)) for key, one in named)
            key = (id(network), network.training, *shapes)
            if key not in known:
                before = counter.get_total_flops()
                output = forward(*inputs, **options)
                known[key] = (counter.get_total_flops() - before, output)
            else:
                repeated.append(known[key][0])
            return known[key][1]

        return call

    for network in found:
        network.__dict__["forward"] = wrapped(network)
    try:
        yield repeated
    finally:
        for network in found:
            network.__dict__.pop("forward", None)
