"""H&E that is stained by hand: a folder of pictures, or the tiles of a data set. Names and files are a stranger's."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import UInt8

from hepipe.dataset.found import find_dataset
from hepipe.dataset.normalize import Normalization
from hepipe.errors import ConfigError, StoreError
from hepipe.exporters.names import file_names
from hepipe.importers.files import SUFFIXES, decode_picture, read_header, without_suffix
from hepipe.inference.tiles import tiles_as_trained
from hepipe.models.resolved import ResolvedRun
from hepipe.specs.dataset import Split
from hepipe.stains.normalize import colour_statistics, normalized
from hepipe.stores.tables import INDEX, read_table

MPP_SLACK = 0.05
"""Share by which the µm/px of pictures may differ from the run's: scanners of one magnification differ by less."""

Rgb = UInt8[np.ndarray, "h w 3"]


class BadPicture(Exception):
    """One picture cannot be stained; the others can."""


@dataclass(frozen=True)
class Source:
    """One picture.

    Attributes:
        name: For people, and what the random numbers of its virtual picture follow from.
        target: Name of the virtual picture, without folder and suffix.
        read: Its pixels, as the run sees them; raises BadPicture.
    """

    name: str
    target: str
    read: Callable[[], Rgb]


@dataclass(frozen=True)
class Sources:
    """All pictures of one call.

    Attributes:
        pictures: In order.
        mpp: µm per px.
        of: What they are, for provenance: `pictures`, or the fingerprint of a data set.
        lines: What to tell a person.
    """

    pictures: Sequence[Source]
    mpp: float
    of: str
    lines: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.pictures)


def find_sources(
    he: Path,
    run: ResolvedRun,
    told: dict[str, Any],
    *,
    normalization: Normalization | None,
    split: str | None = None,
    mpp: float | None = None,
) -> Sources:
    """What `--he` means.

    Args:
        he: A folder of pictures, or a data set's folder or index.
        run: That stains.
        told: What its finished model says of itself.
        normalization: Colours that it sees.
        split: Of a data set; None: all.
        mpp: µm per px of the pictures of a folder.

    Raises:
        ConfigError: Options that do not go with what is there, no picture, or another resolution than the run's.
        StoreError: No data set, or one that this run cannot stain.
    """
    if he.suffix == ".parquet" or (he / "index.parquet").is_file() or (he / "zarr.json").is_file():
        if mpp is not None:
            raise ConfigError("--mpp: a data set says its own µm/px; leave it out")
        return _of_dataset(he, run, told, normalization=normalization, split=split)
    if split is not None:
        raise ConfigError(f"--split: for data sets, and {he} is none; leave it out")
    if not he.is_dir():
        raise ConfigError(f"--he {he}: {'a file' if he.exists() else 'nothing there'}; a folder of pictures expected")
    return _of_folder(he, _checked_mpp(mpp, run, told), normalization)


def _checked_mpp(mpp: float | None, run: ResolvedRun, told: dict[str, Any]) -> float:
    own = told.get("trained_on", {}).get("mpp") or run.training.mpp
    trained = f"run {run.name} was trained at {own:g} µm/px" if own else f"run {run.name} does not say its own"
    if not mpp:
        raise ConfigError(f"--mpp is missing: the µm per px of the pictures, which files do not say; {trained}")
    if own and abs(mpp - own) > MPP_SLACK * own:
        raise ConfigError(
            f"--mpp {mpp:g}: {trained}, and what it learnt holds for that alone; resample the pictures to {own:g} "
            f"µm/px ({mpp / own:.3g} times their sides), or choose a run of their resolution"
        )
    return mpp


def _of_folder(folder: Path, mpp: float, normalization: Normalization | None) -> Sources:
    found: list[Source] = []
    taken: dict[str, str] = {}
    passed_over = 0
    root = folder.resolve()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir() or path.suffix.lower() not in SUFFIXES:
            passed_over += 1
            continue
        name = path.name if _is_plain(path.name) else ascii(path.name)
        target = without_suffix(path.name)
        read = partial(_read_file, path, normalization)
        if not _is_plain(path.name):
            read = partial(_refuse, "control characters in its name; rename it")
        elif not path.resolve().is_relative_to(root):
            read = partial(_refuse, "a link out of the folder; put the file itself there")
        elif target.lower() in taken:
            read = partial(
                _refuse, f"its virtual picture would have the name of that of {taken[target.lower()]}; rename one"
            )
        else:
            taken[target.lower()] = name
        found.append(Source(name, target, read))
    if not found:
        raise ConfigError(
            f"--he {folder}: no picture lies in it ({', '.join(SUFFIXES)}); subfolders are not looked into"
        )
    lines = [f"{passed_over} other files and folders of {folder} are passed over"] if passed_over else []
    return Sources(found, mpp, "pictures", lines)


def _of_dataset(
    place: Path, run: ResolvedRun, told: dict[str, Any], *, normalization: Normalization | None, split: str | None
) -> Sources:
    if split is not None and split not in get_args(Split):
        raise ConfigError(f"--split {split}: {', '.join(get_args(Split))} expected, or leave it out for all")
    data = find_dataset(place)
    rows = read_table(data.index, INDEX, columns=("tile_id", "split", "source_set"))
    targets = file_names(rows)
    found: list[Source] = []
    mpp = 0.0
    for one in get_args(Split) if split is None else (split,):
        tiles = tiles_as_trained(data.index, one, run, told, mpp_slack=MPP_SLACK, normalization=normalization)
        for place_in_split, row in enumerate(tiles.rows):
            target = targets[row.tile_id] if split is not None else f"{one}-{targets[row.tile_id]}"
            found.append(Source(row.tile_id, target, partial(_read_tile, tiles, place_in_split)))
        mpp = tiles.mpp or mpp
    if not found:
        raise StoreError(f"{data.index}: holds no tile" + ("" if split is None else f" of split {split}"))
    return Sources(found, mpp, data.card.fingerprint)


def _read_tile(tiles: Any, place: int) -> Rgb:
    try:
        tile: Rgb = tiles.rgb("he", place)
    except StoreError as error:
        raise BadPicture(str(error)) from None
    return tile


def _read_file(path: Path, normalization: Normalization | None) -> Rgb:
    try:
        header = read_header(path)
        if isinstance(header, str):
            raise BadPicture(header)
        pixels = decode_picture(path.read_bytes(), header.size)
    except (OSError, ValueError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadPicture(reason or type(error).__name__) from None
    target = None if normalization is None else normalization.of("he")
    if target is None:
        return pixels
    # Its case is not known: its own colours are those of the picture.
    own = colour_statistics(pixels.reshape(-1, 3), target.method, "he")
    return pixels if own is None else normalized(pixels, source=own, target=target)


def _refuse(reason: str) -> Rgb:
    raise BadPicture(reason)


def _is_plain(name: str) -> bool:
    return all(unicodedata.category(letter)[0] != "C" for letter in name)


def pixels_sha256(pixels: Rgb) -> str:
    """Of a picture's sides and pixels, whatever file they came from."""
    seen = hashlib.sha256(f"{pixels.shape}".encode())
    seen.update(np.ascontiguousarray(pixels).data)
    return seen.hexdigest()


def read_all(sources: Sequence[Source]) -> Iterator[tuple[Source, Rgb | str]]:
    """Each picture, or why it cannot be read."""
    for source in sources:
        try:
            yield source, source.read()
        except BadPicture as error:
            yield source, str(error)
