"""Stain vectors: optical density per channel (red, green, blue) of one unit of a stain.

Haematoxylin and DAB: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001.
Eosin: QuPath's default for brightfield H&E (Bankhead et al., 2017); Ruifrok's (0.07, 0.99, 0.11) is a pure dye's.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Vector = tuple[float, float, float]

HAEMATOXYLIN: Vector = (0.65, 0.70, 0.29)
EOSIN: Vector = (0.2159, 0.8012, 0.5581)
DAB: Vector = (0.27, 0.57, 0.78)


def stain_matrix(first: Vector, second: Vector) -> Float[np.ndarray, "3 3"]:
    """Rows: two stains of unit length and their normalised cross product, which takes what neither explains.

    Raises:
        ValueError: The two vectors are parallel.
    """
    a, b = (np.asarray(v, np.float64) / np.linalg.norm(v) for v in (first, second))
    residual = np.cross(a, b)
    length = float(np.linalg.norm(residual))
    if length < 1e-6:
        raise ValueError(f"stain vectors {first} and {second} are parallel")
    matrix: np.ndarray = np.stack([a, b, residual / length])
    return matrix


def angle_deg(first: Vector, second: Vector) -> float:
    """The angle between two vectors, degrees."""
    a, b = (np.asarray(v, np.float64) / np.linalg.norm(v) for v in (first, second))
    return float(np.degrees(np.arccos(np.clip(a @ b, -1.0, 1.0))))
