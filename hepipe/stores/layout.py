"""The metadata of a tile store: zarr.json of its group and arrays, written by hand and believed only after a look."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepipe.errors import StoreError
from hepipe.stores.codecs import Codec, codec_of
from hepipe.stores.shards import CRC, INDEX_CODECS
from hepipe.stores.stranger import MAX_METADATA_BYTES

DIGESTS = "sha256"
"""The group with the digests of all chunks and metadata."""
MAX_TILE_PX = 8192
MAX_TILES = 10_000_000
MAX_SLOTS = 65_536
SHARD_BYTES = 2**27
SLOT_RANGE = (64, 512)


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a tile store.

    Attributes:
        name: Of its folder.
        shape: Of a tile: (h, w, 3), or (bytes,) of a mask with 1 bit a px.
        codec: What makes bytes of a tile.
        slots: Tiles of a full shard.
        count: Tiles.
        crc: Whether each chunk ends with its crc32c, as all that are written here do.
    """

    name: str
    shape: tuple[int, ...]
    codec: Codec
    slots: int
    count: int = 0
    crc: bool = True

    @property
    def most(self) -> int:
        """Bytes that a chunk may have."""
        return self.codec.most(math.prod(self.shape))

    @property
    def shards(self) -> int:
        """How many files hold it."""
        return -(-self.count // self.slots)

    def key(self, shard: int) -> str:
        """The path of a shard inside the store."""
        return f"{self.name}/c/{shard}" + "/0" * len(self.shape)

    def metadata(self) -> dict[str, Any]:
        """Its zarr.json."""
        inner = [*self.codec.chain(), *([CRC] if self.crc else [])]
        sharding = {
            "chunk_shape": [1, *self.shape],
            "codecs": inner,
            "index_codecs": INDEX_CODECS,
            "index_location": "end",
        }
        return array_metadata(
            (self.count, *self.shape),
            (self.slots, *self.shape),
            [{"name": "sharding_indexed", "configuration": sharding}],
            ("tile", "y", "x", "channel") if len(self.shape) == 3 else ("tile", "byte"),
        )


def tiles_per_shard(tile_px: int) -> int:
    """A power of two, 64 to 512, near 128 MiB of pixels: about 50 MB of encoded tiles.

    Large enough that a data set is hundreds of objects and not tens of thousands; the index that a reader fetches first
    has 16 bytes a tile, 8 KB at most. Small enough that a killed job loses little and a worker uploads a shard at a
    time.
    """
    least, most = SLOT_RANGE
    return min(most, max(least, 1 << max(0, round(math.log2(SHARD_BYTES / (3 * tile_px**2))))))


def array_metadata(
    shape: tuple[int, ...], chunk: tuple[int, ...], codecs: list[dict[str, Any]], names: tuple[str, ...]
) -> dict[str, Any]:
    """The zarr.json of an array of uint8."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": codecs,
        "dimension_names": list(names),
        "attributes": {},
    }


def group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def as_text(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as it stands in its file."""
    return json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_json(file: Path) -> dict[str, Any]:
    """A zarr.json that may be a stranger's.

    Raises:
        StoreError: Not there, absurdly large, or no JSON object.
    """
    try:
        size = file.stat().st_size
        if size > MAX_METADATA_BYTES:
            raise StoreError(f"{file}: {size / 1e6:.0f} MB, at most {MAX_METADATA_BYTES / 1e6:.0f} MB expected")
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{file}: no readable metadata ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise StoreError(f"{file}: a JSON object expected, found {type(found).__name__}")
    return found


def read_array_layout(folder: Path) -> ArrayLayout | None:
    """The array in a folder; None where it is a group.

    Raises:
        StoreError: No array of tiles as it is written here, or of absurd size.
    """
    file = folder / "zarr.json"
    metadata = read_json(file)
    if metadata.get("node_type") == "group":
        return None
    try:
        return _parsed(folder.name, metadata)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise StoreError(f"{file}: no array of tiles ({reason}); run its rule again") from error


def _parsed(name: str, metadata: Mapping[str, Any]) -> ArrayLayout:
    count, *shape = (_size(side) for side in metadata["shape"])
    slots, *across = (_size(side) for side in metadata["chunk_grid"]["configuration"]["chunk_shape"])
    (sharding,) = metadata["codecs"]
    inner = sharding["configuration"]
    codecs = list(inner["codecs"])
    crc = bool(codecs) and codecs[-1].get("name") == "crc32c"
    found = {
        "zarr_format": metadata["zarr_format"],
        "node_type": metadata["node_type"],
        "data_type": metadata["data_type"],
        "chunk_grid": metadata["chunk_grid"]["name"],
        "chunk_key_encoding": metadata["chunk_key_encoding"].get("name"),
        "separator": metadata["chunk_key_encoding"].get("configuration", {}).get("separator", "/"),
        "codec": sharding["name"],
        "shard": across,
        "chunk": inner["chunk_shape"],
        "index_codecs": [codec["name"] for codec in inner["index_codecs"]],
        "endian": inner["index_codecs"][0].get("configuration", {}).get("endian"),
        "index_location": inner.get("index_location", "end"),
    }
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": "uint8",
        "chunk_grid": "regular",
        "chunk_key_encoding": "default",
        "separator": "/",
        "codec": "sharding_indexed",
        "shard": shape,
        "chunk": [1, *shape],
        "index_codecs": ["bytes", "crc32c"],
        "endian": "little",
        "index_location": "end",
    }
    for key, value in expected.items():
        if found[key] != value:
            raise ValueError(f"{key} is {str(found[key])[:60]}, {str(value)[:60]} expected")
    if len(shape) not in (1, 3) or (len(shape) == 3 and shape[2] != 3):
        raise ValueError(f"tiles of shape {shape}, (h, w, 3) or (bytes,) expected")
    if count > MAX_TILES or not 0 < slots <= MAX_SLOTS or not 0 < math.prod(shape) <= 3 * MAX_TILE_PX**2:
        raise ValueError(f"{count} tiles of {shape} in shards of {slots}")
    codec = codec_of(codecs[:-1] if crc else codecs)
    if len(shape) == 1 and codec.name not in ("raw", "zstd"):
        raise ValueError(f"a mask in {codec.name}")
    return ArrayLayout(name, tuple(shape), codec, slots, count, crc)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"a size of {str(value)[:40]}")
    return value
