"""Cells: where their nuclei lie, what each looks like, and the pictures of their chromatin."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import cKDTree

from hepipe.synth.architecture import GRID_UM, Architecture, signed
from hepipe.synth.noise import Field, blobs
from hepipe.synth.plan import MPP, Plan

CellKind = Literal["tumour", "in_situ", "normal", "fibroblast", "lymphocyte", "endothelium"]
CELL_KINDS: tuple[CellKind, ...] = ("tumour", "in_situ", "normal", "fibroblast", "lymphocyte", "endothelium")
N_WAVES = 3


@dataclass(frozen=True)
class Cells:
    """One row a cell; lengths in µm, places in px0 of the H&E slide, angles in radians.

    Attributes:
        x: Centre of the nucleus.
        y: Centre of the nucleus.
        kind: Index into `CELL_KINDS`.
        long: Longer half axis.
        short: Shorter half axis.
        angle: Direction of the longer axis.
        amplitude: Of the outline's harmonics 2, 3, 4, relative.
        phase: Of the same.
        chromatin: Mean haematoxylin amount.
        contrast: Of its grain.
        rim: Extra haematoxylin at the nuclear membrane.
        nucleolus: Radius of the nucleolus; 0 for none to be seen.
        kept: Whether the cell is on the IHC section too.
        her2_od: Optical density of DAB on its membrane.
        completeness: Share of its outline that stains.
    """

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    kind: Int[np.ndarray, " n"]
    long: Float[np.ndarray, " n"]
    short: Float[np.ndarray, " n"]
    angle: Float[np.ndarray, " n"]
    amplitude: Float[np.ndarray, "n 3"]
    phase: Float[np.ndarray, "n 3"]
    chromatin: Float[np.ndarray, " n"]
    contrast: Float[np.ndarray, " n"]
    rim: Float[np.ndarray, " n"]
    nucleolus: Float[np.ndarray, " n"]
    kept: Bool[np.ndarray, " n"]
    her2_od: Float[np.ndarray, " n"]
    completeness: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.x)

    def only(self, chosen: np.ndarray) -> Cells:
        """The cells of a mask or of indices."""
        return Cells(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def is_kind(self, *kinds: CellKind) -> Bool[np.ndarray, " n"]:
        """Which cells are of one of the kinds."""
        return np.isin(self.kind, [CELL_KINDS.index(kind) for kind in kinds])


def place_cells(plan: Plan, arch: Architecture) -> Cells:
    """All cells of a case."""
    rng = plan.rng("cells")
    side_um = plan.side_px * MPP
    empty = arch.clear
    groups = [
        _epithelium(rng, plan, arch, "tumour", np.minimum(signed(arch.tumour > 0) - 3.2, empty - 3), side_um),
        _epithelium(rng, plan, arch, "in_situ", np.minimum(signed(arch.in_situ > 0) - 3.2, empty - 3), side_um),
        _epithelium(rng, plan, arch, "normal", np.minimum(signed(arch.normal > 0) - 2.8, empty - 2.5), side_um),
        _stroma(rng, plan, arch, side_um),
    ]
    cells = Cells(
        **{field.name: np.concatenate([getattr(group, field.name) for group in groups]) for field in fields(Cells)}
    )
    lost = plan.rng("lost").random(len(cells)) < plan.lost
    return Cells(**{**{field.name: getattr(cells, field.name) for field in fields(cells)}, "kept": ~lost})


def _sample(field: Field, points_um: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """A field of the coarse grid at points, bilinear."""
    x = (points_um[:, 0] / GRID_UM - 0.5).astype(np.float32)
    y = (points_um[:, 1] / GRID_UM - 0.5).astype(np.float32)
    if not len(x):
        return np.zeros(0, np.float32)
    # cv2.remap takes at most 32,767 rows
    parts = [
        cv2.remap(
            field, x[i : i + 30_000, None], y[i : i + 30_000, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        for i in range(0, len(x), 30_000)
    ]
    return np.asarray(np.concatenate(parts)[:, 0], np.float32)


def _across(field: Field, points_um: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Direction of a field's gradient at points, radians."""
    smooth = cv2.GaussianBlur(field, (0, 0), 2.0)
    down = _sample(np.ascontiguousarray(np.gradient(smooth, axis=0), np.float32), points_um)
    right = _sample(np.ascontiguousarray(np.gradient(smooth, axis=1), np.float32), points_um)
    return np.asarray(np.arctan2(down, right))


def _scatter(
    rng: np.random.Generator, room: Field, spacing_um: Field, side_um: float, *, crowding: float = 7.0
) -> Float[np.ndarray, "n 2"]:
    """Points (x, y) in µm where `room` is positive, no two closer than the spacing there."""
    rows, columns = np.nonzero(room > -GRID_UM)
    if not len(rows):
        return np.zeros((0, 2))
    weight = 1 / spacing_um[rows, columns].astype(np.float64) ** 2
    count = int(crowding * weight.sum() * GRID_UM**2)
    pick = rng.choice(len(rows), size=count, p=weight / weight.sum())
    points = (np.stack([columns[pick], rows[pick]], axis=1) + rng.random((count, 2))) * GRID_UM
    points = points[(_sample(room, points) > 0) & (points < side_um).all(axis=1)]
    spacing = _sample(spacing_um, points)
    if len(points) < 2:
        return points
    pairs = cKDTree(points).query_pairs(float(spacing.max()), output_type="ndarray")
    near = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) < spacing[pairs].mean(axis=1)
    pairs = pairs[near]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    starts = np.searchsorted(pairs[:, 0], np.arange(len(points) + 1))
    later = pairs[:, 1]
    alive = np.ones(len(points), bool)
    for i in range(len(points)):
        if alive[i]:
            alive[later[starts[i] : starts[i + 1]]] = False
    return points[alive]


def _rows(
    rng: np.random.Generator,
    points_um: Float[np.ndarray, "n 2"],
    kind: CellKind,
    *,
    diameter: np.ndarray,
    aspect: np.ndarray,
    angle: np.ndarray,
    irregular: np.ndarray | float,
    chromatin: np.ndarray,
    contrast: np.ndarray | float,
    rim: np.ndarray | float,
    nucleolus: np.ndarray | float = 0.0,
    her2_od: np.ndarray | float = 0.0,
    completeness: np.ndarray | float = 0.0,
) -> Cells:
    n = len(points_um)

    def column(values: np.ndarray | float) -> Float32[np.ndarray, " n"]:
        return np.broadcast_to(np.asarray(values, np.float32), (n,)).copy()

    return Cells(
        x=column(points_um[:, 0] / MPP),
        y=column(points_um[:, 1] / MPP),
        kind=np.full(n, CELL_KINDS.index(kind)),
        long=column(diameter / 2 * np.sqrt(aspect)),
        short=column(diameter / 2 / np.sqrt(aspect)),
        angle=column(angle),
        amplitude=(rng.normal(0, 1, (n, N_WAVES)) * column(irregular)[:, None]).astype(np.float32),
        phase=rng.uniform(0, 2 * np.pi, (n, N_WAVES)).astype(np.float32),
        chromatin=column(chromatin),
        contrast=column(contrast),
        rim=column(rim),
        nucleolus=column(nucleolus),
        kept=np.ones(n, bool),
        her2_od=column(her2_od),
        completeness=column(completeness),
    )


def _epithelium(
    rng: np.random.Generator, plan: Plan, arch: Architecture, kind: CellKind, room: Field, side_um: float
) -> Cells:
    bio = plan.biology
    grade_field = arch.grade if kind == "tumour" else np.full_like(arch.grade, 0.1 if kind == "normal" else bio.grade)
    spacing = 7.7 + 1.05 * grade_field if kind != "normal" else np.full_like(arch.grade, 6.9)
    points = _scatter(rng, room, spacing.astype(np.float32), side_um)
    n = len(points)
    grade = _sample(grade_field, points)
    # Mean 7 to 10.5 µm and a spread of 7 to 20 %: nuclear grade 1 to 3 of the Nottingham system in words.
    mean, spread = 6.9 + 1.15 * grade, np.clip(0.06 + 0.045 * grade, 0.05, None)
    diameter = mean * np.exp(rng.normal(0, 1, n) * spread)
    shows = rng.random(n) < 1 / (1 + np.exp(-(grade - 1.7) * 1.7))
    border = {"tumour": arch.tumour, "in_situ": arch.in_situ, "normal": arch.normal}[kind]
    rows = _across(border, points) + rng.normal(0, 0.35 + 0.25 * np.clip(grade, 0, 3), n)
    strength, completeness = _her2(rng, plan, kind, points)
    return _rows(
        rng,
        points,
        kind,
        diameter=diameter,
        aspect=1.12 + np.abs(rng.normal(0, 0.22, n)),
        angle=rows,
        irregular=0.02 + 0.018 * np.clip(grade, 0, 3),
        chromatin=np.clip(rng.normal(0.68 - 0.02 * grade, 0.07 + 0.05 * np.clip(grade, 0, 3), n), 0.4, 1.3),
        contrast=0.17 + 0.035 * np.clip(grade, 0, 3),
        rim=0.14 + 0.09 * np.clip(grade, 0, 3),
        nucleolus=np.where(shows, np.clip(rng.normal(0.55 + 0.2 * grade, 0.15, n), 0.4, 1.6), 0),
        her2_od=strength,
        completeness=completeness,
    )


def _her2(
    rng: np.random.Generator, plan: Plan, kind: CellKind, points_um: Float[np.ndarray, "n 2"]
) -> tuple[np.ndarray, np.ndarray]:
    """Membrane DAB of each cell and the share of its outline that shows; patches of stronger and weaker cells."""
    bio = plan.biology
    n = len(points_um)
    side = -(-round(plan.side_px * MPP) // int(GRID_UM))
    patch = _sample(blobs(rng, (side, side), 40 / GRID_UM), points_um)
    if kind == "normal":
        return np.clip(rng.normal(0.03, 0.02, n), 0, 0.08), np.full(n, 0.4)
    factor = np.exp(0.16 * patch + 0.16 * rng.normal(0, 1, n))
    stained = rng.random(n) < np.clip(bio.positive + 0.12 * patch, 0, 1)
    strength = bio.strength_od * factor * np.where(stained, 1, 0.12)
    if kind == "in_situ":
        strength = np.clip(1.15 * strength + 0.08, 0, 1.6)
    return strength, np.clip(bio.completeness + 0.12 * rng.normal(0, 1, n), 0.05, 1)


def _stroma(rng: np.random.Generator, plan: Plan, arch: Architecture, side_um: float) -> Cells:
    epithelium = np.maximum.reduce([arch.tumour, arch.in_situ, arch.normal])
    room = np.minimum.reduce([arch.tissue - 4, -epithelium - 2.5, arch.clear - 2.2])
    direction = fibre_angle(arch)
    spacing = np.clip(15 + 3 * arch.dense - 2 * (epithelium > -25), 11, 26).astype(np.float32)
    spots = _scatter(rng, np.minimum(room, -arch.vessel - 1), spacing, side_um, crowding=3.0)
    n = len(spots)
    spindle = _rows(
        rng,
        spots,
        "fibroblast",
        diameter=np.clip(rng.normal(5.4, 0.8, n), 3.8, 8),
        aspect=np.clip(rng.normal(3.4, 1.1, n), 1.3, 6.5),
        angle=_turned(direction, spots) + rng.normal(0, 0.22, n),
        irregular=0.04,
        chromatin=np.clip(rng.normal(0.78, 0.14, n), 0.45, 1.2),
        contrast=0.15,
        rim=0.08,
    )
    crowd = np.clip(30 - 13 * (arch.crowd - 0.6), 6.6, 90).astype(np.float32)
    spots = _scatter(rng, np.minimum(room, -arch.vessel - 1), crowd, side_um, crowding=4.0)
    n = len(spots)
    round_cells = _rows(
        rng,
        spots,
        "lymphocyte",
        diameter=np.clip(rng.normal(5.7, 0.5, n), 4.6, 7.5),
        aspect=1.03 + np.abs(rng.normal(0, 0.09, n)),
        angle=rng.uniform(0, np.pi, n),
        irregular=0.02,
        chromatin=np.clip(rng.normal(1.1, 0.12, n), 0.8, 1.4),
        contrast=0.22,
        rim=0.12,
    )
    wall = np.minimum(2.2 - np.abs(arch.vessel - 1.6), arch.tissue)
    spots = _scatter(rng, wall, np.full_like(arch.vessel, 11), side_um, crowding=4.0)
    n = len(spots)
    lining = _rows(
        rng,
        spots,
        "endothelium",
        diameter=np.clip(rng.normal(4.6, 0.5, n), 3.5, 6),
        aspect=np.clip(rng.normal(3.2, 0.7, n), 1.6, 5),
        angle=_across(arch.vessel, spots) + np.pi / 2 + rng.normal(0, 0.1, n),
        irregular=0.03,
        chromatin=np.clip(rng.normal(0.85, 0.1, n), 0.5, 1.2),
        contrast=0.12,
        rim=0.06,
    )
    groups = [spindle, round_cells, lining]
    return Cells(
        **{field.name: np.concatenate([getattr(group, field.name) for group in groups]) for field in fields(Cells)}
    )


def fibre_angle(arch: Architecture) -> Field:
    """Direction of collagen on the coarse grid, radians: free in open stroma, along borders beside them."""
    epithelium = np.maximum.reduce([arch.tumour, arch.in_situ, arch.normal, arch.vessel])
    smooth = cv2.GaussianBlur(epithelium, (0, 0), 5)
    dy, dx = np.gradient(smooth)
    along = np.arctan2(dx, -dy)
    free = 1.6 * arch.dense + 0.7 * arch.crowd
    near = np.exp(-np.clip(-epithelium, 0, None) / 22)
    # Lines have no sign: directions are mixed as doubled angles.
    sine = near * np.sin(2 * along) + (1 - near) * np.sin(2 * free)
    cosine = near * np.cos(2 * along) + (1 - near) * np.cos(2 * free)
    sine, cosine = cv2.GaussianBlur(sine, (0, 0), 3), cv2.GaussianBlur(cosine, (0, 0), 3)
    return np.asarray(np.arctan2(sine, cosine) / 2, np.float32)


def _turned(angle: Field, points_um: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    sine = _sample(np.sin(2 * angle).astype(np.float32), points_um)
    cosine = _sample(np.cos(2 * angle).astype(np.float32), points_um)
    return np.asarray(np.arctan2(sine, cosine) / 2)


def draw_nuclei(cells: Cells, side_px: int, rng: np.random.Generator) -> Field:
    """Haematoxylin of the nuclei on the H&E grid, 0 outside them; of two that overlap the darker shows."""
    canvas = np.zeros((side_px, side_px), np.float32)
    grain = 0.75 * blobs(rng, (512, 512), 0.9) + 0.65 * blobs(rng, (512, 512), 2.2)
    half = np.ceil(1.25 * cells.long / MPP + 2).astype(int)
    left = np.floor(cells.x).astype(int)
    top = np.floor(cells.y).astype(int)
    corner = rng.integers(0, 512 - 128, (len(cells), 2))
    spots = rng.uniform(-0.35, 0.35, (len(cells), 2))
    for size in np.unique(half):
        of_size = np.flatnonzero(half == size)
        for start in range(0, len(of_size), 512):
            some = of_size[start : start + 512]
            patches = _patches(cells.only(some), int(size), grain, corner[some], spots[some])
            for i, patch in zip(some, patches, strict=True):
                y0, x0 = top[i] - size, left[i] - size
                y1, x1 = y0 + patch.shape[0], x0 + patch.shape[1]
                cut = patch[
                    max(-y0, 0) : len(patch) - max(y1 - side_px, 0), max(-x0, 0) : len(patch) - max(x1 - side_px, 0)
                ]
                place = canvas[max(y0, 0) : y1, max(x0, 0) : x1]
                np.maximum(place, cut, out=place)
    return canvas


def _patches(
    cells: Cells, half: int, grain: Field, corner: Int[np.ndarray, "n 2"], spots: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n s s"]:
    """One square picture a nucleus, drawn together."""

    def each(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None]

    steps = np.arange(-half, half + 1, dtype=np.float32) + np.float32(0.5)
    dx = (steps[None, None, :] - each(cells.x - np.floor(cells.x))) * np.float32(MPP)
    dy = (steps[None, :, None] - each(cells.y - np.floor(cells.y))) * np.float32(MPP)
    cosine, sine = each(np.cos(cells.angle)), each(np.sin(cells.angle))
    u = (dx * cosine + dy * sine) / each(cells.long)
    v = (dy * cosine - dx * sine) / each(cells.short)
    reach = np.float32(1)
    angle = np.arctan2(v, u)
    for wave in range(N_WAVES):
        reach = reach + each(cells.amplitude[:, wave]) * np.cos((wave + 2) * angle + each(cells.phase[:, wave]))
    inside = (1 - np.hypot(u, v) / reach) * each(np.sqrt(cells.long * cells.short))  # µm from the border
    cover = np.clip(inside / np.float32(0.55) + 0.5, 0, 1)
    index = np.arange(2 * half + 1)
    texture = grain[corner[:, 0, None, None] + index[None, :, None], corner[:, 1, None, None] + index[None, None, :]]
    rim = each(cells.rim) * np.exp(-((inside - np.float32(0.45)) ** 2) / np.float32(2 * 0.4**2))
    body = each(cells.chromatin) * (1 - each(cells.rim) + each(cells.contrast) * texture) + rim
    radius = np.maximum(cells.nucleolus, 1e-3)
    away = np.hypot(u - each(spots[:, 0]), v - each(spots[:, 1])) * each(np.sqrt(cells.long * cells.short))
    body = body + each(np.where(cells.nucleolus > 0, 0.7, 0)) * np.clip(
        (each(radius) - away) / np.float32(0.5) + 0.5, 0, 1
    )
    return np.asarray(cover * np.clip(body, 0.12, 1.7), np.float32)
