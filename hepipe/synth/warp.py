"""The true transform between the two sections, and its inverse for drawing the IHC in its own frame."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

from hepipe.geometry import Transform, apply_affine, scaling, translation
from hepipe.synth.noise import blobs
from hepipe.synth.plan import MPP, Placement, Plan

FIELD_UM = 2.0
"""Grid of the true displacement, µm: fine enough that its bilinear kinks stay below the inverse's error."""
TAPER = 0.15
"""The displacement fades to 0 over this share of the side, so that it does not jump where the H&E slide ends."""
_COARSE_PX, _FINE_PX = 8, 2
"""The inverse is solved at every 8th px of the IHC slide, mended at every 2nd, and interpolated between."""
_AT_ONCE = 200_000
"""Points solved together: a whole slide's would hold half a gigabyte of temporary arrays."""


def draw_transform(
    plan: Plan, tissue: Float[np.ndarray, "n 2"], *, margin_px: float
) -> tuple[Transform, tuple[int, int]]:
    """The true `ihc_from_he` and the size (width, height) of an IHC canvas that holds the tissue.

    Args:
        plan: The case.
        tissue: Points (x, y) of the tissue's border on the H&E slide, px0.
        margin_px: Glass around the tissue on the IHC slide.
    """
    field = _displacement(plan)
    linear = _linear(plan.placement)
    warped = Transform(linear, MPP, MPP, field, FIELD_UM)(tissue)
    low, high = warped.min(axis=0) - margin_px, warped.max(axis=0) + margin_px
    width, height = (int(side) for side in np.ceil(high - low))
    return Transform(translation(-low[0], -low[1]) @ linear, MPP, MPP, field, FIELD_UM), (width, height)


def aligned(side_px: int) -> tuple[Transform, tuple[int, int]]:
    """The transform of a pair that needs none."""
    return Transform(np.eye(3), MPP, MPP), (side_px, side_px)


def invert(transform: Transform, size: tuple[int, int]) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """For every px centre of the IHC slide its place (x, y) on the H&E slide, px0.

    Solves he = affine⁻¹ (ihc - field(he)) by repeating it: the field's slope is far below 1, so the error shrinks
    at least threefold a round. The result is off by less than 0.02 px.
    """
    width, height = size
    backward = np.linalg.inv(transform.affine)
    # Every grid covers the same rectangle, whole coarse px, so that cv2.resize keeps places as hepipe.geometry does.
    columns, rows = -(-width // _COARSE_PX), -(-height // _COARSE_PX)
    shift = np.zeros((rows, columns, 2), np.float32)
    for step, rounds in ((_COARSE_PX, 10), (_FINE_PX, 2)):
        grid = (columns * _COARSE_PX // step, rows * _COARSE_PX // step)
        shift = cv2.resize(shift, grid, interpolation=cv2.INTER_LINEAR)
        y, x = np.mgrid[0 : grid[1], 0 : grid[0]]
        start = apply_affine(backward, np.stack([(x.ravel() + 0.5) * step, (y.ravel() + 0.5) * step], axis=1))
        he = start + shift.reshape(-1, 2)
        for _ in range(rounds):
            for part in range(0, len(he), _AT_ONCE):
                some = slice(part, part + _AT_ONCE)
                he[some] += start[some] - apply_affine(backward, transform(he[some]))
        shift = (he - start).astype(np.float32).reshape(grid[1], grid[0], 2)
    shift = cv2.resize(shift, (columns * _COARSE_PX, rows * _COARSE_PX), interpolation=cv2.INTER_LINEAR)
    shift = shift[:height, :width]
    px = np.arange(width, dtype=np.float64) + 0.5
    py = np.arange(height, dtype=np.float64)[:, None] + 0.5
    map_x = backward[0, 0] * px + backward[0, 1] * py + backward[0, 2] + shift[..., 0]
    map_y = backward[1, 0] * px + backward[1, 1] * py + backward[1, 2] + shift[..., 1]
    return map_x.astype(np.float32), map_y.astype(np.float32)


def pull(
    layer: Float[np.ndarray, "h w"],
    map_x: Float[np.ndarray, "p q"],
    map_y: Float[np.ndarray, "p q"],
    *,
    outside: float = 0.0,
) -> Float[np.ndarray, "p q"]:
    """A layer of the H&E frame read at the places that `invert` gave; one bicubic interpolation, never below 0."""
    half = np.float32(0.5)  # cv2 counts from px centres
    moved = cv2.remap(
        layer, map_x - half, map_y - half, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=outside
    )
    return np.asarray(np.maximum(moved, 0, out=moved), np.float32)


def _linear(placement: Placement) -> Float[np.ndarray, "3 3"]:
    turn = np.deg2rad(placement.degrees)
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    shear = np.array([[1, placement.shear, 0], [0, 1, 0], [0, 0, 1.0]])
    mirror = scaling(-1.0 if placement.flip else 1.0, 1.0)
    return np.asarray(rotation @ shear @ scaling(placement.scale) @ mirror)


def _displacement(plan: Plan) -> Float[np.ndarray, "2 h w"]:
    """Smooth noise of a quarter of the slide's length, and a few places that swelled; µm on the IHC slide."""
    rng = plan.rng("warp")
    side_um = plan.side_px * MPP
    count = int(np.ceil(side_um / FIELD_UM))
    shape = (count, count)
    wave = max(side_um / 6, 120) / FIELD_UM
    field = np.stack([blobs(rng, shape, wave), blobs(rng, shape, wave)])
    field *= np.float32(min(plan.placement.warp_um, 0.025 * side_um) / max(float(np.abs(field).max()), 1e-6))
    y, x = (np.mgrid[0:count, 0:count].astype(np.float32) + np.float32(0.5)) * np.float32(FIELD_UM)
    linear = _linear(plan.placement)[:2, :2]
    for _ in range(3):
        center = rng.uniform(0.25, 0.75, 2) * side_um
        radius = rng.uniform(0.12, 0.2) * side_um
        growth = plan.placement.swelling * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * radius**2))
        away = np.stack([x - center[0], y - center[1]]) * growth
        field += np.einsum("ij,jhw->ihw", linear, away).astype(np.float32)
    # a product, not the least of four sides: that would have a kink in the corners which no grid follows
    for place in (x, y):
        edge = np.clip(np.minimum(place, side_um - place) / (TAPER * side_um), 0, 1)
        field *= edge**2 * (3 - 2 * edge)
    return np.asarray(field, np.float32)
