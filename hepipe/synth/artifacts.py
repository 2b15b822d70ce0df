"""Artifacts of either slide, each from barely visible (severity near 0) to gross (1), and the mask that says where.

Three places in the drawing take them: substance that is missing (tear) or doubled (fold), light that is blocked or
blurred (the others). Each works in its slide's own frame, so truth and pixels share a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hepipe.synth.noise import Field, blobs, ramp
from hepipe.synth.plan import LABELS, MPP, Look, Planted

MASK_UM = 4.0
"""Resolution of the artifact masks of the truth, µm per px."""


@dataclass(frozen=True)
class Placed:
    """An artifact with its place: 1 where it is in full, 0 where it is not; level 0 of its slide."""

    planted: Planted
    cover: Field

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """Where a person would outline it."""
        return np.asarray(self.cover > 0.35)


def place(planted: Planted, tissue: Field, rng: np.random.Generator, others: Sequence[Placed] = ()) -> Placed:
    """Choose where an artifact lies: over tissue, since elsewhere nobody minds it, and off the others if it can.

    Args:
        planted: What to place.
        tissue: Substance of the slide, 0 to 1, level 0.
        rng: Generator of this artifact alone.
        others: Those placed before on this slide.
    """
    best, least = _placed(planted, tissue, rng), np.inf
    tried = best
    for _ in range(5):
        shared = sum(float((tried.mask & other.mask).sum()) for other in others) / max(float(tried.mask.sum()), 1)
        if shared < least:
            best, least = tried, shared
        if shared < 0.02:
            break
        tried = _placed(planted, tissue, rng)
    return best


def _placed(planted: Planted, tissue: Field, rng: np.random.Generator) -> Placed:
    size = 0.6 + 0.8 * planted.severity
    reach = float(np.sqrt((tissue > 0.3).sum()))
    center = _on_tissue(tissue, rng)
    kind = planted.kind
    if kind == "pen":
        cover = _stroke(tissue.shape, center, 1.0 * reach, 26 * size / MPP, rng, bend=0.5)
    elif kind == "fold":
        cover = _stroke(tissue.shape, center, 0.55 * reach, 13 * size / MPP, rng, bend=0.35) * np.clip(tissue * 2, 0, 1)
    elif kind == "tear":
        cover = _tear(tissue.shape, center, 0.4 * reach * size, 14 * size * (0.3 + planted.severity) / MPP, rng)
    elif kind == "edge":
        cover = _beyond_edge(tissue, rng)
    elif kind in ("blur", "doubling", "shade"):
        cover = _blob(tissue.shape, center, (0.2 if kind == "shade" else 0.15) * reach * size, rng)
    else:
        cover = _blob(tissue.shape, center, 0.12 * reach * size, rng, wobble=0.06)
    return Placed(planted, cover)


def change_substance(substance: dict[str, Field], placed: Placed) -> None:
    """Tear: nothing is left. Fold: two layers lie on each other. Other kinds leave the section as it is."""
    kind, severity = placed.planted.kind, placed.planted.severity
    if kind not in ("tear", "fold"):
        return
    factor = 1 - placed.cover if kind == "tear" else 1 + (0.25 + 1.6 * severity) * placed.cover
    for name in substance:
        substance[name] = substance[name] * factor.astype(np.float32)


def change_density(
    od: Float[np.ndarray, "h w 3"], placed: Placed, rng: np.random.Generator
) -> Float[np.ndarray, "h w 3"]:
    """Ink, dirt, shade and the rims of bubbles and coverslips: light that the slide takes away."""
    kind, severity, cover = placed.planted.kind, placed.planted.severity, placed.cover
    if kind == "pen":
        inks = np.array([[1.1, 0.62, 0.12], [0.95, 0.25, 0.75], [1.0, 1.0, 0.95]], np.float32)
        ink = inks[int(rng.integers(3))] * np.float32(0.02 + 1.15 * severity)
        uneven = np.clip(1 + 0.12 * blobs(rng, cover.shape, 12.0) + 0.06 * blobs(rng, cover.shape, 2.0), 0.3, None)
        od += (cover * uneven)[..., None] * ink
    elif kind == "shade":
        od += (np.float32(0.04 + 0.4 * severity) * cover)[..., None] * np.array([0.95, 1, 1.05], np.float32)
    elif kind in ("bubble", "edge"):
        rim = _rim(cover, 3.0 / MPP if kind == "bubble" else 2.0 / MPP)
        od += (np.float32(0.1 + 0.9 * severity) * rim)[..., None]
        if kind == "edge":
            veil = np.float32(0.04 + 0.14 * severity) * cover
            od += veil[..., None] * np.array([0.8, 0.9, 1.2], np.float32)
        else:
            od *= (1 - np.float32(0.1 + 0.45 * severity) * cover * (1 - np.clip(rim, 0, 1)))[..., None]
    return od


def change_picture(pixels: UInt8[np.ndarray, "h w 3"], placed: Placed, look: Look) -> UInt8[np.ndarray, "h w 3"]:
    """Out of focus, bubbles and stitching ghosts: what the optics and the stage add."""
    kind, severity = placed.planted.kind, placed.planted.severity
    if kind not in ("blur", "bubble", "doubling"):
        return pixels
    rows, columns = np.nonzero(placed.cover > 0)
    if not len(rows):
        return pixels
    margin = 40
    top, bottom = max(rows.min() - margin, 0), rows.max() + margin
    left, right = max(columns.min() - margin, 0), columns.max() + margin
    region = pixels[top:bottom, left:right].astype(np.float32)
    share = placed.cover[top:bottom, left:right, None]
    if kind == "doubling":
        step = round((2 + 14 * severity) / MPP / 2)
        ghost = cv2.warpAffine(
            region,
            np.array([[1, 0, step], [0, 1, step // 2]], np.float32),
            region.shape[1::-1],
            borderMode=cv2.BORDER_REPLICATE,
        )
        changed = region * np.float32(1 - 0.5 * (0.25 + 0.75 * severity)) + ghost * np.float32(
            0.5 * (0.25 + 0.75 * severity)
        )
    else:
        sigma = (0.5 + 7 * severity) * (0.5 if kind == "bubble" else 1.0)
        changed = cv2.GaussianBlur(region, (0, 0), sigma)
        changed += np.float32(0.5 * look.noise) * _fixed_noise(region.shape[:2])[..., None]
    mixed = region + share * (changed - region)
    result = pixels.copy()
    result[top:bottom, left:right] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return result


def mask_of(placed: list[Placed], shape: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Labels of the kinds at `MASK_UM`, 0 where the slide is clean; a later artifact lies on top."""
    px = round(MASK_UM / MPP)
    rows, columns = -(-shape[0] // px), -(-shape[1] // px)
    labels = np.zeros((rows, columns), np.uint8)
    for one in placed:
        full = np.zeros((rows * px, columns * px), np.float32)
        full[: shape[0], : shape[1]] = one.mask
        share = full.reshape(rows, px, columns, px).mean(axis=(1, 3))
        labels[share >= 0.5] = LABELS[one.planted.kind]
    return labels


def records(placed: list[Placed], labels: UInt8[np.ndarray, "h w"]) -> list[dict[str, float | int | str]]:
    """What the truth says of each artifact; the area is what `mask_of` shows of it."""
    return [
        {
            "kind": one.planted.kind,
            "severity": one.planted.severity,
            "stain": one.planted.stain,
            "area_um2": float((labels == LABELS[one.planted.kind]).sum() * MASK_UM**2),
            "label": LABELS[one.planted.kind],
        }
        for one in placed
    ]


def _fixed_noise(shape: tuple[int, int]) -> Field:
    return np.random.default_rng(7).standard_normal(shape, np.float32)


def _on_tissue(tissue: Field, rng: np.random.Generator) -> tuple[float, float]:
    """A px (x, y) well inside the tissue."""
    step = 16
    small = cv2.blur(np.ascontiguousarray(tissue[::step, ::step]), (7, 7))
    rows, columns = np.nonzero(small >= 0.8 * small.max())
    pick = int(rng.integers(len(rows)))
    return float(columns[pick] * step), float(rows[pick] * step)


def _distance(mask: Bool[np.ndarray, "h w"]) -> Field:
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _line(
    shape: tuple[int, int], center: tuple[float, float], length: float, rng: np.random.Generator, bend: float
) -> Bool[np.ndarray, "h w"]:
    """A curve through a point."""
    t = np.linspace(-0.5, 0.5, 60)
    turn = rng.uniform(0, np.pi)
    along = t * length
    aside = bend * length * (rng.normal(0, 0.35) * t**2 * 2 + 0.12 * np.sin(7 * t + rng.uniform(0, 6)))
    points = np.stack(
        [
            center[0] + along * np.cos(turn) - aside * np.sin(turn),
            center[1] + along * np.sin(turn) + aside * np.cos(turn),
        ],
        1,
    )
    drawn = np.zeros(shape, np.uint8)
    cv2.polylines(drawn, [np.round(points).astype(np.int32)], isClosed=False, color=1, thickness=1)
    return np.asarray(drawn > 0)


def _stroke(
    shape: tuple[int, int],
    center: tuple[float, float],
    length: float,
    half: float,
    rng: np.random.Generator,
    *,
    bend: float,
) -> Field:
    line = _line(shape, center, length, rng, bend)
    return ramp(half * (1 + 0.15 * blobs(rng, shape, 30.0)) - _distance(line), 3.0)


def _tear(
    shape: tuple[int, int], center: tuple[float, float], length: float, half: float, rng: np.random.Generator
) -> Field:
    """A slit, widest in the middle, with frayed sides."""
    line = _line(shape, center, length, rng, 0.4)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    along = np.hypot(x - center[0], y - center[1]) / (length / 2)
    width = half * np.clip(1 - along**2, 0, 1) * (1 + 0.35 * blobs(rng, shape, 10.0)) + 0.8 * blobs(rng, shape, 3.0)
    return np.asarray(ramp(width - _distance(line), 2.0) * (along < 1), np.float32)


def _blob(
    shape: tuple[int, int], center: tuple[float, float], radius: float, rng: np.random.Generator, *, wobble: float = 0.2
) -> Field:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    reach = radius * (1 + np.float32(wobble) * blobs(rng, shape, max(radius / 2, 4.0)))
    soft = 3.0 if wobble < 0.1 else max(0.5 * radius, 4)
    return ramp(reach - np.hypot(x - center[0], y - center[1]), soft)


def _beyond_edge(tissue: Field, rng: np.random.Generator) -> Field:
    """The half plane beyond a coverslip's edge that cuts off a corner of the tissue."""
    rows, columns = np.nonzero(tissue[::8, ::8] > 0.3)
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : tissue.shape[0], 0 : tissue.shape[1]].astype(np.float32)
    depth = columns * 8 * np.cos(turn) + rows * 8 * np.sin(turn)
    cut = float(np.quantile(depth, rng.uniform(0.86, 0.95)))
    return ramp(x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn)) - cut, 2.0)


def _rim(cover: Field, sigma: float) -> Field:
    """A band along the border of a cover, 1 on it."""
    step = cv2.GaussianBlur(cover, (0, 0), sigma)
    return np.asarray(4 * step * (1 - step), np.float32) ** 2
