"""A forward pass that several turns use: its graph kept from turn to turn, or made again where it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Forward:
    """A network's output, for another player's turn without a graph and for its own with one.

    Kept: one pass, whose graph lives through the turns between. Again: a pass without a graph now and the same one
    with a graph later, drawing the same random numbers from the same buffers, so that running statistics and spectral
    norms move once and the result is the same. The weights must not step in between.

    Attributes:
        values: The output without a graph: a tensor, or a named tuple of tensors and None.
    """

    def __init__(self, network: nn.Module, tiles: Float[Tensor, "b c h w"], *, again: bool) -> None:
        self._network, self._tiles = network, tiles
        self._output: Any = None
        self.values: Any
        if again:
            self._buffers = {name: value.clone() for name, value in network.named_buffers()}
            self._random = _random_state(tiles.device)
            with torch.no_grad():
                self.values = network(tiles)
        else:
            self._output = network(tiles)
            self.values = _without_graph(self._output)

    def with_graph(self) -> Any:
        """The output, through which gradients flow to the network."""
        if self._output is not None:
            return self._output
        devices = [self._tiles.device] if self._tiles.is_cuda else []
        with torch.random.fork_rng(devices=devices), _buffers_as(self._network, self._buffers):
            _set_random_state(self._random, self._tiles.device)
            return self._network(self._tiles)


def _without_graph(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    return type(output)(*(None if one is None else one.detach() for one in output))


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


@contextmanager
def _buffers_as(network: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Other tensors in the places of a network's buffers for a while.

    Exchanged and not written over: graphs may hold the present ones.
    """
    places = {}
    for name in values:
        owner, _, leaf = name.rpartition(".")
        places[name] = (network.get_submodule(owner)._buffers, leaf)
    present = {name: buffers[leaf] for name, (buffers, leaf) in places.items()}
    for name, (buffers, leaf) in places.items():
        buffers[leaf] = values[name].clone()
    try:
        yield
    finally:
        for name, (buffers, leaf) in places.items():
            buffers[leaf] = present[name]
