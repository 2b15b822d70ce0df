"""Tissue of any extent, drawn block by block at 0.25 µm: what the drawn cases show.

A section is a few pieces (`pieces.py`); textures are periodic pictures looked up by place. A block follows from its
place alone, so it can be drawn whenever it is needed, and glass costs nothing. Simpler than `hepipe.synth`, which holds
whole layers.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from making.layers import Amounts, as_bytes
from making.pictures import KINDS, MPP, Textures, draw_sprites
from making.pieces import MAP_PX, MAP_UM, Nuclei, Piece, Shape, draw_piece

from hepipe.synth.noise import Field, generator, ramp
from hepipe.synth.plan import Biology

PAD_PX = 64
"""Drawn beyond each side of a block, so that what leans over its edge looks the same from either side."""


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
        self._textures = Textures(generator(*key, "textures", slice_key))
        self._sprites = [draw_sprites(generator(*key, "sprites", slice_key), kind) for kind in KINDS]
        self.pieces = [
            draw_piece(shape, side_um, bio, (*key, "piece", number), slice_key, lost)
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
