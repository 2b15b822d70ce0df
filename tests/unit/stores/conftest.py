import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_stores import MADE, SIDE, fill

from hepipe.specs.tiling import StoreSpec
from hepipe.stores.tiles import TileWriter


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


Begin = Callable[..., TileWriter]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Opens writers of small stores, four tiles a shard, and lets go of them."""
    opened = []

    def one(path: Path, **more) -> TileWriter:
        spec = more.pop("spec", {})
        writer = TileWriter(
            path,
            more.pop("provenance", MADE),
            mpp=0.5,
            tile_px=more.pop("tile_px", SIDE),
            arrays={"he": 3, "dab_mask": 0},
            spec=StoreSpec(**{"tiles_per_shard": 4, **spec}),
            **more,
        )
        opened.append(writer)
        return writer

    yield one
    for writer in opened:
        writer.close()


@pytest.fixture
def make(begin: Begin, tmp_path: Path) -> Callable[..., Path]:
    """Writes a whole store of ten tiles, or `count`."""

    def one(name: str = "c1.zarr", count: int = 10, **more) -> Path:
        writer = begin(tmp_path / name, **more)
        fill(writer, count)
        writer.finish()
        return tmp_path / name

    return one
