"""Pieces of drawn tissue: where they lie, what is where in them, and their nuclei.

A piece has maps on a 4 µm grid over its own rectangle (where tissue, nests, lumens and fat are) and a list of nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from making.pictures import MPP, PICTURES, TONES

from hepipe.synth.noise import Field, blobs, generator
from hepipe.synth.plan import Biology

MAP_UM = 4.0
MAP_PX = round(MAP_UM / MPP)


@dataclass(frozen=True)
class Shape:
    """Where a piece lies on the canvas, µm, and its outline: a wavy ellipse."""

    x: float
    y: float
    radius: float
    aspect: float
    turn: float
    waves: Float[np.ndarray, "n 2"]

    @property
    def reach(self) -> float:
        """From the centre to the farthest point, µm."""
        return self.radius / np.sqrt(self.aspect) * (1 + 1.5 * float(np.linalg.norm(self.waves[:, 0]))) + 20


@dataclass(frozen=True)
class Nuclei:
    """One row a nucleus: centre in px, kind, how dark, which picture of its kind, whether on the IHC, DAB around it."""

    x: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    tone: np.ndarray
    picture: np.ndarray
    kept: np.ndarray
    dab: np.ndarray

    def only(self, chosen: np.ndarray) -> Nuclei:
        return Nuclei(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Piece:
    """A piece of tissue: its rectangle starts at map cell (column, row); maps in µm, positive inside."""

    column: int
    row: int
    tissue: Field
    nest: Field
    hole: Field
    dense: Field
    bend: Float[np.ndarray, "2 h w"]
    complete: Field
    nuclei: Nuclei

    def overlaps(self, x: int, y: int, side: int) -> bool:
        """Whether a square, px, has any of the piece's tissue."""
        c0, r0 = x // MAP_PX - self.column, y // MAP_PX - self.row
        n = -(-side // MAP_PX)
        part = self.tissue[max(r0 - 1, 0) : max(r0 + n + 1, 0), max(c0 - 1, 0) : max(c0 + n + 1, 0)]
        return part.size > 0 and float(part.max()) > -4.0


def draw_shapes(rng: np.random.Generator, side_um: float, *, pieces: int, area: float) -> list[Shape]:
    """Pieces of `area` µm² together, none over another, all away from the canvas's edge."""
    parts = rng.uniform(0.6, 1.4, pieces)
    parts *= area / parts.sum()
    margin = min(0.02 * side_um, 150.0)
    shrink = 1.0
    while True:
        found: list[Shape] = []
        for part in parts:
            for _ in range(300):
                aspect = float(rng.uniform(0.8, 0.95) if part > 0.3 * side_um**2 else rng.uniform(0.45, 0.95))
                amplitudes = 0.06 * rng.normal(0, 1, 6) / np.arange(1, 7) ** 0.7
                shape = Shape(
                    *rng.uniform(0, side_um, 2),
                    radius=float(np.sqrt(part / np.pi)) * shrink,
                    aspect=aspect,
                    turn=float(rng.uniform(0, np.pi)),
                    waves=np.stack([amplitudes, rng.uniform(0, 2 * np.pi, 6)], axis=1),
                )
                room = shape.reach + margin
                fits = room <= shape.x <= side_um - room and room <= shape.y <= side_um - room
                if not fits and pieces == 1 and 2 * shape.radius < 0.9 * side_um:
                    shape = Shape(side_um / 2, side_um / 2, shape.radius, shape.aspect, shape.turn, shape.waves)
                    fits = 2 * room <= 1.08 * side_um
                if fits and all(np.hypot(shape.x - o.x, shape.y - o.y) > shape.reach + o.reach + 30 for o in found):
                    found.append(shape)
                    break
            else:
                break
        if len(found) == pieces:
            return found
        shrink *= 0.96


def draw_piece(
    shape: Shape, side_um: float, bio: Biology, key: tuple[int | str, ...], slice_key: str, lost: float
) -> Piece:
    """Decide where everything in a piece is, and place its nuclei."""
    c0, r0 = (int(max(place - shape.reach, 0) // MAP_UM) for place in (shape.x, shape.y))
    c1, r1 = (int(min(place + shape.reach, side_um) // MAP_UM) + 1 for place in (shape.x, shape.y))
    grid = (r1 - r0, c1 - c0)
    field = _Fields(key, grid, slice_key)
    y, x = np.mgrid[r0:r1, c0:c1].astype(np.float32)
    x, y = (x + np.float32(0.5)) * np.float32(MAP_UM), (y + np.float32(0.5)) * np.float32(MAP_UM)
    dx, dy = x - np.float32(shape.x), y - np.float32(shape.y)
    u = (dx * np.cos(shape.turn) + dy * np.sin(shape.turn)) * np.float32(np.sqrt(shape.aspect))
    v = (-dx * np.sin(shape.turn) + dy * np.cos(shape.turn)) / np.float32(np.sqrt(shape.aspect))
    angle = np.arctan2(v, u)
    outline = np.ones(grid, np.float32)
    for order, (amplitude, phase) in enumerate(shape.waves, start=2):
        outline += np.float32(amplitude) * np.cos(order * angle + np.float32(phase))
    rim = shape.radius * outline - np.hypot(u, v)
    glass = np.minimum.reduce([x, y, side_um - x, side_um - y]) - 40
    tissue = _signed(np.minimum(rim + 14 * field("ragged", 30) + 7 * field("fringe", 12), glass) > 0)

    zone = field("zone", 150) + 0.5
    nest = _signed((field("nests", 34) > -0.1 - 0.1 * bio.grade) & (zone > 0) & (tissue > 15))
    fat_zone = np.minimum((field("fat", 160, turn=0.03) - 0.9) * 60, np.minimum(tissue - 6, -nest - 8))
    lumen = np.minimum(nest - 15, 14 * (field("gland", 30) - 0.1 - 0.25 * bio.grade))
    vessel = np.minimum(12 * (field("vessel", 16) - 2.1), np.minimum(-nest - 6, tissue - 20))
    cleft = np.minimum(1.5 - np.abs(nest + 2), 8 * (field("cleft", 22) - 1.0))
    fat = _fat(generator(*key, "fat-cells"), fat_zone, field("fat-shift", 30))
    hole = np.maximum.reduce([lumen, vessel, cleft, fat])
    nest = np.minimum(nest, -lumen)
    bend = 160 * np.stack([field("bend-x", 110, turn=0.03), field("bend-y", 110, turn=0.03)])
    place = _Placing(generator(*key, "nuclei", slice_key), (c0, r0), grid)
    crowd = field("crowd", 45)
    strength = bio.strength_od * np.clip(1 + 0.3 * field("her2", 120), 0.15, None)
    nuclei = place.all_kinds(tissue, nest, hole, crowd, strength, bio, lost)
    complete = (bio.completeness - 0.55 + 0.12 * field("complete", 70)).astype(np.float32)
    return Piece(c0, r0, tissue, nest, hole, field("dense", 70), bend.astype(np.float32), complete, nuclei)


def _signed(mask: np.ndarray) -> Field:
    """Distance to the mask's border in µm, negative outside."""
    inside = np.minimum(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), 1000)
    outside = np.minimum(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), 1000)
    return np.asarray(cv2.GaussianBlur((inside - outside) * np.float32(MAP_UM), (0, 0), 0.8), np.float32)


class _Fields:
    """Smooth random fields on a piece's grid, µm; a neighbouring section has nearly the same ones."""

    def __init__(self, key: tuple[int | str, ...], shape: tuple[int, int], slice_key: str) -> None:
        self._key, self._shape, self._slice = key, shape, slice_key

    def __call__(self, name: str, sigma_um: float, *, turn: float = 0.1) -> Field:
        field = blobs(generator(*self._key, name), self._shape, sigma_um / MAP_UM)
        if self._slice:
            other = blobs(generator(*self._key, name, self._slice), self._shape, sigma_um / MAP_UM)
            field = np.cos(np.float32(turn)) * field + np.sin(np.float32(turn)) * other
        return field


def _fat(rng: np.random.Generator, zone: Field, shift: Field) -> Field:
    """Round holes of fat cells with thin walls between them."""
    seeds = np.ones(zone.shape, np.uint8)
    step = 56 / MAP_UM
    rows, columns = np.mgrid[0 : zone.shape[0] : step, 0 : zone.shape[1] : step]
    rows = np.clip(rows + rng.normal(0, 0.2 * step, rows.shape) + shift[rows.astype(int), columns.astype(int)], 0, None)
    columns = np.clip(
        columns + rng.normal(0, 0.2 * step, rows.shape) + (np.arange(len(rows)) % 2)[:, None] * step / 2, 0, None
    )
    rows, columns = (
        np.minimum(rows.astype(int), zone.shape[0] - 1),
        np.minimum(columns.astype(int), zone.shape[1] - 1),
    )
    seeds[rows, columns] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    wall = np.zeros(zone.shape, bool)
    wall[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    wall[1:] |= labels[1:] != labels[:-1]
    to_wall = cv2.distanceTransform((~wall).astype(np.uint8), cv2.DIST_L2, 5) * np.float32(MAP_UM)
    return np.asarray(np.minimum(cv2.GaussianBlur(to_wall, (0, 0), 1.0) - 3.5, zone), np.float32)


class _Placing:
    """Nuclei on pushed-about hexagonal lattices: spaced like cells, without a lattice's long order."""

    def __init__(self, rng: np.random.Generator, corner: tuple[int, int], grid: tuple[int, int]) -> None:
        self._rng, self._corner, self._grid = rng, corner, grid
        self._push = [14 * blobs(rng, grid, 60 / MAP_UM) for _ in range(2)]

    def all_kinds(
        self, tissue: Field, nest: Field, hole: Field, crowd: Field, strength: Field, bio: Biology, lost: float
    ) -> Nuclei:
        clear = np.minimum(tissue, -hole)
        spacing = 8.6 + 0.7 * float(np.clip(bio.grade, 0, 3))
        groups = [
            self._lattice(spacing, np.minimum(nest, clear) - 3.5, 0.96),
            self._lattice(16.0, np.minimum(-nest - 2, clear - 2), 0.75),
            self._lattice(7.4, np.minimum.reduce([9 * (crowd - 1.2), -nest + 4, clear - 3]), 0.85),
        ]
        points = np.concatenate(groups)
        kind = np.repeat(np.arange(3), [len(group) for group in groups])
        n = len(points)
        rows, columns = (points[:, 1] / MAP_UM).astype(int), (points[:, 0] / MAP_UM).astype(int)
        stained = self._rng.random(n) < bio.positive
        dab = strength[rows, columns] * np.where(stained, 1, 0.12) * np.exp(0.15 * self._rng.standard_normal(n))
        return Nuclei(
            x=(points[:, 0] + self._corner[0] * MAP_UM) / MPP,
            y=(points[:, 1] + self._corner[1] * MAP_UM) / MPP,
            kind=kind,
            tone=self._rng.integers(0, TONES, n),
            picture=self._rng.integers(0, PICTURES, n),
            kept=self._rng.random(n) >= lost,
            dab=np.where(kind == 0, dab, 0).astype(np.float32),
        )

    def _lattice(self, spacing: float, room: Field, share: float) -> Float[np.ndarray, "n 2"]:
        """Points (x, y) in µm from the piece's corner where `room` is positive."""
        height, width = (cells * MAP_UM for cells in self._grid)
        y, x = np.mgrid[0 : height : spacing * 0.87, 0:width:spacing]
        x = x + (np.arange(len(x)) % 2)[:, None] * spacing / 2
        points = np.stack([x.ravel(), y.ravel()], axis=1) + self._rng.normal(0, 0.16 * spacing, (x.size, 2))
        cell = (np.clip(points / MAP_UM, 0, np.array(self._grid[::-1]) - 1)).astype(int)
        points += np.stack([push[cell[:, 1], cell[:, 0]] for push in self._push], axis=1)
        inside = ((points >= 0) & (points < (width, height))).all(axis=1) & (self._rng.random(len(points)) < share)
        points = points[inside]
        return points[room[(points[:, 1] / MAP_UM).astype(int), (points[:, 0] / MAP_UM).astype(int)] > 0]
