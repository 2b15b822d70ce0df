"""A training that no config names: a model, a data set and a folder, checked as the workflow checks its runs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError

from hepipe.dataset.found import FoundDataset, find_dataset
from hepipe.dataset.tiles import SplitTiles
from hepipe.errors import ConfigError, StoreError
from hepipe.models.catalog import Entry, find_entry
from hepipe.models.ranks import rank, wait_for_all
from hepipe.models.resolved import ResolvedRun, misfit, read_resolved, resolve_run, write_resolved, zoo_module
from hepipe.models.start import read_start
from hepipe.specs.base import Spec
from hepipe.specs.start import RUN, from_words
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.training.claim import claimed
from hepipe.training.train import train_run
from hepipe.training.watch import find_choice
from hepipe.weights.start import MODEL, start_files

_Kind = TypeVar("_Kind", bound=Spec)
CONFIG, HISTORY = "config.json", "history.parquet"


@dataclass(frozen=True)
class Plan:
    """A training by hand, checked as far as it can be before its tiles are read.

    Attributes:
        run: Its record.
        data: What it trains on.
        out: Its folder.
        init_files: What it starts from.
        part_folders: Part name to the folder of the run that fills it.
        lines: What to tell a person.
    """

    run: ResolvedRun
    data: FoundDataset
    out: Path
    init_files: Mapping[str, str]
    part_folders: Mapping[str, Path]
    lines: Sequence[str]


def plan(
    model: str,
    data: Path,
    *,
    preset: str = "paper",
    seed: int = 0,
    settings: Sequence[str] = (),
    init_from: str = "",
    device: str | None = None,
    part_folders: Mapping[str, Path] | None = None,
    out: Path | None = None,
) -> Plan:
    """What `hepipe train MODEL --data STORE` is going to do.

    Args:
        model: Of the zoo.
        data: Folder or index of a data set.
        preset: Of the model.
        seed: Of the run.
        settings: `KEY=VALUE`: options of the model and keys of section `training`; values as in JSON, or a word.
        init_from: SOURCE, or NETWORK=SOURCE with commas between; empty for none.
        device: cpu or cuda; None takes cuda where there is one, and says so.
        part_folders: Part name to the folder of the run that fills it.
        out: Folder of the run; None: `runs/<model>-<preset>-s<seed>`.

    Raises:
        ConfigError: A wrong word anywhere, or a setting that the model refuses.
        StoreError: No such data set, or none that this model can be trained on.
        WeightsError: Nothing to start from there.
    """
    entry = find_entry(model, where="MODEL")
    if preset not in entry.presets:
        raise ConfigError(f"--preset {preset}: {model} has {', '.join(entry.presets)}")
    if RUN in init_from:
        raise ConfigError(f"--init-from {init_from}: `run:` names a run of a config; by hand give the run's folder")
    options, training = _sorted_settings(model, preset, settings)
    found = find_dataset(data)
    lines = []
    if device is None and "device" not in training:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        lines.append(f"device {device}, as --device is not given")
    if device is not None:
        training["device"] = device
    tiles = SplitTiles(found.index, "train", mpp=_validated(TrainingSpec, training, "training.").mpp)
    if not tiles.rows:
        raise StoreError(
            f"{found.index}: split train holds no tile; dataset.json beside it says what became of each case, and "
            "splits.shares of the config how many train"
        )
    if "crop_px" not in training:
        training["crop_px"] = _crop_for(entry, preset, options, training, tiles, found)
        if training["crop_px"] != TrainingSpec().crop_px:
            lines.append(f"crops of {training['crop_px']} px: {model} {preset} takes {entry.size_in_words(preset)}, ")
            lines[-1] += f"tiles are {tiles.side_px} px; --set crop_px=… takes others"
    needs = entry.needs_of(preset)
    tiles.check_carries(needs, model=f"{model} {preset}", instead=entry.presets_without(needs))
    name = f"{model}-{preset}-s{seed}"
    folders = dict(part_folders or {})
    for part, folder in folders.items():
        if not (folder / CONFIG).is_file():
            raise ConfigError(f"--part {part}={folder}: no run; give the folder that `hepipe train` wrote")
    spec = _validated(
        RunSpec,
        {
            "model": model,
            "preset": preset,
            "dataset": found.card.name,
            "seed": seed,
            "fold": found.fold,
            "options": options,
            "parts": {part: read_resolved(folder / CONFIG).name for part, folder in folders.items()},
            "init_from": from_words(init_from) if init_from else {},
            "training": training,
        },
    )
    try:
        run = resolve_run(name, spec)
    except ConfigError as error:
        # There is no config here whose path of a key would help.
        raise ConfigError(str(error).removeprefix("config:\n  ").replace(f"runs.{name}.", "--set ")) from None
    if run.training.crop_px > tiles.side_px:
        largest = entry.largest(tiles.side_px, preset) or tiles.side_px
        raise StoreError(
            f"crop_px is {run.training.crop_px}, but tiles of {found.card.name} are {tiles.side_px} px at "
            f"{tiles.mpp:g} µm/px; leave it out, or --set crop_px={largest}"
        )
    find_choice(run.training.select, crop_px=run.training.crop_px, where="training")
    made = run.provenance.model_copy(update={"inputs": {"dataset": found.card.fingerprint}})
    run = run.model_copy(update={"provenance": made})
    files = start_files(spec.init_from)
    read_start(run, files)  # raises before there is a folder
    folder = out or Path("runs") / name
    lines.insert(0, f"{model} {preset} on {found.card.name}: {len(tiles)} training tiles of {tiles.side_px} px")
    lines.append(f"batches of {run.training.batch_size}; the run's folder is {folder}")
    return Plan(run, found, folder, files, folders, lines)


def is_finished(plan: Plan) -> bool:
    """Whether this very run has been trained to its end in its folder.

    Raises:
        ConfigError: The folder holds another run, or something else; the difference is named.
    """
    _check_folder(plan)
    return (plan.out / MODEL).is_file() and (plan.out / HISTORY).is_file()


def carry_out(plan: Plan) -> None:
    """Train; goes on where an earlier call was stopped.

    Raises:
        ConfigError: The folder holds another run.
        StoreError: Another process trains in it.
    """
    if rank() == 0:
        # Claimed, for the record of a training that has just begun is not replaced.
        with claimed(plan.out, run=plan.run.name):
            _check_folder(plan)
            write_resolved(plan.out / CONFIG, plan.run)
    wait_for_all()
    train_run(
        plan.run,
        plan.data.index,
        fingerprint=plan.data.card.fingerprint,
        part_folders=plan.part_folders,
        model=plan.out / MODEL,
        history=plan.out / HISTORY,
        terms=plan.data.card.terms,
        init_files=plan.init_files,
    )


def _check_folder(plan: Plan) -> None:
    if not plan.out.exists():
        return
    if not plan.out.is_dir():
        raise ConfigError(f"{plan.out}: a file stands there; name a folder by --out")
    if not (plan.out / CONFIG).is_file():
        others = sorted(path.name for path in plan.out.iterdir() if not path.name.startswith("."))
        if others:
            raise ConfigError(
                f"{plan.out}: holds {', '.join(map(ascii, others[:3]))} and no run; name a new folder by --out"
            )
        return
    if not any((plan.out / name).exists() for name in (MODEL, HISTORY)) and not any(plan.out.glob("resume/*")):
        return  # It ended before there was anything to go on with, by a wrong setting as a rule.
    there = read_resolved(plan.out / CONFIG)
    if there.digest == plan.run.digest and there.provenance.inputs == plan.run.provenance.inputs:
        return
    here, before = _flat(_shaping(plan.run)), _flat(_shaping(there))
    unlike = [
        f"{key} is {_shown(before.get(key))} there and {_shown(here.get(key))} here"
        for key in sorted(here.keys() | before.keys())
        if here.get(key) != before.get(key)
    ]
    raise ConfigError(
        f"{plan.out}: holds another run: {'; '.join(unlike[:8]) or 'of another version'}; give this one its own --out, "
        "or the same settings to go on with it"
    )


def _shaping(run: ResolvedRun) -> dict[str, Any]:
    """What of a record shapes its weights, and the data set by its fingerprint."""
    shaping = run.model_dump(mode="json", exclude={"provenance", "name", "pairing", "needs", "published"})
    for harmless in ("workers", "cache_mb", "tensorboard"):
        shaping["training"].pop(harmless, None)
    return {**shaping, "dataset_fingerprint": run.provenance.inputs.get("dataset", "")}


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:16]}…"


def _crop_for(
    entry: Entry,
    preset: str,
    options: Mapping[str, Any],
    training: Mapping[str, Any],
    tiles: SplitTiles,
    found: FoundDataset,
) -> int:
    """The usual crop, or what comes nearest that the model takes and a tile holds."""
    side = tiles.side_px
    crop = entry.largest(min(TrainingSpec().crop_px, side), preset) or entry.largest(side, preset)
    if crop:
        return next((px for px in (crop, *_SIDES) if px <= side and _fits(entry, preset, options, training, px)), crop)
    others = [f"{one} ({entry.size_in_words(one)})" for one in entry.presets if entry.largest(side, one)]
    instead = f"choose --preset {' or '.join(others)}" if others else "choose another model"
    raise StoreError(
        f"{entry.name} {preset} takes {entry.size_in_words(preset)}, but tiles of {found.card.name} are {side} px at "
        f"{tiles.mpp:g} µm/px; {instead}, or cut larger tiles (tiling.tile_px)"
    )


_SIDES = (1024, 512, 256, 128, 64, 32)
"""Crops that are looked at when a model is built for one of them and not for the usual one."""


def _fits(entry: Entry, preset: str, options: Mapping[str, Any], training: Mapping[str, Any], crop_px: int) -> bool:
    """Whether a model with these options takes a crop; wrong options are told elsewhere."""
    if not entry.takes(crop_px, preset):
        return False
    published = zoo_module(entry.name).PRESETS[preset]
    try:
        config = type(published).model_validate({**published.model_dump(), **options})
        spec = TrainingSpec.model_validate({**training, "crop_px": crop_px})
    except ValidationError:
        return True
    return not misfit(entry.name, config, spec)


def _sorted_settings(model: str, preset: str, settings: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the model and keys of section `training`, from `KEY=VALUE`."""
    own = type(zoo_module(model).PRESETS[preset]).model_fields
    shared = TrainingSpec.model_fields
    options: dict[str, Any] = {}
    training: dict[str, Any] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found or not key:
            raise ConfigError(f"--set {setting}: KEY=VALUE expected, such as n_steps=5000")
        path = key.split(".")
        section = path.pop(0) if len(path) > 1 and path[0] in ("options", "training") else ""
        if section == "" and path[0] in own and path[0] in shared:
            raise ConfigError(f"--set {key}: both {model} and training have it; write options.{key} or training.{key}")
        chosen = section or ("options" if path[0] in own else "training")
        if path[0] not in (own if chosen == "options" else shared):
            known = [*own, *shared]
            near = difflib.get_close_matches(path[0], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"--set {key}: neither {model} nor training has it; {hint}")
        place = options if chosen == "options" else training
        for word in path[:-1]:
            place = place.setdefault(word, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {key}: {word} is given as a value too")
        place[path[-1]] = _value(text)
    return options, training


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _validated(kind: type[_Kind], values: Mapping[str, Any], begin: str = "") -> _Kind:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{begin}{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise ConfigError("; ".join(problems)) from None
