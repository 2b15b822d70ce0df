"""Optical density and the amounts of stains in a picture.

Beer and Lambert: `od = -log10(v / white)` is the sum over stains of amount times vector, so `amounts = od @ inv(M)`.
scikit-image's `rgb2hed` is something else: it divides by ln(1e-6), that is by 6, and lets eosin absorb DAB.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

WHITE = (255.0, 255.0, 255.0)
_STRIP = 64  # rows; a strip of OD stays in the cache


def density_table(white: Sequence[float] = WHITE) -> Float32[np.ndarray, "1 256 3"]:
    """Optical density (base 10) of each grey value of each channel; 0 counts as 1."""
    values = np.maximum(np.arange(256, dtype=np.float64), 1.0)
    table = -np.log10(values[:, None] / np.asarray(white, np.float64))
    return np.ascontiguousarray(table[None], np.float32)


def optical_density(rgb: UInt8[np.ndarray, "h w 3"], white: Sequence[float] = WHITE) -> Float32[np.ndarray, "h w 3"]:
    """Optical density of a picture; negative where it is brighter than `white`."""
    density: np.ndarray = cv2.LUT(rgb, density_table(white))
    return density


def separate(od: Float[np.ndarray, "*s 3"], matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "*s 3"]:
    """Amounts of the three rows of `matrix` in an optical density; negative ones become 0."""
    amounts: np.ndarray = np.maximum(od @ np.linalg.inv(matrix).astype(od.dtype), 0)
    return amounts


class Separator:
    """Amounts of chosen stains in 8-bit pictures, quickly: a table look-up and one product per stain, in strips.

    The table is that of pure white for all channels, which OpenCV looks up nearly twice as fast as three tables; the
    slide's own white is then the constant of each product.

    Attributes:
        weights: A row per stain, from optical density.
        white: What an empty slide shows, per channel.
    """

    def __init__(
        self,
        matrix: Float[np.ndarray, "3 3"],
        white: Sequence[float] = WHITE,
        stains: Sequence[int] = (0, 1),
    ) -> None:
        """Prepare.

        Args:
            matrix: Rows are stains, as `stain_matrix` makes it.
            white: What an empty slide shows, per channel.
            stains: Which rows to return.
        """
        self.weights = np.ascontiguousarray(np.linalg.inv(matrix).T[list(stains)], np.float32)
        self.white = tuple(white)
        self._table = np.ascontiguousarray(density_table()[0, :, 0])
        constant = self.weights.astype(np.float64) @ np.log10(np.asarray(white, np.float64) / WHITE)
        self._products = np.column_stack([self.weights, constant]).astype(np.float32)

    def __call__(
        self, rgb: UInt8[np.ndarray, "h w 3"], out: Float32[np.ndarray, "n h w"] | None = None
    ) -> Float32[np.ndarray, "n h w"]:
        """One plane per stain, OD units, 0 or more.

        Args:
            rgb: The picture.
            out: Filled and returned when given; fresh pages cost half of the time.
        """
        height, width = rgb.shape[:2]
        amounts = np.empty((len(self.weights), height, width), np.float32) if out is None else out
        density = np.empty((min(_STRIP, height), width, 3), np.float32)
        for top in range(0, height, _STRIP):
            rows = rgb[top : top + _STRIP]
            strip = density[: len(rows)]
            cv2.LUT(rows.reshape(len(rows), -1), self._table, dst=strip.reshape(len(rows), -1))
            for plane, product in zip(amounts, self._products, strict=True):
                amount = plane[top : top + _STRIP]
                cv2.transform(strip, product[None], dst=amount)
                # Quicker than a maximum with 0, and the same.
                cv2.threshold(amount, 0.0, 0.0, cv2.THRESH_TOZERO, dst=amount)
        return amounts
