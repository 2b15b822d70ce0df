"""Tile stores: sharded zarr v3, one chunk a tile, written a shard at a time and read a tile at a time.

`docs/tile-store.md` says what the bytes are.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.errors import StoreError
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.codecs import Codec, DamagedChunk, Greendelta, Jpeg, Jxl, Passthrough, Raw, Zstd
from hepipe.stores.layout import (
    DIGESTS,
    MAX_TILE_PX,
    ArrayLayout,
    array_metadata,
    as_text,
    group_metadata,
    read_array_layout,
    read_json,
    tiles_per_shard,
)
from hepipe.stores.partial import locked, partial_folder, sync_folder, told, write_synced
from hepipe.stores.provenance import Provenance, digest
from hepipe.stores.shards import CRC, ShardReader, ShardWriter, sealed, unsealed

FORMAT = 1
"""Raised when the bytes of a store change: what an older version has begun is not gone on with."""
OPEN_SHARDS = 256
MASK_CODEC = Zstd(3)


def codec_for(spec: StoreSpec, passthrough: Passthrough | None = None) -> Codec:
    """The codec of an array of pixels.

    Args:
        spec: What the config asks for.
        passthrough: How the scanner's JPEGs are read, where this array can take them as they are.
    """
    name = spec.codec
    if name == "passthrough":
        if passthrough is not None:
            return passthrough
        name = spec.otherwise
    match name:
        case "greendelta":
            return Greendelta() if spec.level is None else Greendelta(spec.level)
        case "zstd":
            return Zstd() if spec.level is None else Zstd(spec.level)
        case "jxl":
            return Jxl() if spec.level is None else Jxl(spec.level)
        case "jpeg":
            return Jpeg(spec.quality, spec.subsampling)
    return Raw()


class TileWriter:
    """A tile store that grows in a hidden folder beside its place, and takes it when it is whole.

    A shard that is full is on the disk with its rows before its journal entry is; what a killed writer has not entered
    is lost, and everything else is there for the next writer with the same provenance and settings. `encode` may be
    called from any thread, all else from one.

    Attributes:
        rows: Of all tiles so far, those of an earlier writer included: `append`'s, with `row_in_store`.
    """

    def __init__(
        self,
        path: Path,
        provenance: Provenance,
        *,
        mpp: float,
        tile_px: int,
        arrays: Mapping[str, int],
        spec: StoreSpec | None = None,
        passthrough: Mapping[str, Passthrough] | None = None,
        attributes: Mapping[str, Any] | None = None,
        key: str = "",
    ) -> None:
        """Begin a store, or go on with one that was begun alike.

        Args:
            path: Where it will stand.
            provenance: Stands in the store.
            mpp: µm per px of its tiles.
            tile_px: Side of a tile.
            arrays: Name of each array and its channels; 0 channels is a mask, stored with 1 bit a px.
            spec: How tiles are kept.
            passthrough: Arrays that can take the scanner's own JPEGs, and how those are read.
            attributes: Further ones of the group.
            key: What else must be equal for a store to be gone on with.

        Raises:
            StoreError: Another process writes this store, or its folder cannot be written.
        """
        spec = spec or StoreSpec()
        if not 0 < tile_px <= MAX_TILE_PX:
            raise StoreError(f"tiles of {tile_px} px, 1 to {MAX_TILE_PX} expected; choose another tile_px")
        slots = spec.tiles_per_shard or tiles_per_shard(tile_px)
        self.path = path
        self.tile_px = tile_px
        self.rows: list[dict[str, Any]] = []
        self._layouts = {}
        for name, channels in arrays.items():
            codec = codec_for(spec, (passthrough or {}).get(name)) if channels else MASK_CODEC
            shape = (tile_px, tile_px, channels) if channels else (-(-tile_px * tile_px // 8),)
            self._layouts[name] = ArrayLayout(name, shape, codec, slots)
        self._attributes = {
            "hepipe": provenance.model_dump(mode="json"),
            "mpp": mpp,
            "tile_px": tile_px,
            "store": spec.model_dump(mode="json", exclude={"revision"}),
            **(attributes or {}),
        }
        self._slots = slots
        self._digests: dict[str, list[str]] = {name: [] for name in arrays}
        self._open: dict[str, ShardWriter] = {}
        self._waiting: list[dict[str, Any]] = []
        self._partial = partial_folder(path)
        self._store = self._partial / "store"
        self._journal = self._partial / "journal"
        self._lock = locked(self._partial)
        try:
            layouts = {name: layout.metadata() for name, layout in self._layouts.items()}
            self._resume(digest([FORMAT, self._attributes, layouts, key]))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def codec(self, name: str) -> Codec:
        """What makes bytes of an array's tiles."""
        return self._layouts[name].codec

    def lossless(self, name: str) -> bool:
        """Whether an array gives back the pixels that it is given."""
        return self._layouts[name].codec.lossless

    def encode(self, name: str, tile: np.ndarray) -> bytes:
        """The chunk of a tile: uint8 (h, w, 3), or a bool (h, w) mask. Any thread."""
        assert tile.shape[:2] == (self.tile_px, self.tile_px), (name, tile.shape)
        return sealed(self._layouts[name].codec.encode(np.packbits(tile) if tile.dtype == bool else tile))

    def append(self, row: Mapping[str, Any], chunks: Mapping[str, bytes]) -> int:
        """Add one tile and return its number.

        Args:
            row: What is known of it, of values that JSON has; kept in `rows`.
            chunks: Of `encode`, or `sealed(passthrough.pack(…))`, one for each array.

        Raises:
            StoreError: The disk is full, or fails. What was committed stays for the next writer.
        """
        assert chunks.keys() == self._layouts.keys(), (sorted(chunks), sorted(self._layouts))
        assert self._waiting or len(self.rows) % self._slots == 0, "the last shard is written"
        number = len(self.rows)
        with self._faults():
            if not self._waiting:
                self._open = {
                    name: ShardWriter(self._store / layout.key(number // self._slots), self._slots)
                    for name, layout in self._layouts.items()
                }
            for name, chunk in chunks.items():
                self._open[name].append(chunk)
                self._digests[name].append(hashlib.sha256(chunk).hexdigest())
            self._waiting.append({**row, "row_in_store": number})
            self.rows.append(self._waiting[-1])
            if len(self._waiting) == self._slots:
                self._commit()
        return number

    def add(self, row: Mapping[str, Any] | None = None, **tiles: np.ndarray) -> int:
        """Encode and append one tile."""
        return self.append(row or {}, {name: self.encode(name, tile) for name, tile in tiles.items()})

    def finish(self) -> None:
        """Write the last shard and the metadata, and put the store in its place.

        Raises:
            StoreError: The disk is full, or fails.
        """
        with self._faults():
            if self._waiting:
                self._commit()
            files: dict[str, bytes] = {}
            for name, layout in self._layouts.items():
                files[f"{name}/zarr.json"] = as_text(replace(layout, count=len(self.rows)).metadata())
            for name, digests in self._digests.items():
                shape = (len(digests), 32)
                codecs = [{"name": "bytes"}, CRC]
                files[f"{DIGESTS}/{name}/zarr.json"] = as_text(
                    array_metadata(shape, (max(1, len(digests)), 32), codecs, ("tile", "byte"))
                )
                if digests:
                    files[f"{DIGESTS}/{name}/c/0/0"] = sealed(bytes.fromhex("".join(digests)))
            files["zarr.json"] = as_text(group_metadata(self._attributes))
            files[f"{DIGESTS}/zarr.json"] = _signed(files)
            for name, content in files.items():
                write_synced(self._store / name, content)
            # A store that stood here before goes when the new one is whole.
            if self.path.exists():
                os.replace(self.path, self._partial / "old")
            os.replace(self._store, self.path)
            sync_folder(self.path.parent)
            # First of all: what is left is then never taken for the journal of this store.
            (self._partial / "key").unlink()
            shutil.rmtree(self._partial, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let go; what is not finished stays for the next writer."""
        for shard in self._open.values():
            shard.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _commit(self) -> None:
        number = (len(self.rows) - 1) // self._slots
        sizes = {name: shard.finish() for name, shard in self._open.items()}
        for name in sizes:
            sync_folder((self._store / self._layouts[name].key(number)).parent)
        count = len(self._waiting)
        entry = {
            "rows": self._waiting,
            "bytes": sizes,
            "sha256": {name: digests[-count:] for name, digests in self._digests.items()},
        }
        write_synced(self._journal / f"{number:06d}.json", json.dumps(entry, ensure_ascii=False).encode())
        self._waiting = []
        self._open = {}

    def _resume(self, key: str) -> None:
        """Take what an earlier writer with the same key has committed, and remove everything else."""
        with self._faults():
            old = self._partial / "old"
            if old.exists() and not self.path.exists():
                os.replace(old, self.path)
            elif old.exists():
                shutil.rmtree(old)
            file = self._partial / "key"
            if not file.is_file() or file.read_text() != key:
                # The key first: what is left of a folder without one is never taken for anything.
                file.unlink(missing_ok=True)
                for folder in (self._store, self._journal):
                    if folder.exists():
                        shutil.rmtree(folder)
                write_synced(file, key.encode())
            self._journal.mkdir(exist_ok=True)
            if not self._store.exists():
                # A writer that was killed between putting its store in place and saying so.
                if any(self._journal.iterdir()) and self.path.exists():
                    os.replace(self.path, self._store)
                self._store.mkdir(exist_ok=True)
            shards = next(number for number in itertools.count() if not self._take(number))
            kept = {layout.key(shard) for layout in self._layouts.values() for shard in range(shards)}
            for file in [file for file in self._store.rglob("*") if file.is_file()]:
                if file.relative_to(self._store).as_posix() not in kept:
                    file.unlink()
            for file in self._journal.iterdir():
                if not re.fullmatch(r"\d{6}\.json", file.name) or int(file.stem) >= shards:
                    file.unlink()

    def _take(self, number: int) -> bool:
        try:
            entry = json.loads((self._journal / f"{number:06d}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        for name, size in entry["bytes"].items():
            file = self._store / self._layouts[name].key(number)
            if not file.is_file() or file.stat().st_size != size:
                return False
        self.rows += entry["rows"]
        for name, digests in entry["sha256"].items():
            self._digests[name] += digests
        return True

    def _faults(self) -> contextlib.AbstractContextManager[None]:
        return told(self.path, self._slots)


class TileStore:
    """An open tile store: tiles by number, from any thread, each with one read and one decode.

    Attributes:
        path: Its folder.
        provenance: How it was made.
        attributes: Of its group.
        tile_px: Side of a tile.
        mpp: µm per px.
        layouts: Its arrays by name; none for a failed case.
    """

    def __init__(self, path: Path, artefact: str = "tiles") -> None:
        """Read the metadata, which may be a stranger's.

        Raises:
            StoreError: Nothing there, no tile store, or another artefact.
        """
        self.path = path
        metadata = read_json(path / "zarr.json")
        attributes = metadata.get("attributes")
        try:
            self.attributes: dict[str, Any] = dict(attributes or {})
            self.provenance = Provenance.model_validate(self.attributes["hepipe"])
            self.tile_px = int(self.attributes.get("tile_px", 0))
            self.mpp = float(self.attributes.get("mpp", 0.0))
        except (LookupError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: not a hepipe store ({type(error).__name__}); run its rule again") from error
        if self.provenance.artefact != artefact:
            raise StoreError(f"{path}: holds {self.provenance.artefact}, {artefact} expected")
        self.layouts: dict[str, ArrayLayout] = {}
        for folder in sorted(file.parent for file in path.glob("*/zarr.json")):
            layout = read_array_layout(folder)
            if layout is not None:
                self._check(layout)
                self.layouts[layout.name] = layout
        if len({layout.count for layout in self.layouts.values()}) > 1:
            counts = ", ".join(f"{layout.count} of {name}" for name, layout in self.layouts.items())
            raise StoreError(f"{path}: its arrays hold {counts} tiles; run its rule again")
        self._opened = next(_stores)

    @property
    def digest(self) -> str:
        """SHA-256 of its digests, and so of all that it holds; empty for a failed case."""
        file = self.path / DIGESTS / "zarr.json"
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""

    def names(self) -> list[str]:
        """The arrays it holds; none for a failed case."""
        return sorted(self.layouts)

    def __len__(self) -> int:
        return max((layout.count for layout in self.layouts.values()), default=0)

    def read(self, name: str, row: int, out: UInt8[np.ndarray, "h w 3"] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """One tile of an array of pixels.

        Args:
            name: Of the array.
            row: Number of the tile.
            out: Filled and returned, C-contiguous; None: a new array.

        Raises:
            StoreError: No such tile, or its bytes are damaged.
        """
        return self.decoded(name, row, out)

    def read_crop(
        self, name: str, row: int, *, top: int, left: int, out: UInt8[np.ndarray, "h w 3"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A part of a tile, at less than the cost of the whole where the codec allows; raises as `read`.

        Args:
            name: Of the array.
            row: Number of the tile.
            top: Row of the part's upper left px.
            left: Column of it.
            out: Of the part's size, C-contiguous; filled and returned.
        """
        side = self.tile_px
        assert 0 <= top <= side - out.shape[0], (top, out.shape, side)
        assert 0 <= left <= side - out.shape[1], (left, out.shape, side)
        data = self._bytes(name, row)
        layout = self.layouts[name]
        try:
            layout.codec.decode_crop(data, layout.shape, top=top, left=left, out=out)
        except DamagedChunk as error:
            raise self._damaged(name, row, error) from error
        return out

    def read_mask(self, name: str, row: int) -> Bool[np.ndarray, "h w"]:
        """One tile of a mask array; raises as `read`."""
        side = self.tile_px
        return np.unpackbits(self.decoded(name, row), count=side * side).reshape(side, side).astype(bool)

    def chunk(self, name: str, row: int) -> bytes:
        """The bytes of one tile as its codec wrote them; raises as `read`."""
        return self._bytes(name, row).tobytes()

    def decoded(self, name: str, row: int, out: np.ndarray | None = None) -> np.ndarray:
        """What the codec gives for one tile of any array: a mask has 8 px a byte; raises as `read`."""
        data = self._bytes(name, row)
        layout = self.layouts[name]
        if out is None:
            out = np.empty(layout.shape, np.uint8)
        else:
            assert out.shape == layout.shape, (out.shape, layout.shape)
        try:
            layout.codec.decode(data, out)
        except DamagedChunk as error:
            raise self._damaged(name, row, error) from error
        return out

    def _bytes(self, name: str, row: int) -> np.ndarray:
        layout = self.layouts.get(name)
        if layout is None:
            raise StoreError(f"{self.path}: no array {name}; there are {', '.join(self.names()) or 'none'}")
        if not 0 <= row < layout.count:
            raise StoreError(f"{self.path}: no tile {row} of {name}; there are {layout.count}")
        shard, slot = divmod(row, layout.slots)
        try:
            chunk = _shard(self.path / layout.key(shard), layout.slots, layout.most, self._opened).chunk(slot)
            return unsealed(chunk) if layout.crc else np.frombuffer(chunk, np.uint8)
        except (DamagedChunk, OSError) as error:
            raise self._damaged(name, row, error) from error

    def _damaged(self, name: str, row: int, error: Exception) -> StoreError:
        reason = error.strerror if isinstance(error, OSError) else error
        return StoreError(
            f"{self.path}: tile {row} of {name}: {reason}; `hepipe store verify` finds all such tiles, "
            "then run the rule again or restore the store"
        )

    def _check(self, layout: ArrayLayout) -> None:
        side = self.tile_px
        if layout.shape not in ((side, side, 3), (-(-side * side // 8),)):
            raise StoreError(
                f"{self.path}: {layout.name} has tiles of {layout.shape}, its attributes say {side} px; "
                "run its rule again"
            )


_stores = itertools.count()


@functools.lru_cache(OPEN_SHARDS)
def _shard(path: Path, slots: int, most: int, store: int) -> ShardReader:
    """An open shard; one that falls out of the cache is closed when the last thread that reads it lets go.

    `store` tells stores apart that stood at the same place one after the other.
    """
    return ShardReader(path, slots=slots, most=most)


def _signed(files: Mapping[str, bytes]) -> bytes:
    """The metadata of the group of digests: SHA-256 of every metadata file, its own with zeros in its place."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = as_text(group_metadata({"files": digests, "self": "0" * 64}))
    return text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode())
