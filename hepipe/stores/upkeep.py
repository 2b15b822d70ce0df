"""What one does with a finished tile store: look at it, verify it, convert it to another codec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hepipe.errors import ConfigError, StoreError
from hepipe.parallel import in_order
from hepipe.progress import watched
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.codecs import DamagedChunk, Passthrough, settings_of
from hepipe.stores.layout import DIGESTS, ArrayLayout, read_json
from hepipe.stores.partial import partial_folder
from hepipe.stores.shards import ShardReader, sealed, unsealed
from hepipe.stores.tiles import TileStore, TileWriter, codec_for

ANY = ("tiles", "virtual")


@dataclass(frozen=True)
class ArrayFacts:
    """One array as `hepipe store info` shows it.

    Attributes:
        layout: Of the array.
        stored: Bytes of its shards.
        pixels: Bytes of its tiles decoded.
    """

    layout: ArrayLayout
    stored: int
    pixels: int


def open_any(path: Path) -> TileStore:
    """A store of tiles, cut or virtual.

    Raises:
        StoreError: Neither is there; says so where one is being written.
    """
    if not path.exists() and partial_folder(path).exists():
        done = sum(1 for _ in (partial_folder(path) / "journal").glob("*.json"))
        raise StoreError(
            f"{path}: not finished: {done} shards are written; run its rule again, which goes on from there"
        )
    try:
        return TileStore(path, ANY[0])
    except StoreError as error:
        try:
            return TileStore(path, ANY[1])
        except StoreError:
            raise error from None


def array_facts(store: TileStore) -> list[ArrayFacts]:
    """Of each array, how large it is."""
    found = []
    for layout in store.layouts.values():
        files = [store.path / layout.key(shard) for shard in range(layout.shards)]
        stored = sum(file.stat().st_size for file in files if file.is_file())
        found.append(ArrayFacts(layout, stored, layout.count * int(np.prod(layout.shape))))
    return found


def verify(path: Path, *, pixels: bool = False, workers: int = 1) -> list[str]:
    """Every file and tile of a store that is not as it was written; it needs nothing but the store.

    Args:
        path: The store.
        pixels: Decode each tile too, which finds what was wrong before it was written.
        workers: Threads.

    Returns:
        A line for each, which names the file or the tile; none for a whole store.

    Raises:
        StoreError: The store has no digests: it was not written by `TileWriter`.
    """
    problems, stated = _metadata_problems(path)
    try:
        store = open_any(path)
    except StoreError as error:
        return problems or [str(error)]
    if not store.layouts and not stated:
        return problems
    digests = {}
    for name, layout in store.layouts.items():
        found = _digests(path, layout)
        if found is None:
            problems.append(f"{DIGESTS}/{name}: no digests of its {layout.count} tiles")
        else:
            digests[name] = found
    for layout in store.layouts.values():
        problems += _shard_problems(path, layout)

    def look(row: int) -> list[str]:
        return [problem for name in store.layouts if (problem := _tile_problem(store, name, row, digests, pixels))]

    rows = range(len(store))
    looked = in_order(look, rows, workers=workers, name="verify")
    for bad in watched(looked, "verify", total=len(rows), unit="tile"):
        problems += bad
    return problems


def convert(source: Path, target: Path, spec: StoreSpec, *, workers: int = 1) -> int:
    """Write a store's tiles with another codec, in the same order, and return how many there are.

    A tile at a time: memory holds a few for each worker. A killed one is gone on with. Provenance and attributes stay;
    `converted` gets what the store was kept in and the digest of its digests.

    Args:
        source: A whole store; every chunk is checked as it is read.
        target: Where the other goes.
        spec: How tiles are kept there.
        workers: Threads that decode and encode.

    Raises:
        ConfigError: Something stands at `target`, or the codec cannot be had from pixels.
        StoreError: The store is damaged, or holds no tiles.
    """
    if target.exists():
        raise ConfigError(f"{target}: stands there already; name a folder that does not exist")
    store = open_any(source)
    if not store.layouts:
        raise StoreError(f"{source}: holds no tiles: {store.provenance.status.reason or 'its case failed'}")
    kept = {name: one.codec for name, one in store.layouts.items() if isinstance(one.codec, Passthrough)}
    if spec.codec == "passthrough" and not kept:
        raise ConfigError(
            f"{source}: codec passthrough needs the scanner's own JPEGs, which only the slide has; cut it with "
            "store.codec passthrough, or name another codec"
        )
    own = ("hepipe", "mpp", "tile_px", "store", "converted")
    before = store.attributes.get("converted", [])
    step = {"store": store.attributes.get("store", {}), DIGESTS: store.digest}
    with TileWriter(
        target,
        store.provenance,
        mpp=store.mpp,
        tile_px=store.tile_px,
        arrays={name: 3 if len(one.shape) == 3 else 0 for name, one in store.layouts.items()},
        spec=spec,
        passthrough=kept,
        attributes={
            **{key: value for key, value in store.attributes.items() if key not in own},
            "converted": [*(before if isinstance(before, list) else []), step],
        },
    ) as writer:

        def carry(row: int) -> dict[str, bytes]:
            chunks = {}
            for name, layout in store.layouts.items():
                if writer.codec(name) == layout.codec:
                    chunks[name] = sealed(store.chunk(name, row))
                else:
                    chunks[name] = sealed(writer.codec(name).encode(store.decoded(name, row)))
            return chunks

        begun = len(writer.rows)
        rows = range(begun, len(store))
        done = in_order(carry, rows, workers=workers, name="convert")
        for chunks in watched(done, "convert", total=len(store), unit="tile", start=begun):
            writer.append({}, chunks)
        writer.finish()
    return len(store)


def is_lossless(store: TileStore, spec: StoreSpec) -> bool:
    """Whether a conversion keeps every pixel, and with them the hashes of the tile table."""
    return all(
        (codec := codec_for(spec, one.codec if isinstance(one.codec, Passthrough) else None)).lossless
        or codec == one.codec
        for one in store.layouts.values()
        if len(one.shape) == 3
    )


def _metadata_problems(path: Path) -> tuple[list[str], bool]:
    """What is wrong with the metadata, and whether digests of it are there."""
    file = path / DIGESTS / "zarr.json"
    if not file.is_file():
        if not (path / "zarr.json").is_file():
            raise StoreError(f"{path}: no tile store")
        return ([], False) if not list(path.glob("*/zarr.json")) else ([f"{DIGESTS}/zarr.json: is missing"], True)
    name = f"{DIGESTS}/zarr.json"
    try:
        attributes = read_json(file)["attributes"]
        text, own = file.read_bytes(), str(attributes["self"])
        stated = dict(attributes["files"])
    except (StoreError, LookupError, TypeError, ValueError):
        return [f"{name}: is no metadata of digests"], True
    problems = []
    zeroed = text.replace(json.dumps(own).encode(), b'"' + b"0" * 64 + b'"')
    if hashlib.sha256(zeroed).hexdigest() != own:
        problems.append(f"{name}: is not as it was written")
    # Only what is there is read: a stranger's list names no paths.
    there = {str(one.relative_to(path)): one for one in sorted(path.glob("**/zarr.json")) if one != file}
    there |= {str(one.relative_to(path)): one for one in sorted(path.glob(f"{DIGESTS}/*/c/0/0"))}
    for one in sorted(stated.keys() | there.keys()):
        if one not in there:
            problems.append(f"{str(one)[:100]}: is missing")
        elif one not in stated:
            problems.append(f"{one}: does not belong to the store")
        elif _file_digest(there[one]) != stated[one]:
            problems.append(f"{one}: is not as it was written")
    return problems, True


def _digests(path: Path, layout: ArrayLayout) -> np.ndarray | None:
    file = path / DIGESTS / layout.name / "c" / "0" / "0"
    if layout.count == 0:
        return np.empty((0, 32), np.uint8)
    if not file.is_file() or file.stat().st_size != 32 * layout.count + 4:
        return None
    try:
        return unsealed(file.read_bytes()).reshape(-1, 32)
    except DamagedChunk:
        return np.frombuffer(file.read_bytes()[:-4], np.uint8).reshape(-1, 32)


def _shard_problems(path: Path, layout: ArrayLayout) -> Iterator[str]:
    for shard in range(layout.shards):
        first, after = shard * layout.slots, min(layout.count, (shard + 1) * layout.slots)
        where = f"{layout.key(shard)} (tiles {first} to {after - 1} of {layout.name})"
        try:
            with ShardReader(path / layout.key(shard), slots=layout.slots, most=layout.most) as opened:
                if len(opened) != after - first:
                    yield f"{where}: {len(opened)} tiles, {after - first} expected"
                elif not opened.is_tight():
                    yield f"{where}: bytes that belong to no tile"
        except DamagedChunk as error:
            yield f"{where}: {error}"
        except OSError as error:
            yield f"{where}: {error.strerror}"


def _tile_problem(store: TileStore, name: str, row: int, digests: dict[str, np.ndarray], pixels: bool) -> str | None:
    try:
        chunk = store.chunk(name, row)
        crc = store.layouts[name].crc
        stored = sealed(chunk) if crc else chunk
        if name in digests and hashlib.sha256(stored).digest() != digests[name][row].tobytes():
            return f"tile {row} of {name}: its bytes are not those of its digest"
        if pixels:
            store.decoded(name, row)
    except StoreError as error:
        return str(error).removeprefix(f"{store.path}: ").partition("; ")[0]
    return None


def _file_digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def as_lines(store: TileStore) -> Iterator[str]:
    """What `hepipe store info` prints."""
    made: Any = store.provenance
    yield f"{made.artefact} of {made.subject}, {made.status.state}, by hepipe {made.version}"
    if made.status.reason:
        yield f"{made.status.stage}: {made.status.reason}"
    if not store.layouts:
        yield "no tiles"
        return
    yield f"{len(store)} tiles of {store.tile_px} px at {store.mpp:g} µm per px"
    for one in array_facts(store):
        codec = one.layout.codec
        settings = ", ".join(f"{key} {value}" for key, value in settings_of(codec).items() if key != "tables")
        kept = " ".join(filter(None, [codec.name, settings and f"({settings})", "" if codec.lossless else "with loss"]))
        yield (
            f"{one.layout.name}: {kept}; {one.stored / 1e6:,.1f} MB, {one.stored / max(1, one.pixels):.3f} of its "
            f"pixels; {one.layout.shards} shards of {one.layout.slots} tiles"
        )
    for step in store.attributes.get("converted", []):
        yield f"converted from {json.dumps(step)[:200]}"
