"""Tile sets in the layouts of the public ones, with pictures of a few px."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hepipe.importers.kinds import open_set
from hepipe.importers.pairs import TileSet, import_tiles
from hepipe.importers.tileset import Inputs
from hepipe.specs.imports import ImportSpec
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.codecs import Passthrough
from hepipe.stores.provenance import Provenance
from hepipe.stores.tiles import TileWriter
from hepipe.tiling.cut import ARRAYS


def picture(
    seed: int = 0, *, side: tuple[int, int] = (16, 16), format: str = "JPEG", mode: str = "RGB", **how
) -> bytes:
    """The bytes of a smooth random picture."""
    small = np.random.default_rng(seed).integers(60, 250, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(side, Image.Resampling.BICUBIC).convert(mode).save(file, format=format, **how)
    return file.getvalue()


@pytest.fixture
def put(tmp_path) -> Callable[..., None]:
    """Write pictures into the set's folder by their paths, each with other pixels."""
    seeds = iter(range(10_000))

    def write(*paths: str, **how) -> None:
        for path in paths:
            file = tmp_path / "set" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture(next(seeds), **how))

    (tmp_path / "set").mkdir()
    return write


@pytest.fixture
def opened(tmp_path) -> Callable[..., TileSet]:
    """Open that folder as a kind; options named as files are paths below the test's folder."""

    def open_as(kind: str, **options) -> TileSet:
        files = {
            name: tmp_path / options.pop(name) for name in ("cases", "scores", "names", "labels") if name in options
        }
        spec = ImportSpec.model_validate({"kind": kind, "path": "set", **options})
        return open_set(tmp_path / "set", spec, Inputs(**files))

    return open_as


@pytest.fixture
def rows_of(tmp_path) -> Callable[..., list[dict]]:
    """Bring an opened set into a store and give the rows of its table."""

    def bring(tiles: TileSet, kind: str, measure=None, **options) -> list[dict]:
        spec = ImportSpec.model_validate({"kind": kind, "path": "set", **options})
        how = dict.fromkeys(tiles.passes, Passthrough((tiles.tile_px, tiles.tile_px)))
        with TileWriter(
            tmp_path / "t.zarr",
            Provenance(artefact="tiles", subject="imported"),
            mpp=tiles.mpp,
            tile_px=tiles.tile_px,
            arrays=ARRAYS,
            spec=StoreSpec(codec="passthrough"),
            passthrough=how,
        ) as store:
            glass = {"white_frac_he": 0.25, "white_frac_ihc": 0.5}
            rows = import_tiles(
                tiles,
                spec,
                measures=[lambda he, ihc, mpp: {**glass, **({} if measure is None else measure(he, ihc))}],
                dab_mask=lambda ihc, mpp, measured: ihc[..., 0] > 9,
                store=store,
                workers=2,
            )
            store.finish()
        return rows

    return bring


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "set"
