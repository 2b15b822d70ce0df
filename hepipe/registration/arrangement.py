"""How the pieces of two sections lie on each other under one rigid placement, found from their outlines alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from hepipe.geometry import apply_affine, scaling, translation
from hepipe.tissue.pieces import spread_pieces

POINTS = 800
"""Px of tissue looked at per picture, spread evenly over its pieces."""
LARGEST = 8
"""Pieces of each picture whose middles are laid on each other."""
STEP_DEG = 6.0
LIKE_AREAS = 0.4
"""Least ratio of the areas of two pieces laid on each other; stain and threshold change an area, and tears do."""
SCALES = (0.6, 1.6)
"""Sizes of the IHC against the H&E where a pixel size is unknown."""
COARSE_FRAC, FINE_FRAC = 0.015, 0.006
"""A px this near to a piece lies on it, share of the longer side: for ranking placements and for settling one."""
TRIED, KEPT = 24, 8
FIRST_FRAC, LAST_STEP = 0.02, 1 / 8
"""The first step of settling, share of the longer side, and the last as a share of the first."""
APART_DEG, APART_FRAC = 15.0, 0.05
LINKED = 0.25
"""Two pieces belong together when this share of either lies on the other."""


@dataclass(frozen=True)
class Overlap:
    """Shares of pieces that lie on pieces of the other picture, 0 to 1, and their areas in px.

    Attributes:
        he_on_ihc: Of each H&E piece on each IHC piece.
        ihc_on_he: Of each IHC piece (column) on each H&E piece (row).
    """

    he_on_ihc: Float[np.ndarray, "nh ni"]
    ihc_on_he: Float[np.ndarray, "nh ni"]
    he_px: Float[np.ndarray, " nh"]
    ihc_px: Float[np.ndarray, " ni"]

    @property
    def he_share(self) -> Float[np.ndarray, " nh"]:
        """Of each H&E piece on any IHC piece."""
        share: np.ndarray = np.minimum(self.he_on_ihc.sum(axis=1), 1.0)
        return share

    @property
    def ihc_share(self) -> Float[np.ndarray, " ni"]:
        """Of each IHC piece on any H&E piece."""
        share: np.ndarray = np.minimum(self.ihc_on_he.sum(axis=0), 1.0)
        return share

    def groups(self) -> list[tuple[Int64[np.ndarray, " gh"], Int64[np.ndarray, " gi"]]]:
        """Pieces that lie on each other, directly or through others: a torn piece and its parts are one group."""
        rows, columns = _joined(self.he_on_ihc[None], self.ihc_on_he[None])
        firsts = [first for first in np.flatnonzero(rows[0].any(axis=1)) if rows[0, first].argmax() == first]
        return [(np.flatnonzero(rows[0, first]), np.flatnonzero(columns[0, first])) for first in firsts]

    @property
    def score(self) -> float:
        """Share of all tissue that is in groups, each by the square of its less covered side: 1 when outlines agree.

        By the less covered side, since small pieces lie well on a large strange one; squared, so that a good fit of
        some pieces counts more than a poor one of more tissue.
        """
        return float(_scores(self.he_on_ihc[None], self.ihc_on_he[None], self.he_px, self.ihc_px)[0])


@dataclass(frozen=True)
class Arrangement:
    """A rigid, perhaps mirrored, placement and what it lays on what."""

    ihc_from_he: Float[np.ndarray, "3 3"]
    overlap: Overlap


def arrangements(
    he: UInt8[np.ndarray, "h w"], ihc: UInt8[np.ndarray, "ih iw"], *, free_scale: bool = False
) -> list[Arrangement]:
    """The best placements of numbered pieces on numbered pieces of one resolution, best first, each unlike the others.

    Each larger piece is laid on each that is like it in area, all tissue on all tissue, turned in steps, mirrored too;
    with `free_scale` also sized by the areas of the two, within `SCALES`.
    """
    if not he.any() or not ihc.any():
        return []
    table = _Table(he, ihc)
    starts = _starts(table, free_scale=free_scale)
    ranks = table.rank(starts)
    tried: list[np.ndarray] = []
    for index in np.argsort(-ranks, kind="stable"):
        if len(tried) == TRIED:
            break
        if all(_differ(starts[index], other, table) for other in tried):
            tried.append(starts[index])
    settled = sorted(table.settle(np.stack(tried)), key=lambda one: -one.overlap.score)
    kept: list[Arrangement] = []
    for one in settled:
        if len(kept) < KEPT and all(_differ(one.ihc_from_he, other.ihc_from_he, table) for other in kept):
            kept.append(one)
    return kept


def outline_likeness(he: Bool[np.ndarray, "h w"], ihc: Bool[np.ndarray, "ih iw"]) -> float:
    """How well two outlines fit on each other at best, turned and mirrored; 0 to 1."""
    best = arrangements(_cut_out(he), _cut_out(ihc))
    return best[0].overlap.score if best else 0.0


def _cut_out(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "ch cw"]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return mask.astype(np.uint8)
    return np.ascontiguousarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], np.uint8)


class _Picture:
    """Points of tissue of one picture with their numbers, and which piece is near to any place on it."""

    def __init__(self, labels: UInt8[np.ndarray, "h w"], *, longest: int) -> None:
        self.areas = np.bincount(labels.ravel(), minlength=int(labels.max()) + 1)[1:].astype(np.float64)
        rows, columns = np.nonzero(labels)
        # Pieces one after the other, so that an even step takes its share of each, and at least some of each.
        order = np.argsort(labels[rows, columns], kind="stable")
        taken = [
            part[np.unique(np.linspace(0, len(part) - 1, _quota(len(part), len(order))).astype(np.int64))]
            for part in np.split(order, np.cumsum(self.areas[:-1]).astype(np.int64))
            if len(part)
        ]
        kept = np.concatenate(taken)
        self.points = np.stack([columns[kept], rows[kept]], axis=1) + 0.5
        self.numbers = labels[rows[kept], columns[kept]].astype(np.int64) - 1
        # A person may have taken pieces out: their numbers stay, without px.
        self.counts = np.maximum(np.bincount(self.numbers, minlength=len(self.areas)), 1)
        self.weights = (self.areas / self.counts)[self.numbers]
        self.middles = (
            np.stack(
                [np.bincount(self.numbers, self.points[:, axis], minlength=len(self.areas)) for axis in range(2)],
                axis=1,
            )
            / np.bincount(self.numbers, minlength=len(self.areas))[:, None]
        )
        self.middle = (self.weights @ self.points) / self.weights.sum()
        self.near = {
            reach: np.pad(spread_pieces(labels, reach_px=reach * longest), 1) for reach in (COARSE_FRAC, FINE_FRAC)
        }

    def at(self, x: Float[np.ndarray, "p n"], y: Float[np.ndarray, "p n"], reach: float) -> UInt8[np.ndarray, "p n"]:
        """Number of the piece at or near each place, from 1; 0 on glass."""
        near = self.near[reach]
        # The map has a rim of glass, where all places beyond it are looked up.
        column = np.clip(x + 1, 0, near.shape[1] - 1).astype(np.int64)
        row = np.clip(y + 1, 0, near.shape[0] - 1).astype(np.int64)
        found: np.ndarray = near.ravel()[row * near.shape[1] + column]
        return found


def _quota(px: int, of: int) -> int:
    return min(px, max(24, round(POINTS * px / of)))


class _Table:
    """Both pictures, and what placements lay on what."""

    def __init__(self, he: UInt8[np.ndarray, "h w"], ihc: UInt8[np.ndarray, "ih iw"]) -> None:
        self.longest = max(*he.shape, *ihc.shape)
        self.he = _Picture(he, longest=self.longest)
        self.ihc = _Picture(ihc, longest=self.longest)

    def overlaps(
        self, placements: Float[np.ndarray, "p 3 3"], reach: float
    ) -> tuple[Float[np.ndarray, "p nh ni"], Float[np.ndarray, "p nh ni"]]:
        """Of each placement `ihc_from_he`: shares of H&E pieces on IHC pieces, and of IHC pieces on H&E pieces."""
        backward = np.linalg.inv(placements)
        forward = _shares(self.he, self.ihc, placements, reach)
        return forward, _shares(self.ihc, self.he, backward, reach).transpose(0, 2, 1)

    def rank(self, placements: Float[np.ndarray, "p 3 3"]) -> Float[np.ndarray, " p"]:
        """A quick stand-in for the score of each: each pair of pieces by its less covered side."""
        ranks = []
        for some in np.array_split(placements, max(1, len(placements) // 64)):
            he_on_ihc, ihc_on_he = self.overlaps(some, COARSE_FRAC)
            areas = he_on_ihc * self.he.areas[:, None] + ihc_on_he * self.ihc.areas
            ranks.append((areas * np.minimum(he_on_ihc, ihc_on_he)).sum(axis=(1, 2)))
        return np.concatenate(ranks)

    def settle(self, starts: Float[np.ndarray, "p 3 3"]) -> list[Arrangement]:
        """The placement near to each start that scores best: the best of six steps, halved when none helps."""
        placements = starts.copy()
        scores = self._score(placements)
        sizes = np.ones(len(starts))
        moves = np.array([(dx, dy, turn) for axis in np.eye(3) for dx, dy, turn in (axis, -axis)])
        moves *= (FIRST_FRAC * self.longest, FIRST_FRAC * self.longest, STEP_DEG / 2)
        while (sizes >= LAST_STEP).any():
            active = np.flatnonzero(sizes >= LAST_STEP)
            tried = np.stack([self._nudge(placements[one], move * sizes[one]) for one in active for move in moves])
            after = self._score(tried).reshape(len(active), len(moves))
            best = after.argmax(axis=1)
            better = after.max(axis=1) > scores[active]
            moved = active[better]
            placements[moved] = tried.reshape(len(active), len(moves), 3, 3)[better, best[better]]
            scores[moved] = after.max(axis=1)[better]
            sizes[active[~better]] /= 2
        return [Arrangement(placement, self.overlap(placement)) for placement in placements]

    def _score(self, placements: Float[np.ndarray, "p 3 3"]) -> Float[np.ndarray, " p"]:
        return _scores(*self.overlaps(placements, FINE_FRAC), self.he.areas, self.ihc.areas)

    def overlap(self, placement: Float[np.ndarray, "3 3"]) -> Overlap:
        """What one placement lays on what."""
        he_on_ihc, ihc_on_he = self.overlaps(placement[None], FINE_FRAC)
        return Overlap(he_on_ihc[0], ihc_on_he[0], self.he.areas, self.ihc.areas)

    def _nudge(self, placement: Float[np.ndarray, "3 3"], move: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
        """Shifted by move's x and y px, turned by its degrees about the middle of the tissue."""
        x, y = apply_affine(placement, self.he.middle[None])[0]
        dx, dy, deg = move
        moved: np.ndarray = translation(x + dx, y + dy) @ _turn(deg) @ translation(-x, -y) @ placement
        return moved


def _joined(
    he_on_ihc: Float[np.ndarray, "p nh ni"], ihc_on_he: Float[np.ndarray, "p nh ni"]
) -> tuple[Bool[np.ndarray, "p nh nh"], Bool[np.ndarray, "p nh ni"]]:
    """For each H&E piece the H&E and the IHC pieces of its group; none where nothing lies on it."""
    linked = ((he_on_ihc >= LINKED) | (ihc_on_he >= LINKED)).astype(np.float32)
    rows = (linked @ linked.transpose(0, 2, 1)) > 0
    while True:
        grown = (rows.astype(np.float32) @ rows) > 0
        if (grown == rows).all():
            return rows, (rows.astype(np.float32) @ linked) > 0
        rows = grown


def _scores(
    he_on_ihc: Float[np.ndarray, "p nh ni"],
    ihc_on_he: Float[np.ndarray, "p nh ni"],
    he_px: Float[np.ndarray, " nh"],
    ihc_px: Float[np.ndarray, " ni"],
) -> Float[np.ndarray, " p"]:
    """`Overlap.score` of each of p placements."""
    rows, columns = _joined(he_on_ihc, ihc_on_he)
    he, ihc = rows @ he_px, columns @ ihc_px
    covered = (np.minimum(columns @ he_on_ihc.transpose(0, 2, 1), 1) * rows) @ he_px / np.maximum(he, 1)
    lying = (np.minimum(rows @ ihc_on_he, 1) * columns) @ ihc_px / np.maximum(ihc, 1)
    # Each group is met once for each of its H&E pieces.
    share = he_px / np.maximum(he, 1)
    total = (np.minimum(covered, lying) ** 2 * (he + ihc) * share).sum(axis=1)
    scores: np.ndarray = total / max(float(he_px.sum() + ihc_px.sum()), 1.0)
    return scores


def _shares(
    source: _Picture, target: _Picture, placements: Float[np.ndarray, "p 3 3"], reach: float
) -> Float[np.ndarray, "p ns nt"]:
    x, y = (
        np.outer(placements[:, row, 0], source.points[:, 0])
        + np.outer(placements[:, row, 1], source.points[:, 1])
        + placements[:, row, 2:]
        for row in range(2)
    )
    hit = target.at(x, y, reach)
    n_source, n_target = len(source.areas), len(target.areas)
    place = (np.arange(len(placements))[:, None] * n_source + source.numbers) * (n_target + 1) + hit
    counts = np.bincount(place.ravel(), minlength=len(placements) * n_source * (n_target + 1))
    counts = counts.reshape(len(placements), n_source, n_target + 1)
    found: np.ndarray = counts[..., 1:] / source.counts[:, None]
    return found


def _starts(table: _Table, *, free_scale: bool) -> Float[np.ndarray, "p 3 3"]:
    """Placements that lay a middle on a middle, in all turns."""
    he, ihc = table.he, table.ihc
    pairs = [(he.middle, ihc.middle, float(ihc.areas.sum() / he.areas.sum()))]
    least = min(SCALES[0] ** 2, 1 / SCALES[1] ** 2) * LIKE_AREAS if free_scale else LIKE_AREAS
    for i, j in itertools.product(range(min(LARGEST, len(he.areas))), range(min(LARGEST, len(ihc.areas)))):
        smaller, larger = sorted((he.areas[i], ihc.areas[j]))
        if larger > 0 and smaller >= least * larger:
            pairs.append((he.middles[i], ihc.middles[j], float(ihc.areas[j] / max(he.areas[i], 1))))
    turns = [_turn(float(deg)) @ flip for flip in (np.eye(3), np.diag([-1.0, 1.0, 1.0])) for deg in _angles()]
    sizes = [float(np.clip(math.sqrt(ratio), *SCALES)) if free_scale else 1.0 for _, _, ratio in pairs]
    return np.stack(
        [
            translation(*on) @ scaling(size) @ turn @ translation(*-middle)
            for (middle, on, _), size in zip(pairs, sizes, strict=True)
            for turn in turns
        ]
    )


def _angles() -> Float[np.ndarray, " n"]:
    return np.arange(0.0, 360.0, STEP_DEG)


def _turn(deg: float) -> Float[np.ndarray, "3 3"]:
    angle = math.radians(deg)
    return np.array(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )


def _differ(one: Float[np.ndarray, "3 3"], other: Float[np.ndarray, "3 3"], table: _Table) -> bool:
    relative = one[:2, :2] @ other[:2, :2].T
    if np.linalg.det(relative) < 0:
        return True
    if abs(math.degrees(math.atan2(relative[1, 0], relative[0, 0]))) >= APART_DEG:
        return True
    here, there = (apply_affine(matrix, table.he.middle[None])[0] for matrix in (one, other))
    return bool(np.hypot(*(here - there)) >= APART_FRAC * table.longest)
