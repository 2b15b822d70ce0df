"""Sections drawn for registration tests, with their true place on the other slide."""

import math

import cv2
import numpy as np

from hepipe.slides.picture import ArraySlide

MPP = 4.0


def draw_section(seed: int, *, side: int = 224) -> np.ndarray:
    """A blob of tissue with holes and dark spots on glass, as optical density 0 to 1."""
    rng = np.random.default_rng(seed)
    outline = np.zeros((side, side), np.float32)
    angles = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    bumps = sum(rng.normal(0, 0.7 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(1, 6))
    radius = side * (0.28 + 0.16 * np.clip(bumps, -1.2, 1.2))
    rim = np.stack([side / 2 + radius * np.cos(angles), side / 2 + radius * np.sin(angles)], axis=1)
    cv2.fillPoly(outline, [rim.astype(np.int32)], 0.35)
    for _ in range(160):
        centre = tuple(int(v) for v in rng.uniform(side * 0.15, side * 0.85, 2))
        cv2.circle(outline, centre, int(rng.uniform(2, 6)), float(rng.choice([0.0, 0.75])), -1)
    mask = np.zeros_like(outline)
    cv2.fillPoly(mask, [rim.astype(np.int32)], 1.0)
    return cv2.GaussianBlur(outline * mask, (0, 0), 1.2)


def stain(density: np.ndarray, color: tuple[float, float, float], seed: int = 0) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(0, 2, (*density.shape, 3))
    rgb = 245 * 10 ** (-density[..., None] * np.array(color)) + grain
    return np.clip(rgb, 0, 254).astype(np.uint8)


def partner(density: np.ndarray, moving_from_fixed: np.ndarray, warp_px: float) -> tuple[np.ndarray, object]:
    """The section as it lies on the other slide, and the true mapping of points (px to px)."""
    side = density.shape[0]

    def truth(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0], points[:, 1]
        bent = points + warp_px * np.stack([np.sin(2 * math.pi * y / side), np.cos(2 * math.pi * x / side)], axis=1)
        return bent @ moving_from_fixed[:2, :2].T + moving_from_fixed[:2, 2]

    # For each moving px its origin, by fixed-point iteration of the bend.
    x, y = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    back = np.linalg.inv(moving_from_fixed)
    unbent = np.stack([x.ravel(), y.ravel()], axis=1) @ back[:2, :2].T + back[:2, 2]
    origin = unbent.copy()
    for _ in range(20):
        bend = np.stack([np.sin(2 * math.pi * origin[:, 1] / side), np.cos(2 * math.pi * origin[:, 0] / side)], axis=1)
        origin = unbent - warp_px * bend
    maps = (origin - 0.5).astype(np.float32).reshape(side, side, 2)
    return cv2.remap(density, maps[..., 0], maps[..., 1], cv2.INTER_CUBIC, borderValue=0).clip(0), truth


def turn(
    degrees: float, *, side: int = 224, mirrored: bool = False, scale: float = 1.0, shift=(0.0, 0.0)
) -> np.ndarray:
    """A rotation about the picture's middle, after mirroring."""
    angle = math.radians(degrees)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    if mirrored:
        linear = linear @ np.diag([-1.0, 1.0])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = side / 2 + np.array(shift) - linear @ np.full(2, side / 2)
    return matrix


def as_slides(he_density, ihc_density, *, seed=0):
    he = ArraySlide(stain(he_density, (0.6, 1.0, 0.5), seed), mpp=MPP, slide_id="case-he")
    ihc = ArraySlide(stain(ihc_density * 0.7, (0.8, 0.7, 0.4), seed + 1), mpp=MPP, slide_id="case-ihc")
    return he, ihc
