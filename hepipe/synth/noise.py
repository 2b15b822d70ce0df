"""Random fields from a named generator: smooth blobs, grain, and streaks that follow a direction."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "h w"]


def generator(*keys: int | str) -> np.random.Generator:
    """A generator that depends on its keys alone, so that parts of a case can be drawn in any order."""
    return np.random.default_rng([key if isinstance(key, int) else zlib.crc32(key.encode()) for key in keys])


def blobs(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Field:
    """Isotropic Gaussian noise of correlation length `sigma_px`, mean 0 and standard deviation 1.

    Drawn on a coarser grid when the blobs are large: a wide blur at full resolution costs seconds and shows nothing.
    """
    step = max(1, int(sigma_px // 3))
    margin = int(np.ceil(3 * sigma_px / step))
    height, width = (-(-side // step) + 2 * margin for side in shape)
    coarse = rng.standard_normal((height, width), np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma_px / step, borderType=cv2.BORDER_REFLECT)
    coarse -= coarse.mean()
    coarse /= max(float(coarse.std()), 1e-6)
    inner = coarse[margin : height - margin, margin : width - margin]
    if step == 1:
        return np.ascontiguousarray(inner)
    size = (inner.shape[1] * step, inner.shape[0] * step)
    return np.ascontiguousarray(cv2.resize(inner, size, interpolation=cv2.INTER_CUBIC)[: shape[0], : shape[1]])


def streaks(grain: Field, direction: Float[np.ndarray, "2 h w"], doublings: int) -> Field:
    """Grain smeared along a direction field (x, y of unit length) over 2 ** doublings px.

    Each step averages the picture with itself moved twice as far, so a line of 2 ** n px takes n interpolations.
    """
    height, width = grain.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for step in range(doublings):
        reach = np.float32(2**step)
        moved = cv2.remap(
            grain, x + reach * direction[0], y + reach * direction[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        grain = (grain + moved) * np.float32(0.5)
    grain = grain - grain.mean()
    return np.asarray(grain / max(float(grain.std()), 1e-6), np.float32)


def ramp(field: Field, softness: float) -> Field:
    """0 where the field is well below 0, 1 where well above, a smooth step of width `softness` between."""
    t = np.clip(field / softness + 0.5, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def enlarge(field: Field, shape: tuple[int, int]) -> Float[np.ndarray, "p q"]:
    """A field on a coarse grid, bilinear, on a finer one over the same rectangle."""
    return np.asarray(cv2.resize(field.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))
