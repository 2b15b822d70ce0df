"""The stores of a data set as dask arrays, read tile by tile where they are computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dask.base import tokenize
from jaxtyping import Int, Shaped

from hepipe.dataset.schedule import Scheduler
from hepipe.errors import StoreError
from hepipe.specs.dataset import Split
from hepipe.stores.provenance import Provenance, digest
from hepipe.stores.tables import INDEX, read_columns, read_provenance, store_beside
from hepipe.stores.tiles import TileStore

Name = Literal["he", "ihc", "dab_mask"]
CHUNK_MB = 32.0
"""Decoded pixels of a chunk, MB; a worker holds one chunk of each array that its task reads."""
_COLUMNS = (
    "tile_id", "case_id", "patient_id", "store", "row_in_store", "split", "place", "her2_score", "marker",
    "tissue_frac", "he_sha256", "ihc_sha256",
)  # fmt: skip


class Cohort:
    """The tiles of a data set in one fixed order, by store and then as they lie in it.

    Attributes:
        name: Of the data set.
        split: That they are of; None: of all.
        place: That they are at.
        table: A row a tile: `tile_id`, `case_id`, `patient_id`, `store`, `row_in_store`, `split`, `her2_score`,
            `marker`, `tissue_frac` and both hashes, as in the index.
        tile_px: Side of a tile.
        mpp: µm per px.
        edges: Where chunks begin and end: each lies in one shard of one store.
    """

    def __init__(
        self,
        index: Path,
        *,
        split: Split | None = None,
        place: Literal["inside", "outside"] = "inside",
        chunk_mb: float = CHUNK_MB,
    ) -> None:
        """Choose the tiles.

        Args:
            index: `index.parquet` of a data set.
            split: Which tiles; None: of all splits.
            place: Those beside the tumour regions have to be asked for.
            chunk_mb: Most decoded pixels of a chunk.

        Raises:
            StoreError: No tile, a store that is not there, tiles of different sizes or without pixels.
        """
        table = read_columns(index, INDEX, columns=_COLUMNS)
        chosen = pc.field("place") == place
        if split is not None:
            chosen &= pc.field("split") == split
        table = table.filter(chosen).sort_by([("store", "ascending"), ("row_in_store", "ascending")])
        if not table.num_rows:
            raise StoreError(
                f"{index}: no tile{f' in split {split}' if split else ''}; dataset.json beside it says why"
            )
        self.index = index
        self.split = split
        self.place = place
        self.name = read_provenance(index).subject
        self.table = table
        names = [str(name) for name in pc.unique(table["store"]).to_pylist()]
        self._paths = [store_beside(index, name) for name in names]
        self._store = np.asarray(pc.index_in(table["store"], pa.array(names))).astype(np.int32)
        if table["row_in_store"].null_count:
            raise StoreError(f"{index}: a kept tile has no pixels; assemble the data set again")
        self._row = np.asarray(table["row_in_store"]).astype(np.int64)
        stores = [_opened(path) for path in self._paths]
        forms = {(store.tile_px, store.mpp) for store in stores}
        if len(forms) > 1:
            found = ", ".join(f"{side} px at {stored} µm/px" for side, stored in sorted(forms))
            raise StoreError(f"{index}: tiles of one size expected, found {found}")
        ((self.tile_px, self.mpp),) = forms
        self._arrays = set.intersection(*(set(store.names()) for store in stores))
        self.edges = self._edges([store.layouts["he"].slots if store.layouts else 1 for store in stores], chunk_mb)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def has(self, name: str) -> bool:
        """Whether every store holds the array."""
        return name in self._arrays

    def array(self, name: Name) -> da.Array:
        """All tiles of an array as (n, h, w, c): uint8 with 3 channels, bool with 1 for `dab_mask`.

        Raises:
            StoreError: A store without it.
        """
        if not self.has(name):
            raise StoreError(f"{self.index}: not every store holds {name}; cut its cases again")
        pixels = _Pixels(self._paths, self._store, self._row, name, self.tile_px)
        return da.from_array(
            pixels,
            chunks=(tuple(b - a for a, b in pairwise(self.edges)), *((side,) for side in pixels.shape[1:])),
            name=f"{name}-{tokenize(self.digest, [str(path) for path in self._paths], name)}",
            lock=False,
            asarray=False,
            fancy=False,
            meta=np.empty((0, 0, 0, 0), pixels.dtype),
        )

    def codes(self, *columns: str) -> tuple[Int[np.ndarray, " n"], list[tuple[Any, ...]]]:
        """Number of each tile's combination of values, and the combinations in the order of their numbers."""
        rows = list(zip(*(self.table[name].to_pylist() for name in columns), strict=True))
        kinds = sorted(set(rows), key=lambda kind: tuple((value is not None, value) for value in kind))
        number = {kind: place for place, kind in enumerate(kinds)}
        return np.array([number[row] for row in rows], np.int64), kinds

    def by_chunk(
        self,
        work: Callable[..., np.ndarray],
        *,
        scheduler: Scheduler,
        rows: Sequence[int],
        width: int,
        dtype: Any,
        names: Sequence[Name],
        beside: Mapping[str, np.ndarray] | None = None,
        task: str,
    ) -> Iterator[Shaped[np.ndarray, "rows width"]]:
        """A table of numbers, chunk after chunk in their order.

        A task reads its chunk and works on it at once, so that no pixels wait or travel.

        Args:
            work: Takes what `names` and `beside` name as keywords, for the tiles of one chunk, and gives (rows, width).
                The same chunk must give the same numbers wherever it is computed.
            scheduler: Who computes.
            rows: That it gives for each chunk.
            width: Of a row.
            dtype: Of the numbers.
            names: Arrays that it takes.
            beside: Values that it takes, one a tile.
            task: What is done, for the progress bar.
        """
        pixels = [self.array(name) for name in names]
        chunks = (pixels[0].chunks[0], 1, 1, 1)
        values = {name: da.from_array(value.reshape(-1, 1, 1, 1), chunks) for name, value in (beside or {}).items()}
        made = da.map_blocks(
            functools.partial(_called, work, tuple(names), tuple(values)),
            *pixels,
            *values.values(),
            chunks=(tuple(rows), (width,), (1,), (1,)),
            dtype=dtype,
            meta=np.empty((0, 0, 0, 0), dtype),
        )
        for part in scheduler.results(list(made.to_delayed().ravel()), task):
            yield part[..., 0, 0]

    def chunk_slices(self) -> list[slice]:
        """Which tiles each chunk holds."""
        return [slice(start, end) for start, end in pairwise(self.edges)]

    def provenance(self, artefact: str, spec: Mapping[str, Any] | None = None) -> Provenance:
        """Of what is made of these tiles."""
        return Provenance(
            artefact=artefact,
            subject=self.name,
            spec={"split": self.split, "place": self.place, **(spec or {})},
            inputs={"tiles": self.digest},
        )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the ids and pixels of the tiles."""
        columns = ("tile_id", "he_sha256", "ihc_sha256", "split")
        return digest(sorted(zip(*(self.table[name].to_pylist() for name in columns), strict=True)))

    def _edges(self, slots: Sequence[int], chunk_mb: float) -> list[int]:
        most = max(1, int(chunk_mb * 1e6 // (3 * self.tile_px**2)))
        shard = self._row // np.asarray(slots, np.int64)[self._store]
        new = np.flatnonzero((np.diff(self._store) != 0) | (np.diff(shard) != 0)) + 1
        edges = [0]
        for start, end in pairwise([0, *(int(place) for place in new), len(self)]):
            pieces = math.ceil((end - start) / most)
            edges += [start + (end - start) * piece // pieces for piece in range(1, pieces + 1)]
        return edges


def cohort_array(index: Path, name: Name, *, split: Split | None = None, chunk_mb: float = CHUNK_MB) -> da.Array:
    """Tiles of a data set as a dask array (n, h, w, c), by store and then as they lie in it; see `Cohort`."""
    return Cohort(index, split=split, chunk_mb=chunk_mb).array(name)


class _Pixels:
    """What dask reads chunks from: no pixels, only where each tile lies."""

    def __init__(self, paths: Sequence[Path], store: np.ndarray, row: np.ndarray, name: Name, tile_px: int) -> None:
        self._paths = list(paths)
        self._store = store
        self._row = row
        self._name = name
        self.dtype = np.dtype(bool if name == "dab_mask" else np.uint8)
        self.shape = (len(row), tile_px, tile_px, 1 if name == "dab_mask" else 3)
        self.ndim = 4

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        which, *rest = key
        tiles = np.arange(self.shape[0])[which]
        found = np.empty((tiles.size, *self.shape[1:]), self.dtype)
        for out, tile in zip(found, np.atleast_1d(tiles), strict=True):
            store, row = _opened(self._paths[self._store[tile]]), int(self._row[tile])
            if self.dtype == bool:
                out[..., 0] = store.read_mask(self._name, row)
            else:
                store.read(self._name, row, out)
        chosen: np.ndarray = found[(slice(None) if tiles.ndim else 0, *rest)]
        return chosen


def _opened(path: Path) -> TileStore:
    """The store at a path, opened once in each process as long as it stays the same."""
    try:
        return _opened_then(path, (path / "zarr.json").stat().st_mtime_ns)
    except FileNotFoundError:
        raise StoreError(f"{path}: no such store; cut its case again") from None


@functools.lru_cache(64)
def _opened_then(path: Path, changed_ns: int) -> TileStore:
    return TileStore(path)


def _called(work: Callable[..., np.ndarray], names: Sequence[str], beside: Sequence[str], *blocks: Any) -> np.ndarray:
    pixels = dict(zip(names, blocks, strict=False))
    values = {name: block.ravel() for name, block in zip(beside, blocks[len(names) :], strict=True)}
    made: np.ndarray = work(**pixels, **values)[..., None, None]
    return made
