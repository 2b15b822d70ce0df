"""Agreement of the DAB stain between a virtual and a real IHC tile, without weights.

All of it goes by optical density (base 10, white 255) unmixed with the fixed vectors of haematoxylin and DAB, the same
for both pictures: a slide's own vectors would hide that a model draws DAB in another colour. DAB does not obey Beer and
Lambert: its density is an index that is not linear in antigen, so shares of area lead, and absolute thresholds do not
carry over between laboratories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from skimage.color import hed_from_rgb

from hepipe.stains.deconvolution import separate
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, Vector, stain_matrix

WHITE = 255.0
TISSUE_OD = 0.05
TISSUE_SMOOTH_PX = 5
HISTOGRAM_BINS = 150
FIXED_HISTOGRAM_OD = (0.0, 2.0)

Density = Float[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Densities:
    """Optical densities of one IHC tile, 0 and above."""

    haematoxylin: Density
    dab: Density


def separate_hdab(tile: UInt8[np.ndarray, "h w 3"]) -> Densities:
    """Haematoxylin and DAB of an IHC tile; what neither explains goes to a residual, negative amounts become 0."""
    return Densities(*_amounts(tile, HAEMATOXYLIN, DAB))


def haematoxylin_of_he(tile: UInt8[np.ndarray, "h w 3"]) -> Density:
    """Haematoxylin of an H&E tile, unmixed from eosin."""
    return _amounts(tile, HAEMATOXYLIN, EOSIN)[0]


def tissue_of_tile(tile: UInt8[np.ndarray, "h w 3"]) -> Mask:
    """Where a tile is not glass: mean density over the channels, smoothed by 5 px, at least 0.05.

    Taken of the real tile and used for both, so that a model gains nothing by painting the glass.
    """
    od = _od_of_value()[tile].mean(axis=2)
    mask: np.ndarray = cv2.blur(od, (TISSUE_SMOOTH_PX, TISSUE_SMOOTH_PX)) >= TISSUE_OD
    return mask


def integrated_od(dab: Density, mask: Mask | None = None) -> float:
    """Sum of the DAB index, of all px or of those in the mask."""
    return float(dab.sum() if mask is None else dab[mask].sum())


def bands(dab: Density, tissue: Mask, *, thresholds_od: Sequence[float]) -> tuple[float, float, float]:
    """Shares of tissue that are weak, moderate and strong; nan without tissue.

    The three thresholds ascend: weak is from the first to below the second, strong from the third on.
    """
    if not tissue.any():
        return (math.nan, math.nan, math.nan)
    first, second, third = (float((dab[tissue] >= threshold).mean()) for threshold in thresholds_od)
    return (first - second, second - third, third)


def hscore(shares: tuple[float, float, float]) -> float:
    """Pixel H-score, 0 to 300: 100 (weak + 2 moderate + 3 strong). It counts px, not cells or membranes."""
    weak, moderate, strong = shares
    return 100 * (weak + 2 * moderate + 3 * strong)


@dataclass(frozen=True)
class Overlap:
    """Agreement of two masks; shares 0 to 1, higher is better. nan where the ratio has nothing below the line."""

    dice: float
    iou: float
    tpr: float
    tnr: float


def overlap(virtual: Mask, real: Mask) -> Overlap:
    """Overlap of two DAB-positive masks.

    Two empty masks: Dice, IoU and the true-positive rate are undefined (nan, counted by the caller). Misregistration
    lowers all of them, so read them beside `pos_fraction_error`, which ignores place.
    """
    both = int((virtual & real).sum())
    n_virtual, n_real = int(virtual.sum()), int(real.sum())
    neither = virtual.size - n_virtual - n_real + both

    def share(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    return Overlap(
        dice=share(2 * both, n_virtual + n_real),
        iou=share(both, n_virtual + n_real - both),
        tpr=share(both, n_real),
        tnr=share(neither, virtual.size - n_real),
    )


@dataclass(frozen=True)
class BoundaryDistance:
    """Distances between the outlines of two masks; lower is better, in the unit of `mpp`. nan if one is empty."""

    hausdorff: float
    hausdorff95: float
    mean: float


def boundary_distance(virtual: Mask, real: Mask, *, mpp: float = 1.0) -> BoundaryDistance:
    """Largest, 95th-percentile and mean distance from each outline to the other.

    The largest hangs on single px, so the 95th percentile is what is reported.
    """
    if not (virtual.any() and real.any()):
        return BoundaryDistance(math.nan, math.nan, math.nan)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (virtual, real)]
    to_real = ndimage.distance_transform_edt(~edges[1], sampling=mpp)[edges[0]]
    to_virtual = ndimage.distance_transform_edt(~edges[0], sampling=mpp)[edges[1]]
    return BoundaryDistance(
        hausdorff=float(max(to_real.max(), to_virtual.max())),
        hausdorff95=float(max(np.percentile(to_real, 95), np.percentile(to_virtual, 95))),
        mean=float(np.concatenate([to_real, to_virtual]).mean()),
    )


def hausdorff_points(virtual: Mask, real: Mask, *, mpp: float = 1.0) -> float:
    """Hausdorff distance of two sets of positive px, as scikit-image and ITK define it; nan if one is empty."""
    if not (virtual.any() and real.any()):
        return math.nan
    to_real = ndimage.distance_transform_edt(~real, sampling=mpp)[virtual].max()
    to_virtual = ndimage.distance_transform_edt(~virtual, sampling=mpp)[real].max()
    return float(max(to_real, to_virtual))


def histogram_distance(virtual: Density, real: Density) -> float:
    """Jensen-Shannon distance (base 2) of DAB histograms, 150 bins from 0 to 2 OD; 0 to 1, lower is better.

    Denser px count in the last bin. Blind to place.
    """
    low, high = FIXED_HISTOGRAM_OD
    counts = [
        np.histogram(np.clip(dab, low, high), bins=HISTOGRAM_BINS, range=(low, high))[0] for dab in (virtual, real)
    ]
    return _jensen_shannon(counts[0], counts[1])


def histogram_distance_own_range(virtual: UInt8[np.ndarray, "h w 3"], real: UInt8[np.ndarray, "h w 3"]) -> float:
    """The same as CSSP2P's code computes it: `dab_jsd150`; 0 to 1, lower is better.

    The 150 bins span each picture's own range, which hides a shift of intensity; stains are scikit-image's
    haematoxylin-eosin-DAB amounts with negatives kept.
    """
    counts = []
    for tile in (virtual, real):
        amounts = _hed_amounts_of_value()[tile] @ hed_from_rgb[:, 2]
        low, high = float(amounts.min()), float(amounts.max())
        counts.append(np.histogram(amounts, bins=HISTOGRAM_BINS, range=(low, high if high > low else low + 1))[0])
    return _jensen_shannon(counts[0], counts[1])


def window_means(density: Density, *, side: int = 64, step: int = 32) -> Float[np.ndarray, " n"]:
    """Mean density in windows on a grid, for correlations of structure that forgive a shift of a few px.

    A tile smaller than a window is one window.
    """
    side = min(side, *density.shape)
    sums = np.pad(density, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    rows = np.arange(0, density.shape[0] - side + 1, step)[:, None]
    columns = np.arange(0, density.shape[1] - side + 1, step)[None, :]
    total = (
        sums[rows + side, columns + side]
        - sums[rows, columns + side]
        - sums[rows + side, columns]
        + sums[rows, columns]
    )
    means: np.ndarray = total.ravel() / side**2
    return means


def concordance(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Lin's concordance correlation (Biometrics 1989): -1 to 1, higher is better; 1 only on the line y = x.

    nan for fewer than two values or when both are constant and equal.
    """
    if len(x) < 2:
        return math.nan
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return math.nan if spread == 0 else float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread)


def pearson(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Pearson correlation; nan for fewer than three values or a constant side. It forgives a wrong scale."""
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _amounts(tile: np.ndarray, first: Vector, second: Vector) -> tuple[np.ndarray, np.ndarray]:
    """In float64: the stains room's fast separation keeps seven digits, the golden numbers ask for nine."""
    amounts = separate(_od_of_value()[tile], stain_matrix(first, second))
    return np.ascontiguousarray(amounts[..., 0]), np.ascontiguousarray(amounts[..., 1])


def _od_of_value() -> Float[np.ndarray, "256"]:
    table: np.ndarray = -np.log10(np.maximum(np.arange(256), 1) / WHITE)
    return table


def _hed_amounts_of_value() -> Float[np.ndarray, "256"]:
    table: np.ndarray = np.log(np.maximum(np.arange(256) / 255, 1e-6)) / np.log(1e-6)
    return table


def _jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    divergence = 0.0
    for part in (p, q):
        seen = part > 0
        divergence += float((part[seen] * np.log2(part[seen] / middle[seen])).sum()) / 2
    return math.sqrt(max(divergence, 0.0))
