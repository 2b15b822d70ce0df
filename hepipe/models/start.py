"""The weights that a run starts from: a finished model of ours, or what the authors of its model have published.

Optimizers, schedules and averages begin afresh: this is fine-tuning, not the continuation of a training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor, nn

from hepipe.dataset.terms import Terms, told_terms
from hepipe.errors import ConfigError, StoreError, WeightsError
from hepipe.models.finished import check_state, read_finished_provenance
from hepipe.models.method import Fits, Method
from hepipe.models.resolved import ResolvedRun, zoo_module
from hepipe.networks.released import Mismatch
from hepipe.specs.start import WHOLE
from hepipe.stores.provenance import Provenance
from hepipe.weights.checkpoint import NETWORK_OF, read_groups
from hepipe.weights.start import split_group
from hepipe.weights.store import file_sha256

State = Mapping[str, Tensor]


@dataclass
class Start:
    """What a run starts from.

    Attributes:
        tensors: Under the method's names; the others stay as they are drawn.
        inputs: `init:<network>` to the SHA-256 of the file, for provenance.
        told: The same with what the file says of itself.
        terms: Of the finished models among them.
        lines: What to say aloud.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    told: dict[str, dict[str, str]] = field(default_factory=dict)
    terms: list[Terms] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def released_networks(module: ModuleType) -> tuple[str, ...]:
    """The networks that a zoo file's `from_released` loads, as its signature lists them; none without one."""
    function = getattr(module, "from_released", None)
    return () if function is None else get_args(get_type_hints(function)["network"])


def read_start(run: ResolvedRun, files: Mapping[str, str]) -> Start:
    """Read and check everything that a run starts from, before its data are opened.

    Args:
        run: The record.
        files: As `start_files` gives them.

    Raises:
        ConfigError: A network that this model does not have, or a method without steps.
        WeightsError: Not readable, of another model, or other bytes than when the run was resolved.
        StoreError: A finished model of ours whose shapes are others.
    """
    module, start = zoo_module(run.model), Start()
    config = type(module.PRESETS[run.preset]).model_validate(dict(run.config))
    for key, given in sorted(files.items()):
        path, group = split_group(given)
        if not path.is_file():
            raise WeightsError(f"init_from: {path}: no such file")
        sha256 = file_sha256(path)
        known = run.init_from.get(key)
        if known is not None and known.sha256 not in ("", sha256):
            raise WeightsError(
                f"init_from: {path.name} is another file than when run {run.name} was resolved; resolve the run again"
            )
        made = _finished_provenance(path)
        if made is not None:
            tensors = _of_finished(run, module, config, path, made, key)
            said = {"kind": "finished", "run": made.subject, "model": str(made.spec.get("model", ""))}
            start.terms += told_terms(made.told)
            start.lines.append(f"starts from run {made.subject} ({said['model']} {made.spec.get('preset', '')})")
            name = key
        else:
            name, tensors, of_group = _of_released(run, module, config, path, key, group)
            said = {"kind": "released", "group": of_group}
            # By its hash: a file's name is nobody else's business.
            held = f"{of_group} of a checkpoint" if of_group else "a checkpoint"
            start.lines.append(f"the {name} starts from {held} of its authors' form, SHA-256 {sha256[:12]}")
        if name in start.told:
            raise WeightsError(f"init_from: {path.name} holds the {name}, which another file is given for already")
        refuse_unusable(tensors, what=path.name)
        start.tensors |= tensors
        start.inputs[f"init:{name}"] = sha256
        start.told[name] = {**said, "sha256": sha256}
    return start


def put_start(method: Method, start: Start) -> list[str]:
    """Put the tensors into a method that is just built; an average of what came begins there too.

    Returns:
        The networks that start untrained.

    """
    own: dict[str, Any] = method.state_dict()
    assert start.tensors.keys() <= own.keys(), sorted(start.tensors.keys() - own.keys())[:5]
    method.load_state_dict({**own, **start.tensors})
    assert isinstance(method, nn.Module)
    names = {id(module): name for name, module in method.named_modules()}
    for average in method.averages().values():
        of, into = names.get(id(average.of), ""), names.get(id(average.into), "")
        if any(name.startswith(f"{of}.") for name in start.tensors) and not any(
            name.startswith(f"{into}.") for name in start.tensors
        ):
            average.into.load_state_dict(average.of.state_dict())
    begun = {name.partition(".")[0] for name in start.tensors}
    trained = {name.partition(".")[0] for name, one in method.named_parameters() if one.requires_grad}
    return sorted(trained - begun)


def refuse_unusable(tensors: State, *, what: str) -> None:
    """Look at the values of a stranger's tensors.

    Raises:
        WeightsError: Some are no plain dense numbers, or not finite.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise WeightsError(f"{what}: {name} is no plain tensor of numbers ({tensor.dtype}, {tensor.layout})")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(f"{what}: {name} holds values that are no finite number; its training had failed")


def _finished_provenance(path: Path) -> Provenance | None:
    if path.suffix != ".safetensors":
        return None
    try:
        return read_finished_provenance(path)
    except (StoreError, ValueError):
        return None  # of others, or none at all: read as such, which says so


def _of_finished(
    run: ResolvedRun, module: ModuleType, config: Any, path: Path, made: Provenance, key: str
) -> dict[str, Tensor]:
    """The tensors of a finished model of ours, or of one network of it."""
    state = read_groups(path)[""]
    with torch.device("meta"):
        method: Method = module.build(config, {})
    if isinstance(method, Fits):
        raise ConfigError(
            f"init_from: {run.model} learns in one pass over the tiles and starts from nothing; leave it out"
        )
    expected: dict[str, Any] = method.state_dict()
    if key != WHOLE:
        state = {name: value for name, value in state.items() if name.startswith(f"{key}.")}
        expected = {name: value for name, value in expected.items() if name.startswith(f"{key}.")}
        if not expected or not state:
            has = sorted({name.partition(".")[0] for name in method.state_dict()})
            raise ConfigError(
                f"init_from: {run.model} and run {made.subject} share no {key}; there are {', '.join(has)}"
            )
    what = f"run {made.subject} ({made.spec.get('model')} {made.spec.get('preset')})"
    try:
        check_state(expected, state, what=what)
    except StoreError as error:
        raise StoreError(
            f"init_from: its networks are not those of {run.model} {run.preset}; start from a run of this model whose "
            f"preset and options have the same widths. {error}"
        ) from None
    return state


def _of_released(
    run: ResolvedRun, module: ModuleType, config: Any, path: Path, key: str, group: str
) -> tuple[str, dict[str, Tensor], str]:
    """The network that an authors' file holds, its tensors under our names, and the group that they lie in."""
    networks = released_networks(module)
    if not networks:
        why = getattr(module, "NOT_RELEASED", "its authors published none")
        raise ConfigError(f"init_from: {run.model} takes finished models of ours only: {why}")
    if key not in (WHOLE, *networks):
        raise ConfigError(f"init_from: {run.model} has no network {key!r}; there are {', '.join(networks)}")
    groups = read_groups(path)
    if group and group not in groups:
        raise ConfigError(f"init_from: {path.name} has no group {group!r}; there are {_named(groups)}")
    chosen = {group: groups[group]} if group else groups
    fits, misses = [], []
    for network in networks if key == WHOLE else (key,):
        for name, state in chosen.items():
            for part in _parts(state, network):
                try:
                    ours = module.from_released(part, network=network, config=config)
                except Mismatch as error:
                    misses.append((error.count, str(error)))
                except (WeightsError, LookupError, ValueError, AttributeError, TypeError) as error:
                    misses.append((len(part), f"{run.model} {network}: {error}"))
                else:
                    fits.append((network, {f"{network}.{one}": value for one, value in ours.items()}, name))
    if len(fits) == 1:
        return fits[0]
    if fits:
        ways = ", ".join(f"{network}={path.name}" + (f"#{name}" if name else "") for network, _, name in fits)
        raise ConfigError(f"init_from: {path.name} holds more than one network that fits; choose: {ways}")
    problem = min(misses, key=lambda miss: miss[0])[1]
    if others := [preset for preset, one in module.PRESETS.items() if _fits(module, one, chosen)]:
        raise WeightsError(
            f"init_from: {path.name} fits {run.model} with preset {' or '.join(others)}, not {run.preset} as it is "
            f"here; choose that, or its widths as options. What differs: {problem}"
        )
    raise WeightsError(
        f"init_from: {path.name} ({_named(groups)}) does not fit {run.model} {run.preset}; nearest: {problem}. Is it "
        "of this model, and of the widths that the preset and its options say?"
    )


def _fits(module: ModuleType, config: Any, groups: Mapping[str, State]) -> bool:
    """Whether some network of another preset is in the file."""
    for network in released_networks(module):
        for state in groups.values():
            for part in _parts(state, network):
                with contextlib.suppress(WeightsError, LookupError, ValueError, AttributeError, TypeError):
                    module.from_released(part, network=network, config=config)
                    return True
    return False


def _parts(state: State, network: str) -> Iterator[State]:
    """A group itself, and what lies in it under the network's name or its authors' letter."""
    yield state
    letters = [letter for letter, name in NETWORK_OF.items() if name == network]
    for begin in (network, *(f"net{letter}" for letter in letters), *letters):
        for prefix in (f"{begin}.", f"module.{begin}.", f"{begin}.module."):
            inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if inside and len(inside) < len(state):
                yield inside


def _named(groups: Mapping[str, State]) -> str:
    return ", ".join(f"{name or 'one dictionary'} of {len(state)} tensors" for name, state in list(groups.items())[:8])
