"""The files that a run's `init_from` means; light, so that the workflow can depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hepipe.errors import ConfigError, WeightsError
from hepipe.specs.start import RUN, WEIGHTS, WHOLE
from hepipe.weights.checkpoint import files_of_folder
from hepipe.weights.manifest import roles
from hepipe.weights.store import find, weights_folder

MODEL = "model.safetensors"


def start_files(init_from: Mapping[str, str], *, runs: Path | None = None) -> dict[str, str]:
    """Network, or `*`, to the file that it comes from, with `#GROUP` at its end where one is named.

    Args:
        init_from: As in the config: `run:NAME`, `weights:ROLE-OR-FILE`, or a file or folder, relative to where
            commands run, as slide sheets are.
        runs: Folder of the config's runs; None leaves those out.

    Raises:
        ConfigError: A folder for one network.
        WeightsError: Nothing is there.
    """
    found: dict[str, str] = {}
    for network, source in init_from.items():
        if source.startswith(RUN):
            if runs is not None:
                found[network] = str(runs / source.removeprefix(RUN) / MODEL)
            continue
        path, group = split_group(source)
        if source.startswith(WEIGHTS):
            path = _in_weights(str(path).removeprefix(WEIGHTS))
        if not path.exists():
            raise WeightsError(
                f"init_from: nothing at {path}; give a run's folder (in a config also run:NAME), a checkpoint, or a "
                "folder with latest_net_G.pth and its like"
            )
        end = f"#{group}" if group else ""
        if path.is_file():
            found[network] = f"{path}{end}"
        elif (path / MODEL).is_file():
            found[network] = str(path / MODEL)
        elif (path / "config.json").is_file():
            raise WeightsError(f"init_from: {path} is a run without {MODEL}: it has not finished; train it to its end")
        elif network == WHOLE:
            found |= {name: str(file) for name, file in files_of_folder(path).items()}
        else:
            raise ConfigError(f"init_from: {network} is given the folder {path}; give the file, or the folder alone")
    return found


def split_group(given: str) -> tuple[Path, str]:
    """A file, and the group within it that is meant, empty for none."""
    path, found, group = given.rpartition("#")
    return (Path(path), group) if found and not Path(given).exists() else (Path(given), "")


def _in_weights(name: str) -> Path:
    """The file of a role, or one that lies in the weights folder under this name."""
    if name in roles():
        return find(name)
    folder = weights_folder()
    path = folder / name
    if Path(name).name != name or path.resolve().parent != folder.resolve():
        raise WeightsError(f"init_from: weights:{name} leads out of {folder}; put the file itself there")
    return path
