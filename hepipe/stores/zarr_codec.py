"""The codecs of a tile store as zarr-python knows them: one array-to-bytes codec, `hepipe.tile`.

Zarr finds it through its entry point wherever hepipe is installed; a store in `raw` or `zstd` needs neither.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

from hepipe.stores.codecs import NAME, Codec, named_codec


@dataclass(frozen=True)
class TileCodec(ArrayBytesCodec):  # type: ignore[misc]  # zarr is Any to mypy
    """A chunk (1, h, w, 3) of uint8 as one tile."""

    codec: Codec
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TileCodec:
        """As zarr's metadata has it."""
        return cls(named_codec(data.get("configuration") or {}))

    def to_dict(self) -> dict[str, Any]:
        """As zarr's metadata has it."""
        return self.codec.chain()[0]

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays that hold no tiles; called by zarr when it opens one."""
        if len(shape) != 4 or shape[-1] != 3 or dtype.to_native_dtype() != np.uint8:
            raise ValueError(f"{NAME} holds uint8 of (n, h, w, 3), found {shape}")

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode, chunk_bytes, chunk_spec)

    async def _encode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._encode, chunk_array, chunk_spec)

    def _decode(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        tile = np.empty(chunk_spec.shape[1:], np.uint8)
        self.codec.decode(chunk_bytes.as_numpy_array(), tile)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(tile[None])

    def _encode(self, chunk_array: Any, chunk_spec: Any) -> Any:
        tile = np.ascontiguousarray(chunk_array.as_numpy_array()[0])
        return chunk_spec.prototype.buffer.from_bytes(self.codec.encode(tile))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Not known before a tile is encoded."""
        raise NotImplementedError


register_codec(NAME, TileCodec)
