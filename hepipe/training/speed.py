"""Faster turns at equal results but for rounding: compiled networks, and weights laid out channels last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from hepipe.errors import ConfigError
from hepipe.models.method import DifferentiatesTwice, Frozen, Method
from hepipe.models.size import networks
from hepipe.specs.training import TrainingSpec

MOST_SHAPES = 64
"""Compiled forms of a network that torch keeps. Beyond its own 8 it would go on uncompiled; here it stops the run."""


def speed_up(
    method: Method, spec: TrainingSpec, *, device: torch.device, where: str, backend: str = "inductor"
) -> None:
    """Compile the networks of a method in place and lay its weights out, as the protocol says.

    Names in the state dict stay. Every size of tile is compiled for itself, when it first comes.

    Args:
        method: On its device, in train mode.
        spec: The protocol.
        device: Where it trains.
        where: Key path of the run's training section, for the error.
        backend: That torch compiles with.

    Raises:
        ConfigError: Compiling is asked for, but there is no compiler that works; or channels last on a CPU.
    """
    if spec.channels_last:
        if device.type == "cpu":
            # Seen in torch 2.13: the gradient of a 1x1 convolution of stride 2 from 6 to 12 channels.
            raise ConfigError(
                f"{where}.channels_last: on a CPU torch can end in a segmentation fault when weights are laid out "
                "channels last; set channels_last: false, or device: cuda"
            )
        lay_channels_last(method)
    if spec.compile == "none":
        return
    if backend == "inductor":
        check_compiler(device, where=where)
    # Timing cuDNN's algorithms belongs to timing all others; sizes of tiles do not change while a run trains.
    torch.backends.cudnn.benchmark = spec.compile != "default"
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MOST_SHAPES)
    config.fail_on_recompile_limit_hit = True
    mode = None if backend != "inductor" else spec.compile
    for network in compilable(method):
        network.compile(backend=backend, mode=mode, dynamic=False)
        for name in getattr(network, "entries", ()):
            compiled = torch.compile(getattr(network, name), backend=backend, mode=mode, dynamic=False)
            setattr(network, name, compiled)


def lay_channels_last(method: Method) -> None:
    """Lay the weights of convolutions out channels last; maps follow, values and names stay."""
    assert isinstance(method, nn.Module), type(method)
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compilable(method: Method) -> list[nn.Module]:
    """The networks that a method calls; those in lists one by one, frozen parts too, none differentiated twice."""
    kept = {id(network) for network in _differentiated_twice(method)}

    def called(network: nn.Module) -> Iterator[nn.Module]:
        if id(network) in kept:
            return
        if isinstance(network, Frozen):
            yield from called(network.module)
        elif isinstance(network, nn.ModuleDict | nn.ModuleList):
            for child in network.children():
                yield from called(child)
        else:
            yield network

    return [found for network in networks(method).values() for found in called(network)]


def in_eager(spec: TrainingSpec) -> AbstractContextManager[object]:
    """A context in which nothing compiled runs: a look at validation tiles is not worth the minutes of compiling it."""
    return nullcontext() if spec.compile == "none" else torch.compiler.set_stance("force_eager")


def check_compiler(device: torch.device, *, where: str) -> None:
    """Compile one sum, so that a missing compiler is told before anything is trained.

    Raises:
        ConfigError: It does not work.
    """
    wanted = "a C++ compiler (g++ or clang, or CXX names one)" if device.type == "cpu" else "Triton and a C compiler"
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        reason = str(error).strip().splitlines()
        raise ConfigError(
            f"{where}.compile: torch {torch.__version__} cannot compile for {device.type} here "
            f"({type(error).__name__}: {reason[0][:200] if reason else ''}); install {wanted}, or set compile: none"
        ) from error


def _differentiated_twice(method: Method) -> list[nn.Module]:
    return list(method.differentiated_twice()) if isinstance(method, DifferentiatesTwice) else []
