"""Pictures of any size through a finished run: padded or tile by tile, written under their own names."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from hepipe.dataset.normalize import Normalization, told_normalization
from hepipe.dataset.tiles import rgb_from_tensor, tensor_from_rgb
from hepipe.errors import ConfigError, StoreError
from hepipe.importers.files import PICTURE_ERRORS
from hepipe.inference.pictures import Rgb, Source, Sources, pixels_sha256, read_all
from hepipe.inference.sweep import sweep
from hepipe.models.catalog import Entry
from hepipe.models.finished import (
    build_method,
    device_of,
    file_sha256,
    load_parts,
    load_state,
    read_finished_provenance,
    read_state,
)
from hepipe.models.method import Method
from hepipe.models.resolved import ResolvedRun, entry_of, read_resolved
from hepipe.progress import watched
from hepipe.stores.partial import told as errors_told
from hepipe.stores.provenance import Provenance

RECORD = "provenance.json"
CHUNK = "hepipe"
"""Text chunk of each PNG that says what it was made of."""
WHOLE_UP_TO_PX = 1024
"""Side of the largest picture that is stained in one piece when nobody says otherwise."""
_REACH = 8192
_TOLD = ("normalization", "terms", "notes", "trained_on", "init_from")


@dataclass(frozen=True)
class OpenedRun:
    """A finished run.

    Attributes:
        run: Its record, with the device that it is used on.
        entry: Of its model.
        model: The file of its weights.
        sha256: Of that file.
        told: What it says of itself.
        normalization: Colours that it sees.
        device: Where it stains.
        lines: What to tell a person.
    """

    run: ResolvedRun
    entry: Entry
    model: Path
    sha256: str
    told: dict[str, Any]
    normalization: Normalization | None
    device: torch.device
    lines: Sequence[str]


def open_run(folder: Path, *, device: str | None = None) -> OpenedRun:
    """A run from its folder: that of `hepipe train`, or results/runs/NAME.

    Args:
        folder: With config.json and model.safetensors.
        device: cpu or cuda; None takes cuda where there is one, and says so.

    Raises:
        ConfigError: No run, one that has not finished, or a device that is not there.
        StoreError: Record or weights that cannot be read or do not belong together.
    """
    config, model = folder / "config.json", folder / "model.safetensors"
    if not config.is_file():
        raise ConfigError(f"{folder}: no run; give the folder that `hepipe train` wrote, such as results/runs/NAME")
    if not model.is_file():
        raise ConfigError(f"{folder}: this run has no finished model yet; train it to its end")
    run = read_resolved(config)
    entry = entry_of(run, where=f"{config}: model")
    made = read_finished_provenance(model)
    # Not by the record's digest: a later version of hepipe may know more settings, with defaults.
    unlike = [
        f"{key} {made.spec.get(key)} in {model.name}, {here} in {config.name}"
        for key, here in (("model", run.model), ("preset", run.preset), ("config", dict(run.config)))
        if made.spec.get(key) != here
    ]
    if unlike:
        raise StoreError(f"{folder}: weights and record of two runs ({'; '.join(unlike)}); put those of one there")
    lines = []
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        lines.append(f"device {device}, as --device is not given")
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: cpu or cuda expected")
    used = run.model_copy(update={"training": run.training.model_copy(update={"device": device})})
    normalization = told_normalization(made.told, run.training.normalize, what=model.name)
    return OpenedRun(used, entry, model, file_sha256(model), made.told, normalization, device_of(used), lines)


def stain_all(
    opened: OpenedRun,
    sources: Sources,
    out: Path,
    *,
    tile_px: int = 0,
    batch: int = 1,
    part_folders: Mapping[str, Path],
) -> list[tuple[str, str]]:
    """Write a PNG for each picture, and `provenance.json`; what an earlier call has written is kept.

    Args:
        opened: The run.
        sources: The pictures.
        out: A folder that is new, empty, or of an earlier call with the same run and settings.
        tile_px: Side of the crops that the model sees; 0: whole pictures up to 1024 px, crops above.
        batch: Pictures of one size that are stained together.
        part_folders: Part name to the folder of the run that fills it.

    Returns:
        Name and reason of each picture that could not be stained.

    Raises:
        ConfigError: A crop that the model does not take, or a folder that holds something else.
    """
    run = opened.run
    if tile_px and not opened.entry.takes(tile_px, run.preset):
        takes = opened.entry.size_in_words(run.preset)
        near = opened.entry.nearest_in_words(tile_px, run.preset)
        raise ConfigError(f"--tile-px {tile_px}: {run.model} {run.preset} takes {takes}{near}")
    provenance = Provenance(
        artefact="virtual",
        subject=run.name,
        spec={"tile_px": tile_px, "whole_up_to_px": WHOLE_UP_TO_PX, "mpp": sources.mpp, "seed": run.seed},
        inputs={"model": opened.sha256, "he": sources.of},
        told={name: opened.told[name] for name in _TOLD if name in opened.told},
    )
    out.mkdir(parents=True, exist_ok=True)
    _check_folder(out, provenance)
    _write_record(out, provenance, {}, {})
    method = build_method(run, load_parts(run, part_folders, training=False))
    load_state(method, read_state(opened.model), what=opened.model.name)
    method.to(opened.device)
    method.train(False)

    done: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    waiting: list[tuple[Source, Rgb, dict[str, Any]]] = []

    def flush() -> None:
        if not waiting:
            return
        pictures = _stained(opened, method, waiting)
        for (source, _, facts), virtual in zip(waiting, pictures, strict=True):
            try:
                _write_png(out / f"{source.target}.png", virtual, facts)
            except _Unnameable as error:
                failed[source.name] = str(error)
            else:
                done[source.name] = facts
        waiting.clear()

    for source, read in watched(read_all(sources.pictures), "stain", total=len(sources), unit="picture"):
        if isinstance(read, str):
            failed[source.name] = read
            continue
        facts = {
            "he_sha256": pixels_sha256(read),
            "model_sha256": opened.sha256,
            "mpp": sources.mpp,
            "tile_px": crop_for(opened.entry, run.preset, read.shape[:2], wanted_px=tile_px),
        }
        if _facts_of(out / f"{source.target}.png") == facts:
            done[source.name] = facts
            continue
        if waiting and waiting[0][1].shape != read.shape:
            flush()
        waiting.append((source, read, facts))
        if len(waiting) == batch:
            flush()
    flush()
    _write_record(out, provenance, done, failed)
    return list(failed.items())


def crop_for(entry: Entry, preset: str, sides_px: tuple[int, int], *, wanted_px: int = 0) -> int:
    """Side of the crops that a picture is stained by; one larger than its shorter side asks for padding.

    Args:
        entry: Of the model.
        preset: Of the run.
        sides_px: Height and width.
        wanted_px: 0: the largest that the model takes, up to the shorter side and 1024 px.
    """
    short = min(*sides_px, wanted_px or WHOLE_UP_TO_PX)
    if wanted_px:
        return wanted_px
    return entry.largest(short, preset) or next(
        side for side in range(short, short + _REACH) if entry.takes(side, preset)
    )


def padded(picture: Rgb, least_px: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A picture mirrored at its lower and right edges until both sides have so many px."""
    height, width = picture.shape[:2]
    missing = ((0, max(0, least_px - height)), (0, max(0, least_px - width)), (0, 0))
    return np.pad(picture, missing, mode="symmetric") if any(after for _, after in missing) else picture


def _stained(
    opened: OpenedRun, method: Method, waiting: Sequence[tuple[Source, Rgb, dict[str, Any]]]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    crop_px = waiting[0][2]["tile_px"]
    height, width = waiting[0][1].shape[:2]
    tiles = torch.stack([tensor_from_rgb(padded(picture, crop_px)) for _, picture, _ in waiting]).to(opened.device)
    names = [source.name for source, _, _ in waiting]
    for virtual in sweep(method, tiles, names, crop_px=crop_px, seed=opened.run.seed):
        yield rgb_from_tensor(virtual[:, :height, :width])


class _Unnameable(Exception):
    """A name that this file system does not take."""


def _write_png(path: Path, picture: UInt8[np.ndarray, "h w 3"], facts: Mapping[str, Any]) -> None:
    content = io.BytesIO()
    text = PngImagePlugin.PngInfo()
    text.add_text(CHUNK, json.dumps(facts, sort_keys=True))
    Image.fromarray(picture).save(content, format="png", pnginfo=text)
    beside = path.with_name(f".virtual.{os.getpid()}")
    with errors_told(path.parent):
        beside.write_bytes(content.getvalue())
        try:
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR):
                raise _Unnameable(f"its virtual picture cannot be written ({error.strerror})") from None
            raise


def _facts_of(path: Path) -> dict[str, Any] | None:
    """What a virtual picture says it was made of; None where there is none, or it says nothing."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            facts = json.loads(getattr(picture, "text", {}).get(CHUNK, "null"))
    except (*PICTURE_ERRORS, Image.DecompressionBombError):
        return None
    return facts if isinstance(facts, dict) else None


def _check_folder(out: Path, provenance: Provenance) -> None:
    """Whether a folder may take the pictures.

    Raises:
        ConfigError: It holds something else.
    """
    record = out / RECORD
    if not record.is_file():
        others = sorted(path.name for path in out.iterdir())
        if others:
            raise ConfigError(f"--out {out}: holds {', '.join(map(ascii, others[:3]))} already; name a new folder")
        return
    try:
        there = Provenance.model_validate(json.loads(record.read_text(encoding="utf-8"))["provenance"])
    except (ValueError, LookupError, TypeError):
        raise ConfigError(f"--out {out}: its {RECORD} is not of a prediction by hand; name a new folder") from None
    before, here = ({**one.spec, **one.inputs} for one in (there, provenance))
    unlike = [f"{key} {before.get(key)} there, {here[key]} here" for key in here if before.get(key) != here[key]]
    if unlike:
        raise ConfigError(f"--out {out}: holds pictures of another prediction ({'; '.join(unlike)}); name a new folder")


def _write_record(out: Path, provenance: Provenance, pictures: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    content = {"provenance": provenance.model_dump(mode="json"), "pictures": pictures, "failed": failed}
    beside = out / f".{RECORD}.{os.getpid()}"
    with errors_told(out):
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, out / RECORD)
