"""Near-duplicates among many tiles, turned and mirrored copies too, from their perceptual hashes alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt64

CHUNKS, CHUNK_BITS = 4, 16
MAX_BITS = 7
"""Hashes that differ in up to so many bits have one of four quarters that differs in one bit at most."""
BATCH = 2_000_000
"""Pairs of hashes compared at once; bounds the memory."""
MAX_PAIRS = 100_000
"""Pairs that are listed; more say nothing new."""
TURNS = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))
"""The eight ways to lay a square tile: quarter turns as `np.rot90` makes them, after a mirror left to right."""
_POWERS = np.uint64(1) << np.arange(64, dtype=np.uint64)[::-1]


def hash_bits(hashes: list[str]) -> UInt64[np.ndarray, " n"]:
    """Hashes of 16 hex digits as numbers; the first bit is the highest."""
    return np.array([int(one, 16) for one in hashes], np.uint64)


def turned(hashes: UInt64[np.ndarray, " n"], turns: int, mirrored: bool) -> UInt64[np.ndarray, " n"]:
    """The hashes that the tiles would have if they were mirrored left to right and then turned by quarters.

    Signs of a mirrored picture's odd coefficients are the others'; transposed, rows and columns are exchanged. A
    coefficient of exactly 0 is the one exception.
    """
    signs = ((hashes[:, None] & _POWERS) > 0).reshape(-1, 8, 8)
    odd = np.arange(8) % 2 == 1
    if mirrored:
        signs = signs ^ odd[None, None, :]
    for _ in range(turns):
        # np.rot90: transposed, then upside down.
        signs = signs.transpose(0, 2, 1) ^ odd[None, :, None]
    flat = signs.reshape(-1, 64).copy()
    flat[:, 0] = True
    found: np.ndarray = (flat * _POWERS).sum(1, dtype=np.uint64)
    return found


def near_pairs(
    hashes: UInt64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"], *, bits: int
) -> Iterator[tuple[int, int, int, tuple[int, bool]]]:
    """Pairs of hashes in different groups that differ in up to `bits` of 63 bits in one of the eight ways to lie.

    Four tables of quarters are asked for every quarter that differs in one bit at most (multi-index hashing; Norouzi
    et al., CVPR 2012): exact, and for 40,000 tiles a hundredth of all comparisons.

    Args:
        hashes: Different from each other within a group, or the work grows with the copies squared.
        groups: Of each hash; pairs within one are not looked for.
        bits: 0 to 7.

    Yields:
        Places of the two, the lower first, their distance, and how the first has to be laid to look like the second.
    """
    if not 0 <= bits <= MAX_BITS:
        raise ValueError(f"0 to {MAX_BITS} bits expected, found {bits}")
    if len(hashes) < 2:
        return
    best: dict[tuple[int, int], tuple[int, int]] = {}
    tables = []
    for chunk in range(CHUNKS):
        keys = _quarter(hashes, chunk)
        ends = np.cumsum(np.bincount(keys, minlength=1 << CHUNK_BITS))
        tables.append((np.concatenate([[0], ends]), np.argsort(keys, kind="stable")))
    for way, (turns, mirrored) in enumerate(TURNS):
        asked = turned(hashes, turns, mirrored)
        # Of four quarters that differ in three bits one is the same.
        flips = [0, *(1 << bit for bit in range(CHUNK_BITS))] if bits >= CHUNKS else [0]
        for chunk, (starts, order) in enumerate(tables):
            own = _quarter(asked, chunk)
            for flip in flips:
                for first, second in _meeting(starts, order, own ^ flip):
                    picked = (first < second) & (groups[first] != groups[second])
                    first, second = first[picked], second[picked]
                    distance = np.bitwise_count(asked[first] ^ hashes[second])
                    for place in np.flatnonzero(distance <= bits):
                        pair = int(first[place]), int(second[place])
                        found = int(distance[place]), way
                        if pair not in best and len(best) >= MAX_PAIRS:
                            continue
                        best[pair] = min(best.get(pair, found), found)
    for (one, other), (distance_, way_) in sorted(best.items()):
        yield one, other, distance_, TURNS[way_]


def _quarter(hashes: UInt64[np.ndarray, " n"], chunk: int) -> np.ndarray:
    return ((hashes >> np.uint64(chunk * CHUNK_BITS)) & np.uint64(0xFFFF)).astype(np.int64)


def _meeting(starts: np.ndarray, order: np.ndarray, own: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places that ask and the places in the table that have what they ask for, in batches."""
    low = starts[own]
    counts = starts[own + 1] - low
    asking = np.flatnonzero(counts)
    ends = np.cumsum(counts[asking])
    start = 0
    while start < len(asking):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BATCH, "right")))
        some = asking[start:stop]
        first = np.repeat(some, counts[some])
        ahead = np.arange(len(first)) - np.repeat(np.cumsum(counts[some]) - counts[some], counts[some])
        yield first, order[np.repeat(low[some], counts[some]) + ahead]
        start = stop
