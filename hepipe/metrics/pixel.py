"""Errors of pixels between two 8-bit tiles. None of them forgives a shift, and all of them favour blur."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8

Tile = UInt8[np.ndarray, "h w 3"]


def mae(fake: Tile, real: Tile) -> float:
    """Mean absolute error over pixels and channels; lower is better, 0 to 255."""
    return float(np.abs(_difference(fake, real)).mean())


def mse(fake: Tile, real: Tile) -> float:
    """Mean squared error over pixels and channels; lower is better, 0 to 255²."""
    return float((_difference(fake, real).astype(np.float64) ** 2).mean())


def psnr(fake: Tile, real: Tile) -> float:
    """Peak signal-to-noise ratio over all channels at once, dB; higher is better.

    Identical tiles give inf, which callers count apart and leave out of means.
    """
    error = mse(fake, real)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _difference(fake: np.ndarray, real: np.ndarray) -> np.ndarray:
    assert fake.shape == real.shape, (fake.shape, real.shape)
    difference: np.ndarray = fake.astype(np.int32) - real.astype(np.int32)
    return difference
