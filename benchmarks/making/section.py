"""Tissue of any extent, drawn block by block at 0.25 µm: what the drawn cases show.

A section is a few pieces. Each has maps on a 4 µm grid over its own rectangle (where tissue, nests, lumens and fat are)
and a list of nuclei; textures are periodic pictures looked up by place. A block follows from its place alone, so it can
be drawn whenever it is needed, and glass costs nothing. Simpler than `hepipe.synth`, which holds whole layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from making.layers import Amounts, as_bytes

from hepipe.synth.noise import Field, blobs, generator, ramp
from hepipe.synth.plan import Biology

MPP = 0.25
MAP_UM = 4.0
MAP_PX = round(MAP_UM / MPP)
PAD_PX = 64
"""Drawn beyond each side of a block, so that what leans over its edge looks the same from either side."""
KINDS = ("tumour", "spindle", "lymphocyte")


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


class Section:
    """One section of a block of tissue; `slice_key` tells neighbouring sections apart: nuclei differ, shapes hardly."""

    def __init__(
        self,
        outline: list[Shape],
        side_um: float,
        bio: Biology,
        key: tuple[int | str, ...],
        *,
        slice_key: str = "",
        lost: float = 0.07,
    ) -> None:
        self._textures = _Textures(generator(*key, "textures", slice_key))
        self._sprites = [_sprites(generator(*key, "sprites", slice_key), kind) for kind in KINDS]
        self.pieces = [
            _piece(shape, side_um, bio, (*key, "piece", number), slice_key, lost)
            for number, shape in enumerate(outline)
        ]

    def blank(self, x: int, y: int, side: int) -> bool:
        """Whether a square, px, is all glass."""
        return not any(piece.overlaps(x, y, side) for piece in self.pieces)

    def tissue(self, side_px: int, grid_um: float) -> Bool[np.ndarray, "h w"]:
        """Where at least half of a cell of a grid over the canvas is tissue, lumens and fat not counted."""
        cells, times = int(np.ceil(side_px * MPP / grid_um)), round(grid_um / MAP_UM)
        found = np.zeros((cells, cells), bool)
        for piece in self.pieces:
            r0, c0 = piece.row // times, piece.column // times
            top, left = piece.row - r0 * times, piece.column - c0 * times
            present = (np.minimum(piece.tissue, -piece.hole) > 0).astype(np.float32)
            rows, columns = (
                -(-(start + side) // times) for start, side in zip((top, left), present.shape, strict=True)
            )
            share = np.zeros((rows * times, columns * times), np.float32)
            share[top : top + present.shape[0], left : left + present.shape[1]] = present
            share = cv2.resize(share, (columns, rows), interpolation=cv2.INTER_AREA)
            place = found[r0 : r0 + rows, c0 : c0 + columns]
            place |= share[: place.shape[0], : place.shape[1]] >= 0.5
        return found

    def draw(self, x: int, y: int, side: int) -> Amounts | None:
        """A square block at left, top, px (multiples of 16); None for glass."""
        drawn = [self._draw(piece, x, y, side) for piece in self.pieces if piece.overlaps(x, y, side)]
        if not drawn:
            return None
        first = drawn[0]
        for more in drawn[1:]:
            np.maximum(first.haematoxylin, more.haematoxylin, out=first.haematoxylin)
            np.maximum(first.eosin, more.eosin, out=first.eosin)
            np.maximum(first.ihc, more.ihc, out=first.ihc)
        return first

    def _draw(self, piece: Piece, x: int, y: int, side: int) -> Amounts:
        x, y, full = x - PAD_PX, y - PAD_PX, side + 2 * PAD_PX
        half = full // 2
        look = self._textures

        def map_of(values: Field, fill: float) -> Field:
            return _zoomed(values, x // MAP_PX - piece.column, y // MAP_PX - piece.row, full // MAP_PX, fill, 2)

        def texture(name: str) -> Field:
            return look.at(name, x // 2, y // 2, half)

        grain, mid = texture("grain"), texture("mid")
        tissue, nest = map_of(piece.tissue, -50), map_of(piece.nest, -50)
        inside = ramp(tissue + 1.2 * mid, 2.0)
        substance = inside * (1 - ramp(map_of(piece.hole, -50) + 0.4 * mid, 1.2))
        epithelium = ramp(nest + 0.6 * mid, 1.5) * substance

        reach = 90
        near = piece.nuclei
        near = near.only(
            (near.x > x - reach) & (near.x < x + full + reach) & (near.y > y - reach) & (near.y < y + full + reach)
        )
        edges, dab = self._membranes(near, x, y, half, epithelium, map_of(piece.complete, 0), grain, mid)
        cytoplasm = epithelium * np.clip(1 + 0.12 * grain + 0.16 * mid, 0.2, None) * (1 + 0.35 * edges)
        bend = [map_of(part, 0) for part in piece.bend]
        fibre, ground = self._stroma(x // 2, y // 2, bend, map_of(piece.dense, 0), substance * (1 - epithelium))

        nuclei, nuclei_ihc = self._stamp(near, x, y, full)
        chromatin = np.clip(1 + 0.2 * look.at("chromatin", x, y, full), 0.4, 1.6) * _double(inside)
        nuclei, nuclei_ihc = nuclei * chromatin, nuclei_ihc * chromatin
        crop = slice(PAD_PX, PAD_PX + side)

        def cut(field: Field) -> Field:
            return field[crop, crop]

        def pale(covering: Field, first: Field) -> Field:
            return cut(_double(first)) * (1 - np.clip(cut(covering), 0, 1))

        blue = 0.125 * cytoplasm + 0.035 * ground
        haematoxylin = 0.95 * cut(nuclei) + pale(nuclei, blue)
        body = 0.2 * cytoplasm + 0.31 * fibre + 0.035 * ground
        covered = np.clip(cut(nuclei), 0, 1)
        eosin = cut(_double(body)) * (1 - 0.45 * covered) + 0.12 * covered
        ihc = np.empty((side, side, 3), np.uint8)
        as_bytes(0.95 * cut(nuclei_ihc) + pale(nuclei_ihc, 0.5 * blue), out=ihc[..., 0])
        as_bytes(cut(_double(body)), out=ihc[..., 1])
        as_bytes(cut(_double(dab)), out=ihc[..., 2])
        return Amounts(haematoxylin, eosin, ihc)

    def _membranes(
        self, near: Nuclei, x: int, y: int, half: int, epithelium: Field, complete: Field, grain: Field, mid: Field
    ) -> tuple[Field, Field]:
        """Borders between epithelial cells (0 to 1), and DAB on them: on the borders of nearest-nucleus cells."""
        owners = near.only(near.kind == 0)
        column, row = (owners.x - x) // 2, (owners.y - y) // 2
        shown = (column >= 0) & (column < half) & (row >= 0) & (row < half)
        owners, column, row = owners.only(shown), column[shown].astype(int), row[shown].astype(int)
        if not len(column):
            nothing = np.zeros((half, half), np.float32)
            return nothing, nothing
        seeds = np.ones((half, half), np.uint8)
        seeds[row, column] = 0
        _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        strength = np.zeros(int(labels.max()) + 1, np.float32)
        strength[labels[row, column]] = owners.dab * (0.1 + 0.9 * owners.kept)
        labels[epithelium < 0.5] = 0
        border = np.zeros((half, half), np.float32)
        border[:, 1:] = labels[:, 1:] != labels[:, :-1]
        border[1:] = np.maximum(border[1:], labels[1:] != labels[:-1])
        thin = cv2.GaussianBlur(border, (0, 0), 1.1) * np.float32(2.2)
        wide = cv2.GaussianBlur(border, (0, 0), 3.5)
        amount = cv2.GaussianBlur(strength[labels], (0, 0), 1.5)
        gate = np.clip((complete + 0.45 * mid) / np.float32(0.5) + 0.5, 0, 1)
        spread = (thin + wide) * gate * np.clip(1 + 0.2 * grain, 0.2, None) + 0.12 * np.clip(1 + 0.4 * mid, 0, None)
        return np.minimum(thin, 1), np.asarray(amount * spread * epithelium, np.float32)

    def _stroma(self, x: int, y: int, bend: list[Field], dense: Field, room: Field) -> tuple[Field, Field]:
        """Wavy collagen bundles and the pale ground between them."""
        half = len(room)
        columns = np.arange(x, x + half, dtype=np.float32)[None] + bend[0]
        rows = np.arange(y, y + half, dtype=np.float32)[:, None] + bend[1]
        fine, broad = self._textures.bent("fine", columns, rows), self._textures.bent("broad", columns, rows)
        bundles = ramp(0.75 * broad + 0.35 * fine + 0.65 * dense + 0.35, 1.6)
        fibre = room * (0.1 + 0.75 * bundles + 0.16 * fine * bundles)
        return np.clip(fibre, 0, None), room * (0.5 + 0.1 * self._textures.at("mid", x + 333, y + 777, half))

    def _stamp(self, near: Nuclei, x: int, y: int, full: int) -> tuple[Field, Field]:
        """Haematoxylin of all nuclei, and of those that the IHC section shows."""
        canvas = np.zeros((full, full), np.uint8)
        _stamp_all(canvas, near.only(near.kept), self._sprites, x, y)
        kept = canvas.copy()
        _stamp_all(canvas, near.only(~near.kept), self._sprites, x, y)
        scale = np.float32(1 / 150)
        return canvas * scale, kept * scale


def _stamp_all(canvas: UInt8[np.ndarray, "h w"], near: Nuclei, sprites: list[np.ndarray], x: int, y: int) -> None:
    side = len(canvas)
    for left, top, kind, tone, picture in zip(
        (near.x - x).astype(int).tolist(),
        (near.y - y).astype(int).tolist(),
        near.kind.tolist(),
        near.tone.tolist(),
        near.picture.tolist(),
        strict=True,
    ):
        sprite = sprites[kind][tone, picture]
        reach = len(sprite) // 2
        x0, y0 = left - reach, top - reach
        x1, y1 = x0 + len(sprite), y0 + len(sprite)
        if x1 <= 0 or y1 <= 0 or x0 >= side or y0 >= side:
            continue
        cut = sprite[max(-y0, 0) : len(sprite) - max(y1 - side, 0), max(-x0, 0) : len(sprite) - max(x1 - side, 0)]
        place = canvas[max(y0, 0) : y1, max(x0, 0) : x1]
        np.maximum(place, cut, out=place)


def _double(field: Field) -> Field:
    """Twice as many px each way."""
    return np.asarray(cv2.resize(field, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR))


def _zoomed(values: Field, column: int, row: int, count: int, fill: float, step: int) -> Field:
    """`count` cells each way from (row, column) of a map, every `step` px; smooth; `fill` beyond the map."""
    part = np.full((count + 4, count + 4), fill, np.float32)
    r0, c0 = row - 2, column - 2
    inner = values[max(r0, 0) : max(r0 + count + 4, 0), max(c0, 0) : max(c0 + count + 4, 0)]
    part[max(-r0, 0) : max(-r0, 0) + inner.shape[0], max(-c0, 0) : max(-c0, 0) + inner.shape[1]] = inner
    times = MAP_PX // step
    large = cv2.resize(part, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large[2 * times : -2 * times, 2 * times : -2 * times])


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


def _piece(
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
            tone=self._rng.integers(0, _TONES, n),
            picture=self._rng.integers(0, _PICTURES, n),
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


_TONES, _PICTURES = 4, 160


def _sprites(rng: np.random.Generator, kind: str) -> UInt8[np.ndarray, "t n s s"]:
    """Pictures of nuclei, 150 for an amount of 1: each at several darknesses."""
    mean, spread, aspect, tone, contrast = {
        "tumour": (8.4, 0.14, 1.22, 0.8, 0.24),
        "spindle": (5.4, 0.15, 3.2, 0.85, 0.15),
        "lymphocyte": (5.8, 0.09, 1.08, 1.1, 0.2),
    }[kind]
    reach = {"tumour": 30, "spindle": 32, "lymphocyte": 17}[kind]
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * MPP
    pictures = np.empty((_PICTURES, 2 * reach + 1, 2 * reach + 1), np.float32)
    grain = blobs(rng, (1024, 1024), 1.6) + blobs(rng, (1024, 1024), 4.0)
    for picture in pictures:
        diameter = float(np.clip(mean * np.exp(spread * rng.normal()), 4, 11))
        ratio = float(np.clip(aspect * np.exp(0.18 * rng.normal()), 1, 4.2))
        long, short = diameter / 2 * np.sqrt(ratio), diameter / 2 / np.sqrt(ratio)
        turn = rng.uniform(0, np.pi)
        u, v = (x * np.cos(turn) + y * np.sin(turn)) / long, (y * np.cos(turn) - x * np.sin(turn)) / short
        outline = 1 + sum(
            0.04 * rng.normal() * np.cos(order * np.arctan2(v, u) + rng.uniform(0, 6.3)) for order in (2, 3, 4)
        )
        border = (1 - np.hypot(u, v) / outline) * np.sqrt(long * short)
        top, left = rng.integers(0, 1024 - 2 * reach - 1, 2)
        body = tone * (1 + contrast * grain[top : top + 2 * reach + 1, left : left + 2 * reach + 1])
        body += 0.14 * np.exp(-((border - 0.45) ** 2) / 0.32)
        if kind == "tumour" and rng.random() < 0.5:
            body += 0.5 * np.clip(1.4 - np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)), 0, 1)
        picture[:] = np.clip(border / 0.55 + 0.5, 0, 1) * np.clip(body, 0.12, 1.7)
    tones = np.exp(np.linspace(-0.22, 0.22, _TONES)).astype(np.float32)[:, None, None, None]
    return np.asarray(np.clip(150 * tones * pictures, 0, 255), np.uint8)


class _Textures:
    """Periodic noise pictures of sides that share no common period."""

    _KINDS: ClassVar = {
        "grain": (1000, 1.4, 1.4),
        "mid": (1296, 5.0, 5.0),
        "chromatin": (1350, 1.5, 1.5),
        "fine": (1500, 26.0, 1.3),
        "broad": (1440, 60.0, 4.0),
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self._pictures = {name: _periodic(rng, *kind) for name, kind in self._KINDS.items()}

    def at(self, name: str, x: int, y: int, side: int) -> Field:
        picture = self._pictures[name]
        period = len(picture)
        return picture[np.ix_(np.arange(y, y + side) % period, np.arange(x, x + side) % period)]

    def bent(self, name: str, columns: Field, rows: Field) -> Field:
        """The picture read at places that a map gives."""
        picture = self._pictures[name]
        return np.asarray(
            cv2.remap(
                picture, columns % len(picture), rows % len(picture), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
            )
        )


def _periodic(rng: np.random.Generator, side: int, sigma_x: float, sigma_y: float) -> Field:
    """Gaussian noise of a correlation length along x and y that goes on beyond its edges."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), np.float32))
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    spectrum *= np.exp(-2 * np.pi**2 * ((fx * sigma_x) ** 2 + (fy * sigma_y) ** 2))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (side, side))
    return (field / field.std()).astype(np.float32)
