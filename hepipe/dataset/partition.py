"""The search for the best division of patients into groups: every one when few, else from whole neighbourhoods.

All that is compared are sums of integers and one rounded float made of them, so that the answer is the same on every
machine; what bounds the work is a number of divisions, never time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

EXACT_PATIENTS = 12
"""Up to this many free patients every division is looked at, of folds 4,213,597 at most (Bell's number of 12)."""
NODE_LIMIT = 6_000_000
"""Divisions that are looked at; every one while they are no more than this: 14 patients for three splits."""
NEIGHBOURS = 60_000
"""Divisions of one neighbourhood: the patients that are free in it number log(this) / log(groups)."""
STALE = 40
"""Neighbourhoods in a row without a better division after which the search ends."""
WINDOW = 0.01
"""Divisions whose every share is this near to the wanted one are as good as each other, and DAB decides."""
CHUNK = 1 << 17
"""Partial divisions that are gone on with at once; bounds the memory."""
DAB_UNIT = 1_000_000
"""DAB shares are summed in millionths."""
DAB_DIGITS = 4
"""Means of DAB shares are compared to this many digits: nobody tells 12.34 % from 12.341 %, and shares come next."""


@dataclass(frozen=True)
class Problem:
    """Patients to divide, by number.

    Attributes:
        tiles: Tiles of each patient.
        dab: Sum over a patient's tiles of their DAB share, millionths.
        scores: Bit mask of the scores that each patient holds; 0 for one without tiles.
        wanted: Wanted share of each group; they add up to 1.
        fixed: Group that a patient must go to, or -1.
        n_scores: How many scores there are.
    """

    tiles: Int64[np.ndarray, " n"]
    dab: Int64[np.ndarray, " n"]
    scores: UInt8[np.ndarray, " n"]
    wanted: Float64[np.ndarray, " k"]
    fixed: Int64[np.ndarray, " n"]
    n_scores: int = 4

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self.wanted)

    @property
    def total(self) -> int:
        """Tiles of all patients."""
        return max(1, int(self.tiles.sum()))

    @property
    def free(self) -> list[int]:
        """Patients that may go anywhere."""
        return [int(place) for place in np.flatnonzero(self.fixed < 0)]

    @property
    def alike(self) -> bool:
        """Whether groups can be exchanged: only their order tells two such divisions apart."""
        return bool((self.fixed < 0).all() and (self.wanted == self.wanted[0]).all())


@dataclass
class Sums:
    """What decides about divisions: one row each, one column a group, and the division as a number in base k."""

    tiles: Int64[np.ndarray, "m k"]
    dab: Int64[np.ndarray, "m k"]
    seen: UInt8[np.ndarray, "m k"]
    code: Int64[np.ndarray, " m"]
    used: Int64[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.code)

    def rows(self, picked: np.ndarray | slice) -> Sums:
        """Some of them."""
        return Sums(self.tiles[picked], self.dab[picked], self.seen[picked], self.code[picked], self.used[picked])


@dataclass(frozen=True, order=True)
class Value:
    """How good a division is; the least is the best.

    Attributes:
        missing: (Score, group) pairs without a patient.
        beyond: 0 when every share lies within the window, else the distance.
        dab: Largest gap between a group's mean DAB share and that of all, rounded to 0.0001.
        distance: Root of the summed squared gaps of shares, rounded to 1e-12.
    """

    missing: int
    beyond: float
    dab: float
    distance: float


@dataclass(frozen=True)
class Found:
    """The best division and how far the search went.

    Attributes:
        groups: Group of each patient.
        value: How good it is.
        nodes: Divisions looked at.
        exact: Whether every division was.
    """

    groups: Int64[np.ndarray, " n"]
    value: Value
    nodes: int
    exact: bool


def divide(problem: Problem, start: Int64[np.ndarray, " n"], *, seed: int, node_limit: int = NODE_LIMIT) -> Found:
    """The best division; exact for up to `EXACT_PATIENTS` free patients, and while `node_limit` allows for more.

    Beyond, some patients are set free and all their divisions looked at while the others stay, again and again
    (large neighbourhood search; Shaw, CP 1998), from a start that covers as many scores as can be.

    Args:
        problem: What to divide.
        start: A division to better; its missing pairs are never exceeded.
        seed: Of the neighbourhoods.
        node_limit: Divisions looked at in all.
    """
    free = problem.free
    if len(free) <= EXACT_PATIENTS or problem.groups ** len(free) <= node_limit:
        groups, value, nodes = _best(problem, start, free, alike=problem.alike)
        return Found(groups, value, nodes, True)
    size = max(2, int(np.log(NEIGHBOURS) / np.log(max(2, problem.groups))))
    groups, value, nodes = _best(problem, start, free[:1], alike=False)
    stale = turn = 0
    while nodes < node_limit and stale < STALE:
        places = _neighbourhood(problem, free, size, seed=seed, turn=turn)
        other, its, seen = _best(problem, groups, places, alike=False)
        nodes, turn, stale = nodes + seen, turn + 1, stale + 1
        if its < value:
            groups, value, stale = other, its, 0
    return Found(groups, value, nodes, False)


def _neighbourhood(problem: Problem, free: Sequence[int], size: int, *, seed: int, turn: int) -> list[int]:
    """Patients to set free: drawn from all, and every other time from the larger half."""
    pool = list(free)
    if turn % 2:
        pool = sorted(pool, key=lambda place: (-int(problem.tiles[place]), place))[: max(size, len(pool) // 2)]
    # Not a generator of numpy's, whose streams may change with its version.
    pool.sort(key=lambda place: hashlib.sha256(f"{seed}/{turn}/{place}".encode()).digest())
    return sorted(pool[:size])


def _best(
    problem: Problem, groups: Int64[np.ndarray, " n"], places: Sequence[int], *, alike: bool
) -> tuple[Int64[np.ndarray, " n"], Value, int]:
    """The best division when the patients at `places` are free; of equals the first by base-k number."""
    base = groups.copy()
    base[list(places)] = -1
    best: tuple[Value, int] | None = None
    nodes = 0
    for sums in _leaves(problem, sums_of(problem, base), list(places), alike=alike):
        nodes += len(sums)
        value, row = _least(problem, sums)
        found = (value, int(sums.code[row]))
        if best is None or found < best:
            best = found
    assert best is not None
    chosen, code = base.copy(), best[1]
    for place in reversed(list(places)):
        code, chosen[place] = divmod(code, problem.groups)
    return chosen, best[0], nodes


def sums_of(problem: Problem, groups: Int64[np.ndarray, " n"]) -> Sums:
    """The one row of a division; patients of group -1 are in none."""
    tiles, dab = (np.zeros((1, problem.groups), np.int64) for _ in range(2))
    seen = np.zeros((1, problem.groups), np.uint8)
    for number in range(problem.groups):
        inside = groups == number
        tiles[0, number], dab[0, number] = problem.tiles[inside].sum(), problem.dab[inside].sum()
        seen[0, number] = np.bitwise_or.reduce(problem.scores[inside], initial=0)
    return Sums(tiles, dab, seen, np.zeros(1, np.int64), np.zeros(1, np.int64))


def _leaves(problem: Problem, sums: Sums, places: list[int], *, alike: bool) -> Iterator[Sums]:
    """Sums of every division of the patients at `places`, in pieces; of those that only exchange groups one alone."""
    if not places:
        yield sums
        return
    if len(sums) * problem.groups > CHUNK:
        half = len(sums) // 2
        for part in (slice(None, half), slice(half, None)):
            yield from _leaves(problem, sums.rows(part), places, alike=alike)
        return
    yield from _leaves(problem, grown(problem, sums, places[0], alike=alike), places[1:], alike=alike)


def grown(problem: Problem, sums: Sums, place: int, *, alike: bool) -> Sums:
    """Every row with a further patient in each group; with `alike` no group before those below it are in use."""
    parts = []
    for number in range(problem.groups):
        part = sums.rows(np.flatnonzero(sums.used >= number) if alike else np.arange(len(sums)))
        part.tiles[:, number] += problem.tiles[place]
        part.dab[:, number] += problem.dab[place]
        part.seen[:, number] |= problem.scores[place]
        part.code = part.code * problem.groups + number
        part.used = np.maximum(part.used, number + 1)
        parts.append(part)
    columns = zip(*((part.tiles, part.dab, part.seen, part.code, part.used) for part in parts), strict=True)
    return Sums(*(np.concatenate(column) for column in columns))


def missing_pairs(problem: Problem, seen: UInt8[np.ndarray, "m k"]) -> Int64[np.ndarray, " m"]:
    """(Score, group) pairs without a patient, of the scores that somebody holds."""
    held = int(np.bitwise_or.reduce(problem.scores, initial=0))
    covered = np.bitwise_count(seen & np.uint8(held)).astype(np.int64)
    missing: np.ndarray = held.bit_count() * problem.groups - covered.sum(1)
    return missing


def _least(problem: Problem, sums: Sums) -> tuple[Value, int]:
    """The best row; of equals the first by number. Float columns are added one after the other: same sum anywhere."""
    missing = missing_pairs(problem, sums.seen)
    rows = np.flatnonzero(missing == missing.min())
    tiles, dab = sums.tiles[rows], sums.dab[rows]
    mean = problem.dab.sum() / problem.total
    squares, worst, apart = (np.zeros(len(rows)) for _ in range(3))
    for number in range(problem.groups):
        gap = tiles[:, number] / problem.total - problem.wanted[number]
        squares += gap * gap
        worst = np.maximum(worst, np.abs(gap))
        own = np.abs(dab[:, number] / np.maximum(tiles[:, number], 1) - mean) / DAB_UNIT
        apart = np.maximum(apart, np.where(tiles[:, number] > 0, own, 0))
    distance, apart = np.round(np.sqrt(squares), 12), np.round(apart, DAB_DIGITS)
    beyond = np.where(worst <= WINDOW + 1e-12, 0, distance)
    at = np.arange(len(rows))
    for column in (beyond, apart, distance):
        at = at[column[at] == column[at].min()]
    first = at[np.argmin(sums.code[rows[at]])]
    value = Value(int(missing[rows[first]]), float(beyond[first]), float(apart[first]), float(distance[first]))
    return value, int(rows[first])


def valued(problem: Problem, groups: Int64[np.ndarray, " n"]) -> Value:
    """How good a division is."""
    return _least(problem, sums_of(problem, groups))[0]
