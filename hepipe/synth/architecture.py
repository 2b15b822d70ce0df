"""Where things are: pieces of tissue, tumour nests, ducts, vessels, fat and holes, as smooth signed fields in µm.

Everything here lives on a coarse grid over the H&E slide; a field is positive inside its structure, and its zero line
stays smooth when the field is enlarged to the pixels of the slide.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from hepipe.synth.noise import Field, blobs
from hepipe.synth.plan import MPP, Plan

GRID_UM = 2.0
"""Spacing of the coarse grid, µm."""


@dataclass(frozen=True)
class Architecture:
    """Signed fields on the coarse grid, µm, positive inside.

    Attributes:
        tissue: The section, holes not yet taken out.
        tumour: Invasive tumour, gland lumens taken out.
        in_situ: Ducts filled with tumour cells, their lumens taken out.
        normal: Benign epithelium, lumens taken out.
        hole: No substance: lumens, fat, vessels, clefts.
        clear: Distance to the nearest hole.
        vessel: Vessels with their walls.
        blood: Red cells inside vessels.
        fat: Zones of adipose tissue.
        grade: Local grade, 0 to 3 and a little beyond.
        dense: Density of collagen, about -2 to 2.
        crowd: Where lymphocytes gather, about -2 to 4.
    """

    tissue: Field
    tumour: Field
    in_situ: Field
    normal: Field
    hole: Field
    clear: Field
    vessel: Field
    blood: Field
    fat: Field
    grade: Field
    dense: Field
    crowd: Field


def draw_architecture(plan: Plan, *, filled: bool = False) -> Architecture:
    """Decide where everything is.

    Args:
        plan: The case.
        filled: Tissue reaches over the whole canvas, as in a tile cut from the middle of a slide.
    """
    rng = plan.rng("architecture")
    side = -(-round(plan.side_px * MPP) // int(GRID_UM))
    shape = (side, side)
    bio = plan.biology
    tissue = np.full(shape, 50, np.float32) if filled else _outline(rng, shape, bio.pieces)
    grade = bio.grade + np.float32(0.3) * blobs(rng, shape, 60 / GRID_UM)

    zone = blobs(rng, shape, 90 / GRID_UM)
    level = float(np.quantile(zone[tissue > 0], 1 - bio.tumour))
    zone = (zone - level) * 60
    size = 10 + 5 * bio.grade  # low grades grow as small tubules, high ones as solid sheets
    nests = _warped(rng, blobs(rng, shape, size / GRID_UM), shape) - 0.3 + 0.15 * bio.grade
    nests = np.minimum(nests * size * 0.8, zone)
    nests = np.minimum(nests, tissue - 12)
    nests = signed(nests > 0)

    gland = blobs(rng, shape, 30 / GRID_UM) + (1.15 - grade) * 0.9
    lumen = np.minimum(nests - 11.5 + 2 * blobs(rng, shape, 6 / GRID_UM), gland * 12)
    slit = np.minimum(signed(np.abs(blobs(rng, shape, 45 / GRID_UM)) < 0.04), nests - 10)
    lumen = np.maximum(lumen, np.minimum(slit, gland * 6))

    in_situ, ducts_lumen = _empty(shape), _empty(shape)
    if bio.in_situ:
        in_situ, ducts_lumen = _in_situ_ducts(rng, shape, tissue)
    normal, acini_lumen = _lobules(rng, shape, np.minimum(tissue - 25, -np.maximum(nests, zone * 0.3)), in_situ)
    nests = np.minimum(nests, -in_situ - 10)
    nests = np.minimum(nests, -normal - 6)
    vessel, vessel_lumen, blood = _vessels(
        rng, shape, np.minimum(tissue - 30, -np.maximum(nests, np.maximum(in_situ, normal)) - 4)
    )
    fat, fat_hole = _fat(rng, shape, tissue, np.maximum.reduce([nests, in_situ, normal, vessel]) + 14)
    lumen = np.minimum(lumen, nests)
    cleft = np.minimum(1.7 - np.abs(nests + 2.4), (blobs(rng, shape, 20 / GRID_UM) - 0.95) * 8)
    hole = np.maximum.reduce([lumen, ducts_lumen, acini_lumen, vessel_lumen, fat_hole, cleft])
    return Architecture(
        tissue=tissue,
        tumour=np.minimum(nests, -lumen),
        in_situ=np.minimum(in_situ, -ducts_lumen),
        normal=np.minimum(normal, -acini_lumen),
        hole=hole,
        clear=-signed(hole > 0),
        vessel=vessel,
        blood=blood,
        fat=fat,
        grade=np.clip(grade, -0.5, 3.5).astype(np.float32),
        dense=blobs(rng, shape, 40 / GRID_UM),
        crowd=blobs(rng, shape, 35 / GRID_UM),
    )


def _empty(shape: tuple[int, int]) -> Field:
    return np.full(shape, -1000, np.float32)


def signed(mask: Bool[np.ndarray, "h w"]) -> Field:
    """Distance to the mask's border in µm, negative outside, its stairs smoothed away."""
    # clipped: without any border the distance is a huge number that depends on the library
    inside = np.minimum(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), 1000)
    outside = np.minimum(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), 1000)
    return np.asarray(cv2.GaussianBlur((inside - outside) * np.float32(GRID_UM), (0, 0), 1.0), np.float32)


def _warped(rng: np.random.Generator, field: Field, shape: tuple[int, int]) -> Field:
    """A field pushed about by noise, so that its islands branch instead of staying round."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    x += np.float32(9) * blobs(rng, shape, 22 / GRID_UM)
    y += np.float32(9) * blobs(rng, shape, 22 / GRID_UM)
    return np.asarray(cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _round(
    shape: tuple[int, int], center: tuple[float, float], radius: float, *, aspect: float, turn: float, waves: np.ndarray
) -> Field:
    """Signed field of a wavy ellipse; `waves` holds amplitude and phase of harmonics 2, 3, …; px of the coarse grid."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    x, y = x - np.float32(center[0]), y - np.float32(center[1])
    u = (x * np.cos(turn) + y * np.sin(turn)) / np.float32(np.sqrt(aspect))
    v = (-x * np.sin(turn) + y * np.cos(turn)) * np.float32(np.sqrt(aspect))
    angle = np.arctan2(v, u)
    reach = np.ones(shape, np.float32)
    for order, (amplitude, phase) in enumerate(waves, start=2):
        reach += np.float32(amplitude) * np.cos(order * angle + np.float32(phase))
    return np.asarray((radius * reach - np.hypot(u, v)) * GRID_UM, np.float32)


def _waves(rng: np.random.Generator, strength: float, count: int) -> Float[np.ndarray, "n 2"]:
    amplitudes = strength * rng.normal(0, 1, count) / np.arange(1, count + 1) ** 0.7
    return np.stack([amplitudes, rng.uniform(0, 2 * np.pi, count)], axis=1)


def _outline(rng: np.random.Generator, shape: tuple[int, int], pieces: int) -> Field:
    """One to three irregular pieces with glass around them."""
    side = shape[0]
    places = {1: [(0.5, 0.5, 0.365)], 2: [(0.31, 0.35, 0.23), (0.69, 0.67, 0.21)]}.get(
        pieces, [(0.3, 0.33, 0.19), (0.71, 0.34, 0.17), (0.5, 0.74, 0.18)]
    )
    outline = _empty(shape)
    for x, y, radius in places:
        center = ((x + rng.uniform(-0.02, 0.02)) * side, (y + rng.uniform(-0.02, 0.02)) * side)
        piece = _round(
            shape,
            center,
            radius * side,
            aspect=float(rng.uniform(0.68 if pieces == 1 else 0.8, 0.92)),
            turn=float(rng.uniform(0, np.pi)),
            waves=_waves(rng, 0.09 if pieces == 1 else 0.05, 7),
        )
        outline = np.maximum(outline, piece)
    ragged = 7 * blobs(rng, shape, 18 / GRID_UM) + 3 * blobs(rng, shape, 5 / GRID_UM)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    glass = np.minimum.reduce([x, y, side - 1 - x, side - 1 - y]) * np.float32(GRID_UM) - 30
    return np.asarray(np.minimum(signed(outline + ragged > 0), glass), np.float32)


def _in_situ_ducts(rng: np.random.Generator, shape: tuple[int, int], tissue: Field) -> tuple[Field, Field]:
    """Two or three big round ducts full of cells, with punched-out or necrotic middles."""
    ducts, lumens = _empty(shape), _empty(shape)
    for _ in range(int(rng.integers(2, 4))):
        radius = float(rng.uniform(55, 95)) / GRID_UM
        center = _spot(rng, np.minimum(tissue - radius * GRID_UM - 15, -ducts - radius * GRID_UM - 15))
        if center is None:
            continue
        duct = _round(
            shape,
            center,
            radius,
            aspect=float(rng.uniform(0.75, 1.0)),
            turn=float(rng.uniform(0, 3)),
            waves=_waves(rng, 0.04, 4),
        )
        ducts = np.maximum(ducts, duct)
        if rng.random() < 0.6:
            holes = (blobs(rng, shape, 9 / GRID_UM) - 0.95) * 10
        else:
            holes = duct - 0.55 * radius * GRID_UM + 5 * blobs(rng, shape, 8 / GRID_UM)
        lumens = np.maximum(lumens, np.minimum(holes, duct - 16))
    return ducts, lumens


def _lobules(rng: np.random.Generator, shape: tuple[int, int], room: Field, in_situ: Field) -> tuple[Field, Field]:
    """Clusters of small benign glands, each with a narrow lumen."""
    acini, lumens = _empty(shape), _empty(shape)
    n_lobules = max(1, round(3 * (shape[0] * GRID_UM / 1200) ** 2))
    for _ in range(n_lobules):
        heart = _spot(rng, np.minimum(room - 20, -in_situ - 60))
        if heart is None:
            continue
        spread = rng.uniform(22, 34)
        for _ in range(int(rng.integers(5, 12))):
            radius = rng.uniform(12, 19)
            center = (heart[0] + rng.normal(0, spread) / GRID_UM, heart[1] + rng.normal(0, spread) / GRID_UM)
            acinus = _round(
                shape,
                center,
                radius / GRID_UM,
                aspect=float(rng.uniform(0.55, 1)),
                turn=float(rng.uniform(0, 3)),
                waves=_waves(rng, 0.07, 4),
            )
            acinus = np.minimum(acinus, np.minimum(room, -acini - 3))
            lumens = np.maximum(lumens, acinus - float(rng.uniform(9.5, 12)))
            acini = np.maximum(acini, acinus)
    return acini, lumens


def _vessels(rng: np.random.Generator, shape: tuple[int, int], room: Field) -> tuple[Field, Field, Field]:
    """Small vessels: walls, lumens, and red cells in some."""
    vessels, lumens, blood = _empty(shape), _empty(shape), _empty(shape)
    for _ in range(max(2, round(14 * (shape[0] * GRID_UM / 1200) ** 2))):
        center = _spot(rng, room)
        if center is None:
            continue
        radius = float(rng.uniform(6, 20))
        vessel = _round(
            shape,
            center,
            radius / GRID_UM,
            aspect=float(rng.uniform(0.35, 0.9)),
            turn=float(rng.uniform(0, 3)),
            waves=_waves(rng, 0.06, 4),
        )
        vessel = np.minimum(vessel, room + radius)
        wall = float(rng.uniform(2, 4.5))
        vessels, lumens = np.maximum(vessels, vessel), np.maximum(lumens, vessel - wall)
        if rng.random() < 0.6:
            blood = np.maximum(blood, np.minimum(vessel - wall - 0.5, 4 * blobs(rng, shape, 9 / GRID_UM) + 3))
    return vessels, lumens, blood


def _fat(rng: np.random.Generator, shape: tuple[int, int], tissue: Field, keep_off: Field) -> tuple[Field, Field]:
    """Zones of fat and the round holes of its cells, thin septa between them."""
    zone = np.minimum((blobs(rng, shape, 70 / GRID_UM) - 0.7) * 40, np.minimum(tissue - 3, -keep_off))
    rows, columns = np.nonzero(zone > -20)
    hole = _empty(shape)
    if not len(rows):
        return zone, hole
    spacing = 46 / GRID_UM
    y, x = np.mgrid[0 : shape[0] : spacing * 0.87, 0 : shape[1] : spacing]
    x = x + (np.arange(len(x)) % 2)[:, None] * spacing / 2
    seeds = np.stack([x.ravel(), y.ravel()], axis=1) + rng.normal(0, spacing * 0.13, (x.size, 2))
    distances = np.asarray(cKDTree(seeds).query(np.stack([columns, rows], axis=1), k=2)[0])
    to_wall = (distances[:, 1] - distances[:, 0]) / 2 * GRID_UM
    hole[rows, columns] = np.minimum(to_wall, (spacing * 0.56 - distances[:, 0]) * GRID_UM)
    hole = cv2.GaussianBlur(hole, (0, 0), 0.7) - 1.9
    return zone, np.asarray(np.minimum(hole, zone), np.float32)


def _spot(rng: np.random.Generator, room: Field) -> tuple[float, float] | None:
    """A random place (x, y) where the field is positive; None when there is none."""
    rows, columns = np.nonzero(room > 0)
    if not len(rows):
        return None
    pick = int(rng.integers(len(rows)))
    return float(columns[pick]), float(rows[pick])
