"""Checkpoints that others wrote: their tensors by group, read without running code from the file."""

from __future__ import annotations

import argparse
import pickle  # for the error that torch raises at a file with code in it; nothing is unpickled here
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hepipe.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")
NETWORK_OF = {"G": "generator", "D": "discriminator", "F": "heads"}
"""Letter in `<epoch>_net_<letter>.pth`, as pix2pix and all that descends from its code name their files."""
_NAMED = re.compile(r"(?P<epoch>[A-Za-z0-9]+)_net_(?P<letter>[GDF])\.(?:pth|pt|safetensors)")
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_DEPTH = 3
"""Dictionaries within one another that tensors are looked for in."""
_INFLATES = 4
"""Times its own size that a file may unpack to: torch stores tensors as they are, so that more is a trap."""
BROKEN = (RuntimeError, ValueError, LookupError, EOFError, OSError, TypeError, AttributeError, pickle.UnpicklingError)
"""What torch raises at a file that is none of its own."""


def read_torch(path: Path) -> Any:
    """What a torch file holds: tensors, plain values and dictionaries of them.

    The one further type that is let in is `argparse.Namespace`, in which many authors keep their options: it is a bag
    of plain values, and setting them runs nothing.

    Raises:
        WeightsError: Not such a file, or one that can only be read by running code from it.
    """
    import torch

    _refuse_bomb(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        if isinstance(error, pickle.UnpicklingError) and (found := _GLOBAL.search(str(error))) is not None:
            raise WeightsError(
                f"{path.name}: holds {found[1][:80]}, which only running code can build, so nothing of the file was "
                "read. If you trust who made it, load it once with weights_only=False where that code is and save the "
                "tensors alone, such as torch.save(loaded['model'], 'plain.pth'), or loaded.state_dict() of a whole "
                "network; then give plain.pth"
            ) from None
        raise WeightsError(
            f"{path.name}: not a torch file of plain tensors ({type(error).__name__}); give a checkpoint (.pth, .pt or "
            ".safetensors) that is whole"
        ) from None


def read_groups(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint by the dictionary that they lie in; "" is the outermost.

    A file of one network is one group. Files of a whole training nest them: `{"model": {...}, "ema": {...}}` is two
    groups, and what is beside them (epoch, options, optimizers) is passed over.

    Raises:
        WeightsError: No such file, not readable, without tensors, or with other than plain dense ones.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give a checkpoint ({', '.join(SUFFIXES)}) or a folder of them")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return {"": dict(load_file(path))}
        except (SafetensorError, *BROKEN) as error:
            raise WeightsError(f"{path.name}: not a safetensors file ({type(error).__name__})") from None
    groups: dict[str, dict[str, Tensor]] = {}
    _collect(read_torch(path), (), groups)
    if not groups:
        raise WeightsError(f"{path.name}: holds no tensors by name; give the file of the network's state dict")
    return groups


def files_of_folder(folder: Path) -> dict[str, Path]:
    """Network to file, of a folder with `latest_net_G.pth` and its like; of several epochs the latest.

    Raises:
        WeightsError: No such files, or several epochs and none called latest.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := _NAMED.fullmatch(path.name)) is not None and path.is_file():
            found.setdefault(NETWORK_OF[match["letter"]], {})[match["epoch"]] = path
    if not found:
        raise WeightsError(
            f"{folder}: neither model.safetensors of a run nor files like latest_net_G.pth are in it; "
            "name each file: generator=FILE,discriminator=FILE"
        )
    chosen = {}
    for network, by_epoch in found.items():
        if len(by_epoch) > 1 and "latest" not in by_epoch:
            raise WeightsError(
                f"{folder}: {network} of epochs {', '.join(sorted(by_epoch))}, none called latest; "
                f"choose one: {network}=FILE"
            )
        chosen[network] = by_epoch.get("latest") or next(iter(by_epoch.values()))
    return chosen


def _collect(content: Any, inside: tuple[str, ...], groups: dict[str, dict[str, Tensor]]) -> None:
    import torch

    if not isinstance(content, Mapping) or len(inside) > _DEPTH:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value.detach() for name, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors:
        groups[".".join(inside)] = tensors
    for name, value in named.items():
        _collect(value, (*inside, name), groups)


def _refuse_bomb(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return  # an older torch file, or none: torch says so
    if unpacked > _INFLATES * path.stat().st_size:
        raise WeightsError(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB that unpack to {unpacked / 1e6:.1f} MB, as no file of "
            "torch's does; it was not read"
        )
