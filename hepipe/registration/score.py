"""How well a pair lies on each other: likeness of structure, overlap of tissue, landmark error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from hepipe.geometry import Transform, identity
from hepipe.registration.ncc import Comparison
from hepipe.registration.overview import Pictures, features, look, positions, rescale, shrink_features

SCORE_PX = 512
"""Longer side of the pictures that are compared."""
SIGMA_PX = 7.0


@dataclass(frozen=True)
class Likeness:
    """Of the warped IHC picture and the H&E picture.

    Attributes:
        similarity: Mean local correlation of structure and tissue mask over the tissue of either slide, -1 to 1;
            tissue that the other slide does not show counts 0.
        tissue_dice: Overlap of both tissue masks, 0 to 1.
    """

    similarity: float
    tissue_dice: float


class Judge:
    """Scores transforms of one pair, always on the same two pictures."""

    def __init__(self, pictures: Pictures) -> None:
        self.fixed = features(pictures.fixed)
        self.moving = features(pictures.moving)
        factor = min(1.0, SCORE_PX / max(self.fixed.shape[1:]))
        self.mpp = pictures.mpp / factor
        self._comparison = Comparison(
            shrink_features(self.fixed, factor), shrink_features(self.moving, factor), sigma=SIGMA_PX
        )

    @property
    def has_tissue(self) -> tuple[bool, bool]:
        """Whether the H&E and the IHC picture show any."""
        return bool((self.fixed[-1] > 0.5).any()), bool((self.moving[-1] > 0.5).any())

    def score(self, transform: Transform) -> Likeness:
        """Likeness under a transform between the slides."""
        shape = (self._comparison.fixed.shape[1], self._comparison.fixed.shape[2])
        at = positions(rescale(transform, fixed_mpp=self.mpp, moving_mpp=self.mpp), shape=shape)
        return Likeness(self._comparison.score(at), self._dice(at))

    def _dice(self, at: Float32[np.ndarray, "2 h w"]) -> float:
        fixed = self._comparison.fixed[-1] > 0.5
        moving = look(self._comparison.moving[-1], at) > 0.5
        both = int(fixed.sum()) + int(moving.sum())
        return 2 * int((fixed & moving).sum()) / both if both else 0.0


def landmark_error(
    transform: Transform,
    he_px0: Float[np.ndarray, "n 2"],
    ihc_px0: Float[np.ndarray, "n 2"],
    *,
    ihc_size_px0: tuple[int, int],
) -> dict[str, Any]:
    """Distances between moved H&E landmarks and their partners, before (same physical place) and after.

    `rtre` is the distance as a share of the IHC slide's diagonal, as in the ANHIR challenge.
    """
    still = identity(fixed_mpp=transform.fixed_mpp, moving_mpp=transform.moving_mpp)
    diagonal = float(np.hypot(*ihc_size_px0))
    before, after = (np.linalg.norm(one(he_px0) - ihc_px0, axis=1) for one in (still, transform))
    return {
        "n": len(he_px0),
        "before_um": _spread(before * transform.moving_mpp),
        "after_um": _spread(after * transform.moving_mpp),
        "rtre_before_median": float(np.median(before)) / diagonal,
        "rtre_median": float(np.median(after)) / diagonal,
        "rtre_p90": float(np.percentile(after, 90)) / diagonal,
        "closer_frac": float((after < before).mean()),
    }


def _spread(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    return {"median": float(np.median(values)), "p90": float(np.percentile(values, 90))}
