"""What no division of patients can better: the fewest (score, group) pairs without a patient, the nearest shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from hepipe.dataset.partition import Problem, Sums, grown, sums_of

COVER_NODES = 200_000
"""States that the search for coverage may look at."""
SHARE_NODES = 3_000_000
"""Partial divisions that the search for the nearest shares may look at."""
COUNTED = (2, 4, 6, 9, 12, 16, 24)
"""Numbers of patients left to place at which their number in each group is bounded too: it costs more."""
TOLERANCE = 0.001
"""Distance within which the search aims to show a division best."""


@dataclass(frozen=True)
class Cover:
    """A division with few missing pairs.

    Attributes:
        groups: Group of each patient; every patient has one.
        missing: (Score, group) pairs without a patient.
        bound: No division has fewer; as `missing`, unless the search met its limit.
    """

    groups: Int64[np.ndarray, " n"]
    missing: int
    bound: int


def cover(problem: Problem) -> Cover:
    """As many (score, group) pairs with a patient as there can be.

    Patients of one score are told by counting: c groups that hold a score and m such patients make min(k, c + m).
    Those of several are placed by depth first search over what the groups hold, which groups being no matter.
    """
    groups = problem.fixed.copy()
    state = tuple(
        int(np.bitwise_or.reduce(problem.scores[problem.fixed == number], initial=0))
        for number in range(problem.groups)
    )
    free = [place for place in problem.free if problem.scores[place]]
    several = [place for place in free if int(problem.scores[place]).bit_count() > 1]
    alone = [sum(int(problem.scores[place]) == 1 << bit for place in free) for bit in range(problem.n_scores)]
    # Of patients with the same scores more than there are groups find nothing left to cover.
    by_scores: dict[int, list[int]] = {}
    for place in several:
        by_scores.setdefault(int(problem.scores[place]), []).append(place)
    order = [place for scores in sorted(by_scores) for place in by_scores[scores][: problem.groups]]
    search = _CoverSearch([int(problem.scores[place]) for place in order], alone, problem.groups)
    search.look(0, state, ())
    for place, number in zip(order, search.choice, strict=True):
        groups[place] = number
    _place_rest(problem, groups)
    held = int(np.bitwise_or.reduce(problem.scores, initial=0)).bit_count() * problem.groups
    bound = held - (search.covered if search.nodes < COVER_NODES else search.most)
    return Cover(groups, held - search.covered, bound)


@dataclass
class _CoverSearch:
    """Depth first over patients with several scores.

    Attributes:
        scores: Bit mask of each patient.
        alone: Patients of that score alone, by score.
        groups: How many there are.
        covered: (Score, group) pairs of the best choice so far.
        choice: Group of each patient then.
        most: What no choice can exceed.
        nodes: States looked at.
    """

    scores: Sequence[int]
    alone: Sequence[int]
    groups: int
    covered: int = -1
    choice: tuple[int, ...] = ()
    most: int = -1
    nodes: int = 0
    _known: set[tuple[int, tuple[int, ...]]] = field(default_factory=set)

    def look(self, depth: int, state: tuple[int, ...], choice: tuple[int, ...]) -> None:
        """Go on from a state: what each group holds after `depth` patients."""
        most = self._most(depth, state)
        self.most = max(self.most, most) if depth == 0 else self.most
        key = (depth, tuple(sorted(state)))
        if most <= self.covered or key in self._known or self.nodes >= COVER_NODES:
            return
        self._known.add(key)
        self.nodes += 1
        if depth == len(self.scores):
            self.covered, self.choice = most, choice
            return
        own = self.scores[depth]
        # Groups that hold the same are the same to a patient.
        places = {held: number for number, held in reversed(list(enumerate(state)))}
        for held in sorted(places, key=lambda one: (-(own & ~one).bit_count(), places[one])):
            number = places[held]
            self.look(depth + 1, (*state[:number], held | own, *state[number + 1 :]), (*choice, number))

    def _most(self, depth: int, state: Sequence[int]) -> int:
        """Pairs covered at the end if every further patient covered new ones of each of its scores."""
        total = 0
        for bit, alone in enumerate(self.alone):
            now = sum(held >> bit & 1 for held in state)
            later = alone + sum(scores >> bit & 1 for scores in self.scores[depth:])
            total += min(self.groups, now + later)
        return total


def _place_rest(problem: Problem, groups: Int64[np.ndarray, " n"]) -> None:
    """Patients of one score to groups that lack it, all others, largest first, to the group that lacks most tiles."""
    for bit in range(problem.n_scores):
        holds = (problem.scores >> bit & 1) > 0
        lacking = [number for number in range(problem.groups) if not (holds & (groups == number)).any()]
        alone = [int(place) for place in np.flatnonzero((problem.scores == 1 << bit) & (groups < 0))]
        for place, number in zip(alone, lacking, strict=False):
            groups[place] = number
    lacks = problem.wanted * problem.total
    for number in range(problem.groups):
        lacks[number] -= int(problem.tiles[groups == number].sum())
    left = [int(place) for place in np.flatnonzero(groups < 0)]
    for place in sorted(left, key=lambda one: (-int(problem.tiles[one]), one)):
        number = int(np.argmax(lacks))
        groups[place] = number
        lacks[number] -= int(problem.tiles[place])


@dataclass(frozen=True)
class Nearest:
    """What the search for the nearest shares found.

    Attributes:
        bound: No division with as few missing pairs has a smaller distance.
        groups: A division that betters the known distance by more than the tolerance; None when none was found.
        nodes: Partial divisions looked at.
    """

    bound: float
    groups: Int64[np.ndarray, " n"] | None
    nodes: int


def nearest_shares(problem: Problem, *, missing: int, known: float, node_limit: int = SHARE_NODES) -> Nearest:
    """A distance of shares that no division can go below, and perhaps a division that betters the known one.

    Patients are placed largest first in all groups at once, as branch and bound goes, breadth first; what is left to
    place counts as a fluid that levels the gaps. Rows whose bound is within the tolerance of the known distance are
    closed, equal rows are one, and of too many rows those with the least bounds are gone on with.

    Args:
        problem: What to divide.
        missing: Pairs that may go without a patient.
        known: Distance of the best division known.
        node_limit: Rows looked at in all.
    """
    order = sorted(problem.free, key=lambda place: (-int(problem.tiles[place]), int(problem.scores[place]), place))
    rows = sums_of(problem, problem.fixed)
    beam = max(200, node_limit // max(1, len(order) * problem.groups))
    free = problem.tiles[np.array(order, np.int64)]
    needed = _needed(problem, rows.seen, order, missing)
    root = float(max(levelled(problem, rows.tiles + needed)[0], _counted(problem, rows.tiles, free)[0]))
    closed, nodes = known, 0
    trail: list[tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]] = []
    for depth, place in enumerate(order):
        rows.code = np.arange(len(rows))
        rows = grown(problem, rows, place, alike=problem.alike)
        nodes += len(rows)
        later = order[depth + 1 :]
        distance = levelled(problem, rows.tiles + _needed(problem, rows.seen, later, missing))
        picked = np.flatnonzero(_completable(problem, rows.seen, later, missing))
        closed = min(closed, float(distance[picked][distance[picked] >= known - TOLERANCE].min(initial=np.inf)))
        picked = picked[distance[picked] < known - TOLERANCE]
        picked = picked[_distinct(rows.rows(picked), alike=problem.alike)]
        if len(later) in COUNTED:
            distance[picked] = np.maximum(
                distance[picked], _counted(problem, rows.tiles[picked], problem.tiles[np.array(later, np.int64)])
            )
            closed = min(closed, float(distance[picked][distance[picked] >= known - TOLERANCE].min(initial=np.inf)))
            picked = picked[distance[picked] < known - TOLERANCE]
        if len(picked) > beam:
            ranked = picked[np.argsort(distance[picked], kind="stable")]
            closed = min(closed, float(distance[ranked[beam]]))
            picked = np.sort(ranked[:beam])
        parent, group = np.divmod(rows.code[picked], problem.groups)
        trail.append((parent, group))
        rows = rows.rows(picked)
        if not len(rows):
            return Nearest(max(root, closed), None, nodes)
    distance = levelled(problem, rows.tiles)
    row = int(np.argmin(distance))
    bound, groups = max(root, min(closed, float(distance[row]))), problem.fixed.copy()
    for place, (parent, group) in zip(reversed(order), reversed(trail), strict=True):
        groups[place], row = int(group[row]), int(parent[row])
    return Nearest(bound, groups, nodes)


def _completable(problem: Problem, seen: UInt8[np.ndarray, "m k"], later: Sequence[int], missing: int) -> np.ndarray:
    """Which rows can still come to no more than `missing` missing pairs."""
    lacking = np.zeros(len(seen), np.int64)
    for bit in range(problem.n_scores):
        holders = problem.scores >> bit & 1
        if holders.any():
            now = (seen >> bit & 1).sum(1, dtype=np.int64)
            lacking += problem.groups - np.minimum(problem.groups, now + int(holders[list(later)].sum()))
    return lacking <= missing


def _needed(
    problem: Problem, seen: UInt8[np.ndarray, "m k"], later: Sequence[int], missing: int
) -> Int64[np.ndarray, "m k"]:
    """Tiles that a group will get at least, since it lacks scores that nobody may miss: the smallest patients'."""
    if missing or not later:
        return np.zeros(seen.shape, np.int64)
    held = np.bitwise_or.reduce(problem.scores, initial=0)
    most = max(1, int(np.bitwise_count(problem.scores[list(later)]).max()))
    patients = -(-np.bitwise_count(held & ~seen).astype(np.int64) // most)
    smallest = np.concatenate([[0], np.cumsum(np.sort(problem.tiles[list(later)]))])
    needed: np.ndarray = smallest[np.minimum(patients, len(later))]
    return needed


def levelled(problem: Problem, tiles: Int64[np.ndarray, "m k"]) -> Float64[np.ndarray, " m"]:
    """Distance when the tiles that are left could be poured: the lowest groups rise to one level (water-filling)."""
    gaps = np.sort(tiles / problem.total - problem.wanted, axis=1)
    level = np.full(len(gaps), np.inf)
    above = np.zeros(len(gaps))
    for count in range(problem.groups, 0, -1):
        # `count` groups at one level, those above it as they are; the gaps add up to 0 in the end.
        own = -above / count
        fits = own >= gaps[:, count - 1] - 1e-15
        level = np.where(fits & np.isinf(level), own, level)
        above = above + gaps[:, count - 1]
    squares = np.zeros(len(gaps))
    for column in range(problem.groups):
        gap = np.maximum(gaps[:, column], level)
        squares += gap * gap
    return np.sqrt(squares)


def _counted(
    problem: Problem, tiles: Int64[np.ndarray, "m k"], later: Int64[np.ndarray, " r"]
) -> Float64[np.ndarray, " m"]:
    """Distance when a group with c of the patients left may have any tiles from their c smallest to their c largest.

    The fluid bound knows nothing of patients of nearly the same size, who cannot be cut. Counts add up to the patients
    that are left: a shortest path over groups.
    """
    steps = np.sort(later)
    low = np.concatenate([[0], np.cumsum(steps)])
    high = np.concatenate([[0], np.cumsum(steps[::-1])])
    found = np.empty(len(tiles))
    size = max(1, 4_000_000 // len(low) ** 2)
    for start in range(0, len(tiles), size):
        part = tiles[start : start + size]
        squares: np.ndarray | None = None
        for number in range(problem.groups):
            lacks = (problem.wanted[number] * problem.total - part[:, number])[:, None]
            gap = np.maximum(np.maximum(low[None] - lacks, lacks - high[None]), 0) / problem.total
            own = gap * gap
            squares = own if squares is None else _least_sums(squares, own)
        assert squares is not None
        found[start : start + size] = np.sqrt(squares[:, -1])
    # A little less, as the sums above are rounded.
    return np.maximum(found - 1e-12, 0)


def _least_sums(first: Float64[np.ndarray, "m c"], second: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, "m c"]:
    """For each count the least sum of the two at counts that add up to it."""
    sums = np.full_like(first, np.inf)
    for count in range(first.shape[1]):
        sums[:, count:] = np.minimum(sums[:, count:], first[:, count : count + 1] + second[:, : first.shape[1] - count])
    return sums


def _distinct(rows: Sums, *, alike: bool) -> np.ndarray:
    """The first of rows with the same tiles and scores in each group; groups in any order where they are alike."""
    if not len(rows):
        return np.zeros(0, np.int64)
    keys = rows.tiles * 256 + rows.seen
    if alike:
        keys = np.sort(keys, axis=1)
    order = np.lexsort(keys.T)
    ordered = keys[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(1)])
    return np.sort(order[new])
