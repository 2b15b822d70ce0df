"""Decoded tiles of a slide between two reads that each need a part of them."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

Key = tuple[int, int]
"""Level, number of the tile."""
Tile = UInt8[np.ndarray, "h w 3"]
SLAB_BYTES = 8 << 20
"""Arrays for tiles are parts of larger ones, which numpy asks huge pages for: the faults of small pages, one tile at a
time, cost a third of decoding it."""
ALIGN = 32
"""Rows begin between multiples of this: at them libjpeg-turbo writes past the processor's caches, which takes half as
long again."""
MAX_GONE = 4096
"""Spent tiles that are remembered by number."""


@dataclass(slots=True)
class Kept:
    """A tile of the cache.

    Attributes:
        tile: Its pixels.
        unread: Px that no read has taken yet.
        users: Reads that copy from it now.
        is_kept: Whether it is still in the cache.
    """

    tile: Tile
    unread: int
    users: int = 1
    is_kept: bool = True


class TileCache:
    """Decoded tiles, whichever thread asks; none is decoded twice while it is here.

    A tile is spent when as many px were read as it has: reads along a grid never come back to it, so that what stays
    of a whole row of a slide is the row of tiles that the next one shares. Spent tiles stay too from the first time on
    that one is missed, as reads that overlap do; before, the same warm array takes the next tile (a tenth of the time).

    Attributes:
        decoded: How many tiles were decoded so far.
    """

    def __init__(self, *, max_bytes: int, max_spent_bytes: int) -> None:
        """Set the bounds: of tiles that are read in part, and of spent ones."""
        self.decoded = 0
        self._partly = _Room(max_bytes)
        self._spent = _Room(0)
        self._max_spent_bytes = max_spent_bytes
        self._gone: dict[Key, None] = {}
        self._lock = threading.Lock()
        self._running: dict[Key, threading.Lock] = {}
        self._free: dict[tuple[int, ...], list[Tile]] = {}

    def take(
        self, key: Key, *, shape: tuple[int, int, int], px: int, of: int, decode: Callable[[Key, Tile], None]
    ) -> Kept:
        """A tile, not to be written to, which the caller gives back.

        Args:
            key: Which.
            shape: Of its array.
            px: How many of its px are read now.
            of: How many px of it lie inside the level.
            decode: Fills the array; what it raises is raised in every thread that waits.
        """
        while True:
            with self._lock:
                kept = self._partly.pop(key) or self._spent.pop(key)
                if kept is not None:
                    kept.unread -= px
                    kept.users += 1
                    self._put(key, kept)
                    return kept
                other = self._running.get(key)
                if other is None:
                    mine = self._running[key] = threading.Lock()
                    mine.acquire()
                    if key in self._gone:
                        self._spent.max_bytes = self._max_spent_bytes
                    tile = self._array(shape)
                    break
            with other:
                pass  # it has ended, or failed: then this thread meets the same error
        try:
            decode(key, tile)
        except BaseException:
            with self._lock:
                del self._running[key]
                self._free[shape].append(tile)
            mine.release()
            raise
        kept = Kept(tile, of - px)
        with self._lock:
            self.decoded += 1
            self._put(key, kept)
            del self._running[key]
        mine.release()
        return kept

    def give_back(self, kept: Kept) -> None:
        """The caller has copied what it needs."""
        with self._lock:
            kept.users -= 1
            self._recycle(kept)

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            for kept in (*self._partly.clear(), *self._spent.clear()):
                self._let_go(kept)

    @property
    def nbytes(self) -> int:
        """Bytes of the tiles that are kept."""
        return self._partly.nbytes + self._spent.nbytes

    def _put(self, key: Key, kept: Kept) -> None:
        is_spent = kept.unread <= 0
        if is_spent and not self._spent.max_bytes:
            self._gone[key] = None
            if len(self._gone) > MAX_GONE:
                del self._gone[next(iter(self._gone))]
        for gone in (self._spent if is_spent else self._partly).put(key, kept):
            self._let_go(gone)

    def _let_go(self, kept: Kept) -> None:
        kept.is_kept = False
        self._recycle(kept)

    def _recycle(self, kept: Kept) -> None:
        if not kept.is_kept and not kept.users:
            self._free[kept.tile.shape].append(kept.tile)

    def _array(self, shape: tuple[int, int, int]) -> Tile:
        free = self._free.setdefault(shape, [])
        if not free:
            free.extend(_arrays(shape))
        return free.pop()


def _arrays(shape: tuple[int, int, int]) -> Iterator[Tile]:
    """New arrays, parts of one."""
    nbytes = math.prod(shape)
    step = -(-nbytes // ALIGN) * ALIGN
    slab = np.empty(max(step, SLAB_BYTES) + ALIGN, np.uint8)
    start = (ALIGN // 2 - slab.ctypes.data) % ALIGN
    for at in range(start, len(slab) - nbytes + 1, step):
        yield slab[at : at + nbytes].reshape(shape)


class _Room:
    """Tiles up to a number of bytes; the one longest unused goes first."""

    def __init__(self, max_bytes: int) -> None:
        self.nbytes = 0
        self.max_bytes = max_bytes
        self._tiles: OrderedDict[Key, Kept] = OrderedDict()

    def pop(self, key: Key) -> Kept | None:
        kept = self._tiles.pop(key, None)
        if kept is not None:
            self.nbytes -= kept.tile.nbytes
        return kept

    def put(self, key: Key, kept: Kept) -> Iterator[Kept]:
        """Add a tile; yields those that had to go."""
        self._tiles[key] = kept
        self.nbytes += kept.tile.nbytes
        while self.nbytes > self.max_bytes:
            gone = self._tiles.popitem(last=False)[1]
            self.nbytes -= gone.tile.nbytes
            yield gone

    def clear(self) -> list[Kept]:
        """Empty; returns what was there."""
        gone = list(self._tiles.values())
        self._tiles.clear()
        self.nbytes = 0
        return gone
