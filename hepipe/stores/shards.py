"""The shards of a tile store: files of zarr v3's `sharding_indexed`, one chunk a tile, put together here.

Zarr-python would hold about ten times a shard to write it; here each chunk goes to the file as it comes. A chunk ends
with its crc32c, and the index follows the chunks with its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import numpy as np

from hepipe.stores.codecs import DamagedChunk

MISSING = 2**64 - 1
"""Offset and length, in the index, of a chunk that is not there."""
CRC: dict[str, Any] = {"name": "crc32c"}
INDEX_CODECS: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, CRC]


def sealed(data: bytes) -> bytes:
    """A chunk as it stands in a shard: with its crc32c behind it."""
    return data + _crc(data)


def unsealed(chunk: bytes) -> np.ndarray:
    """What `sealed` was given, as a read-only uint8 array.

    Raises:
        DamagedChunk: The crc32c is another.
    """
    data = np.frombuffer(chunk, np.uint8)[:-4]
    if len(chunk) < 4 or _crc(data) != chunk[-4:]:
        raise DamagedChunk("its bytes are not those that were written (crc32c)")
    return data


class ShardWriter:
    """A shard that grows chunk by chunk; nothing of it is held but the index."""

    def __init__(self, path: Path, slots: int) -> None:
        """Begin a file.

        Args:
            path: Where it goes; a file that is there is overwritten.
            slots: Chunks of a full shard.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb", buffering=0)
        self._index = np.full((slots, 2), MISSING, "<u8")
        self._offset = 0
        self.count = 0

    def append(self, chunk: bytes) -> None:
        """Write the next chunk.

        Raises:
            OSError: The disk is full, or fails.
        """
        self._write(chunk)
        self._index[self.count] = self._offset, len(chunk)
        self._offset += len(chunk)
        self.count += 1

    def finish(self) -> int:
        """Write the index, wait until all is on the disk, close, and return the size of the file."""
        index = self._index.tobytes()
        self._write(index + _crc(index))
        os.fsync(self._file.fileno())
        self._file.close()
        return self._offset + len(index) + 4

    def close(self) -> None:
        """Leave it as it is."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            # A raw file may take less than it is given, above all where the disk is nearly full.
            rest = rest[self._file.write(rest) :]


class ShardReader:
    """An open shard; any thread. Each chunk is one read of its own bytes."""

    def __init__(self, path: Path, *, slots: int, most: int) -> None:
        """Read the index.

        Args:
            path: The file; it may be a stranger's.
            slots: Chunks of a full shard, as the array's metadata says.
            most: Bytes that a chunk may have.

        Raises:
            DamagedChunk: The index is none, or points beyond the file.
            OSError: The file is not there or cannot be read.
        """
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        length = 16 * slots + 4
        tail = os.pread(self._fd, length, max(0, size - length))
        if len(tail) != length or _crc(tail[:-4]) != tail[-4:]:
            raise DamagedChunk("the shard's index is damaged (crc32c)")
        index = np.frombuffer(tail, "<u8", 2 * slots).reshape(slots, 2)
        there = index[index[:, 0] != MISSING]
        end = size - length
        if there.size and (
            int(there[:, 0].max()) > end
            or int(there[:, 1].max()) > most
            or int((there[:, 0] + there[:, 1]).max()) > end
        ):
            raise DamagedChunk("the shard's index points beyond its file, or to more bytes than a tile can have")
        self.index = index
        self.end = end

    def __len__(self) -> int:
        return int((self.index[:, 0] != MISSING).sum())

    def chunk(self, slot: int) -> bytes:
        """One chunk with its crc32c.

        Raises:
            DamagedChunk: There is none.
        """
        offset, length = (int(number) for number in self.index[slot])
        if offset == MISSING:
            raise DamagedChunk("the shard has no such tile")
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise DamagedChunk("the shard ends before the tile does")
        return data

    def is_tight(self) -> bool:
        """Whether the chunks lie one behind the other from the first byte to the index, as they are written here."""
        there = self.index[: len(self)].astype(np.int64)
        ends = there.sum(axis=1)
        return bool(np.array_equal(there[:, 0], np.concatenate(([0], ends[:-1])))) and int(ends[-1]) == self.end

    def close(self) -> None:
        """Let the file go; also done when nobody holds this any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


def _crc(data: bytes | np.ndarray) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")
