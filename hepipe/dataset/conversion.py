"""A data set whose tiles are kept in another codec: every store converted, one task each, then the same index."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dask

from hepipe.dataset.schedule import Scheduler
from hepipe.errors import ConfigError
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.tables import INDEX, read_columns, store_beside
from hepipe.stores.upkeep import convert, is_lossless, open_any

BESIDE = ("dataset.json", "index.parquet")
"""What goes with the stores; the index last, as it makes the folder a data set."""


def convert_cohort(index: Path, folder: Path, spec: StoreSpec, scheduler: Scheduler) -> int:
    """Write a data set with the same tiles, index and fingerprint, and return how many stores it has.

    One that was interrupted goes on: stores that are finished are left alone, one that is not is gone on with.

    Args:
        index: `index.parquet` of a data set.
        folder: Where the other goes.
        spec: How tiles are kept there.
        scheduler: Who converts; each store has one writer.

    Raises:
        ConfigError: The codec loses pixels, whose hashes the index holds, or another store stands in the folder.
        StoreError: A store is damaged.
    """
    names = sorted({str(name) for name in read_columns(index, INDEX, columns=["store"])["store"].to_pylist()})
    sources = [store_beside(index, name) for name in names]
    if lossy := [name for name, source in zip(names, sources, strict=True) if not is_lossless(open_any(source), spec)]:
        raise ConfigError(
            f"store.codec {spec.codec} changes the pixels of {lossy[0]}, and the index holds their hashes; choose a "
            "lossless codec, or cut the cases again with this one"
        )
    targets = [store_beside(folder / index.name, name) for name in names]
    parts = [
        dask.delayed(_converted, pure=False)(source, target, spec)
        for source, target in zip(sources, targets, strict=True)
    ]
    for _ in scheduler.results(parts, f"convert {index.parent.name}", unit="store"):
        pass
    for name in BESIDE:
        if (source := index.with_name(name)).exists():
            _copied(source, folder / name)
    return len(parts)


def _converted(source: Path, target: Path, spec: StoreSpec) -> None:
    if target.exists():
        made = open_any(target).attributes.get("converted")
        if isinstance(made, list) and made and open_any(source).digest in made[-1].values():
            return
    convert(source, target, spec)


def _copied(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    os.replace(beside, target)
