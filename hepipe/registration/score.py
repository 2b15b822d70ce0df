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
SIGMA_PX = 4.0
"""Of the windows. Narrow ones part true pairs from wrong ones best: with the default chain seven real and nine drawn
pairs reached 0.17 and more, eight and nine wrong ones 0.14 and less; with 7 px real pairs had 0.22 against 0.17."""
COARSE_PX = 256
COARSE_SIGMA_PX = 7.0
"""For choosing between starts, which are not yet exact."""


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
        self.fixed = features(pictures.fixed, mpp=pictures.mpp)
        self.moving = features(pictures.moving, mpp=pictures.mpp)
        self._fine = self._at(SCORE_PX, SIGMA_PX, pictures.mpp)
        self._coarse = self._at(COARSE_PX, COARSE_SIGMA_PX, pictures.mpp)

    @property
    def has_tissue(self) -> tuple[bool, bool]:
        """Whether the H&E and the IHC picture show any."""
        return bool((self.fixed[-1] > 0.5).any()), bool((self.moving[-1] > 0.5).any())

    def score(self, transform: Transform) -> Likeness:
        """Likeness under a transform between the slides."""
        comparison, at = self._places(self._fine, transform)
        return Likeness(comparison.score(at), _dice(comparison, at))

    def rank(self, transform: Transform) -> float:
        """A similarity that forgives small errors, for choosing between starts."""
        comparison, at = self._places(self._coarse, transform)
        return comparison.score(at)

    def _at(self, longest: int, sigma: float, mpp: float) -> tuple[Comparison, float]:
        factor = min(1.0, longest / max(self.fixed.shape[1:]))
        fixed, moving = shrink_features(self.fixed, factor), shrink_features(self.moving, factor)
        return Comparison(fixed, moving, sigma=sigma), mpp / factor

    @staticmethod
    def _places(scale: tuple[Comparison, float], transform: Transform) -> tuple[Comparison, np.ndarray]:
        comparison, mpp = scale
        shape = (comparison.fixed.shape[1], comparison.fixed.shape[2])
        return comparison, positions(rescale(transform, fixed_mpp=mpp, moving_mpp=mpp), shape=shape)


def _dice(comparison: Comparison, at: Float32[np.ndarray, "2 h w"]) -> float:
    fixed = comparison.fixed[-1] > 0.5
    moving = look(comparison.moving[-1], at) > 0.5
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
