"""How well a pair lies on each other: likeness of structure, overlap of tissue, folds, residuals, landmark error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from hepipe.geometry import Transform, identity, sample_field
from hepipe.registration.ncc import Comparison
from hepipe.registration.overview import (
    Pictures,
    features,
    lies_on,
    look,
    positions,
    resample,
    rescale,
    shrink_features,
)
from hepipe.registration.similarity import correlation, low_pass, mutual_information, structure_lead
from hepipe.registration.transform import grid_points, jacobian
from hepipe.tissue.otsu import mean_od

SCORE_PX = 512
"""Longer side of the pictures that are compared."""
SIGMA_PX = 4.0
"""Of the windows. Narrow ones part true pairs from wrong ones best: with the default chain seven real and nine drawn
pairs reached 0.17 and more, eight and nine wrong ones 0.14 and less; with 7 px real pairs had 0.22 against 0.17."""
COARSE_PX = 256
COARSE_SIGMA_PX = 7.0
"""For choosing between starts, which are not yet exact."""
SIZE_POINTS = 5000


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
        self._density = tuple(
            resample(low_pass(mean_od(rgb).astype(np.float32), mpp=pictures.mpp), pictures.mpp / self._fine[1])
            for rgb in (pictures.fixed, pictures.moving)
        )

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

    def lead(self, transform: Transform) -> float:
        """How much more alike the inner structure is in its place than moved aside; see `structure_lead`."""
        return self.piece_leads(transform, None)[0]

    def piece_leads(
        self, transform: Transform, labels: UInt8[np.ndarray, "h w"] | None, numbers: Sequence[int] = ()
    ) -> list[float]:
        """`lead` of all tissue, then of each numbered piece of a label map of the H&E picture."""
        comparison, at = self._places(self._fine, transform)
        seen = np.stack([look(channel, at) for channel in comparison.moving])
        height, width = comparison.fixed.shape[1:]
        parts = []
        if labels is not None:
            small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
            parts = [small == number for number in numbers]
        return structure_lead(comparison.fixed, seen, parts)

    def shared(self, transform: Transform) -> dict[str, float | None]:
        """`nmi` (1 to 2) and `ncc_od_lp` (-1 to 1) of the low-passed densities over the tissue of either slide.

        None where the pictures hardly overlap. Both see the outline too, and neither tells a consecutive section from
        a stranger: they are for reading, not for the verdict.
        """
        comparison, at = self._places(self._fine, transform)
        fixed, moving = self._density
        seen = look(moving, at)
        tissue = np.maximum(comparison.fixed[-1], look(comparison.moving[-1], at)) > 0.5
        area = tissue & lies_on(at, moving.shape)
        values = (mutual_information(fixed[area], seen[area]), correlation(fixed[area], seen[area]))
        return dict(zip(("nmi", "ncc_od_lp"), (None if math.isnan(v) else v for v in values), strict=True))

    def size(self, transform: Transform) -> float:
        """How large the IHC section is against the H&E section, µm by µm: the similarity nearest to the transform.

        Least squares over the H&E tissue (Umeyama 1991). On drawn pairs with warps it met the true one to 0.3 %; the
        affine step's own scale takes warps for size and was off by 2 %.
        """
        mask = self._fine[0].fixed[-1]
        rows, columns = np.nonzero(mask > 0.5)
        step = max(1, len(rows) // SIZE_POINTS)
        points = (np.stack([columns, rows], axis=1)[::step] + 0.5) * (self._fine[1] / transform.fixed_mpp)
        fixed, moved = points * transform.fixed_mpp, transform(points) * transform.moving_mpp
        fixed, moved = fixed - fixed.mean(axis=0), moved - moved.mean(axis=0)
        along = np.linalg.svd(fixed.T @ moved, compute_uv=False)
        return float(along.sum() / (fixed**2).sum())

    def local_sizes(self, transform: Transform) -> tuple[float, float]:
        """Between what the section's size varies over the H&E tissue: 5th and 95th percentile, as `size` measures it.

        A wrong mpp makes all of the tissue larger or smaller, a warp some of it.
        """
        low, high = np.percentile(np.sqrt(np.maximum(self._on_tissue(transform), 0)), (5, 95))
        return float(low), float(high)

    def folds(self, transform: Transform) -> dict[str, float]:
        """Least and largest Jacobian determinant over the H&E tissue, and the share of it that is 0 or less."""
        values = self._on_tissue(transform)
        return {
            "jac_min": float(values.min()),
            "jac_max": float(values.max()),
            "fold_frac": float((values <= 0).mean()),
        }

    def _on_tissue(self, transform: Transform) -> Float[np.ndarray, " n"]:
        """The Jacobian determinant between grid points on H&E tissue, positive where nothing folds; never empty."""
        determinant = jacobian(transform)
        if transform.field_um is None:
            return determinant.ravel()
        comparison, mpp = self._fine
        height, width = comparison.fixed.shape[1:]
        size = (round(width * mpp / transform.fixed_mpp), round(height * mpp / transform.fixed_mpp))
        points, shape = grid_points(size, mpp=transform.fixed_mpp, grid_um=transform.grid_um)
        mask = sample_field(comparison.fixed[-1:].repeat(2, axis=0), points * (transform.fixed_mpp / mpp))[0][:, 0]
        rows, columns = (min(a, b) for a, b in zip(shape, determinant.shape, strict=True))
        values: np.ndarray = determinant[:rows, :columns][mask.reshape(shape)[:rows, :columns] > 0.5]
        return values if values.size else np.ones(1)

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


def residual_summary(residuals: Float32[np.ndarray, "n 7"] | None) -> dict[str, Any] | None:
    """What the windows of the finest level still see: `p50_um`, `p90_um` of the kept ones, `kept_frac`, `n`.

    Args:
        residuals: Columns `stores.arrays.RESIDUAL_COLUMNS`; None where no step looked at windows.

    Returns:
        None without a window. A registrar's word on itself: small where it kept only what it could follow, so read it
        beside `kept_frac`.
    """
    if residuals is None or not len(residuals):
        return None
    finest = residuals[residuals[:, 6] == residuals[:, 6].min()]
    kept = finest[finest[:, 5] > 0.5]
    length = np.hypot(kept[:, 2], kept[:, 3])
    p50, p90 = (float(v) for v in np.percentile(length, (50, 90))) if len(kept) else (None, None)
    return {"n": len(finest), "kept_frac": len(kept) / len(finest), "p50_um": p50, "p90_um": p90}


def landmark_error(
    transform: Transform,
    he_px0: Float[np.ndarray, "n 2"],
    ihc_px0: Float[np.ndarray, "n 2"],
    *,
    ihc_size_px0: tuple[int, int],
) -> dict[str, Any]:
    """Distances between H&E landmarks sent through `ihc_from_he` and their partners, on the IHC slide.

    `tre_before_um` is of the same physical place, unregistered. `rtre` is the distance as a share of the IHC slide's
    diagonal and `robustness` the share of landmarks strictly closer than before, both as in the ANHIR challenge.
    """
    still = identity(fixed_mpp=transform.fixed_mpp, moving_mpp=transform.moving_mpp)
    diagonal = float(np.hypot(*ihc_size_px0))
    before, after = (np.linalg.norm(one(he_px0) - ihc_px0, axis=1) for one in (still, transform))
    return {
        "n": len(he_px0),
        "tre_before_um": _spread(before * transform.moving_mpp),
        "tre_um": _spread(after * transform.moving_mpp),
        "rtre_before": _spread(before / diagonal),
        "rtre": _spread(after / diagonal),
        "robustness": float((after < before).mean()),
    }


def _spread(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "p90": float(np.percentile(values, 90)),
        "max": float(values.max()),
    }
