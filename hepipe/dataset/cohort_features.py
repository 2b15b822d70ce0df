"""Features of tiles that need no weights: colour, stains and texture of both stains.

For looking at a data set (batches, outliers, what splits differ in), not for diagnosis. Every one is made of whole
numbers by sums in a fixed order, so a tile has the same features wherever they are computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Int, UInt8

from hepipe.dataset.cohort import Cohort, Name
from hepipe.dataset.cohort_statistics import CHANNELS, OD_OF_LEVEL, STAINS, level_counts, plane_counts
from hepipe.dataset.schedule import Scheduler
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, stain_matrix
from hepipe.stores.tables import column

GREYS = 16
"""Levels of co-occurrence; Haralick's features of 8 bits are mostly noise."""
OFFSET_UM = 1.0
"""Distance of the px that are compared, µm, whatever the resolution of the tiles: about the grain of chromatin."""
OD_SCALE = 100.0
"""Steps of optical density that a plane of 8 bits holds, 0.01 OD each."""

_OF_STAIN = {
    **{f"od_{channel}_{what}": f"{channel}: {text}" for channel in CHANNELS for what, text in (
        ("mean", "mean optical density (base 10, white 255)"), ("sd", "its standard deviation over px"))},
    "saturation_mean": "mean saturation of HSV, 0 to 1",
    "saturation_sd": "its standard deviation over px",
    "h_mean": "mean haematoxylin, OD, by the fixed vectors",
    "h_p95": "95th percentile of haematoxylin",
    "other_mean": "mean eosin (H&E) or DAB (IHC), OD, by the fixed vectors",
    "other_p95": "95th percentile of eosin or DAB",
    "gradient_mean": "mean length of the Sobel gradient of grey, levels a px",
    "laplacian_sd": "standard deviation of the Laplacian of grey, levels",
    "glcm_contrast": "Haralick's contrast of 16 greys 1 µm apart, four directions together",
    "glcm_correlation": "his correlation, -1 to 1; 1 for a tile of one grey",
    "glcm_energy": "his angular second moment, 0 to 1",
    "glcm_homogeneity": "his inverse difference moment, 0 to 1",
    "glcm_entropy": "his entropy, bits, 0 to 8",
}  # fmt: skip
DESCRIPTIONS: Mapping[str, str] = {
    **{f"{stain}_{name}": f"{stain}, {text}" for stain in STAINS for name, text in _OF_STAIN.items()},
    "dab_frac": "share of px that the DAB mask holds; NaN without masks",
}
NAMES = tuple(DESCRIPTIONS)

FEATURES = pa.schema(
    [
        column("tile_id", pa.string(), "as in the index"),
        column("case_id", pa.string(), "case; null where unknown", nullable=True),
        column("split", pa.string(), "train, val or test"),
        *(column(name, pa.float64(), text) for name, text in DESCRIPTIONS.items()),
    ]
)


def features(cohort: Cohort, scheduler: Scheduler) -> list[dict[str, Any]]:
    """The rows of `FEATURES`, by tile id."""
    names: list[Name] = ["he", "ihc"]
    if cohort.has("dab_mask"):
        names.append("dab_mask")
    parts = cohort.by_chunk(
        functools.partial(chunk_features, mpp=cohort.mpp),
        scheduler=scheduler,
        rows=[part.stop - part.start for part in cohort.chunk_slices()],
        width=len(NAMES),
        dtype=np.float64,
        names=names,
        task=f"features of {cohort.name}",
    )
    found = np.concatenate(list(parts)).tolist()
    columns = (cohort.table[name].to_pylist() for name in ("tile_id", "case_id", "split"))
    rows = [
        {"tile_id": tile_id, "case_id": case_id, "split": split, **dict(zip(NAMES, values, strict=True))}
        for tile_id, case_id, split, values in zip(*columns, found, strict=True)
    ]
    return sorted(rows, key=lambda row: str(row["tile_id"]))


def chunk_features(
    *,
    he: UInt8[np.ndarray, "n h w 3"],
    ihc: UInt8[np.ndarray, "n h w 3"],
    dab_mask: Bool[np.ndarray, "n h w 1"] | None = None,
    mpp: float,
) -> Float[np.ndarray, "n k"]:
    """`NAMES` of each pair of tiles."""
    separators = {stain: _separator(stain) for stain in STAINS}
    rows = []
    for number, pair in enumerate(zip(he, ihc, strict=True)):
        values: list[float] = []
        for stain, tile in zip(STAINS, pair, strict=True):
            values += tile_features(tile, separators[stain], offset_px=max(1, round(OFFSET_UM / mpp)))
        share = math.nan if dab_mask is None else np.count_nonzero(dab_mask[number]) / dab_mask[number].size
        rows.append([*values, share])
    return np.array(rows, np.float64)


def tile_features(tile: UInt8[np.ndarray, "h w 3"], separator: Separator, *, offset_px: int) -> list[float]:
    """One stain's part of `NAMES`, of one tile.

    Args:
        tile: Its pixels.
        separator: Gives two stains.
        offset_px: Distance of the px whose greys are compared.
    """
    values: list[float] = []
    for counts in level_counts(tile):
        values += _mean_sd(counts, np.array(OD_OF_LEVEL))
    values += _mean_sd(plane_counts(cv2.cvtColor(tile, cv2.COLOR_RGB2HSV), 1), np.arange(256) / 255)
    for amount in separator(tile):
        values += _stain_mean_p95(amount)
    grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    across, down = (cv2.Sobel(grey, cv2.CV_16S, dx, dy).astype(np.int32) for dx, dy in ((1, 0), (0, 1)))
    values.append(float(np.sqrt(across**2 + down**2).mean()) / 8)
    laplacian = cv2.Laplacian(grey, cv2.CV_16S).astype(np.int32)
    n, total, squares = laplacian.size, int(laplacian.sum(dtype=np.int64)), int((laplacian**2).sum(dtype=np.int64))
    values.append(math.sqrt(n * squares - total**2) / n)
    return values + haralick(co_occurrence(grey // (256 // GREYS), offset_px))


def co_occurrence(greys: UInt8[np.ndarray, "h w"], offset_px: int) -> Int[np.ndarray, "greys greys"]:
    """How often two greys stand at a distance from one another in any of four directions, counted both ways.

    Haralick et al., Textural Features for Image Classification, IEEE Transactions on Systems, Man, and Cybernetics
    1973; offsets are in px along rows and columns, so diagonal neighbours are farther apart.

    Args:
        greys: Below `GREYS`.
        offset_px: Distance along rows, columns or both.
    """
    step = min(offset_px, min(greys.shape) - 1)
    whole = slice(None)
    first, last = slice(None, -step or None), slice(step, None)
    pairs = (
        (greys[whole, first], greys[whole, last]),
        (greys[first, whole], greys[last, whole]),
        (greys[first, first], greys[last, last]),
        (greys[first, last], greys[last, first]),
    )
    counts = np.zeros(GREYS * GREYS, np.int64)
    for one, other in pairs:
        counts += plane_counts(one * np.uint8(GREYS) + other)
    square = counts.reshape(GREYS, GREYS)
    both: np.ndarray = square + square.T
    return both


def haralick(counts: Int[np.ndarray, "g g"]) -> list[float]:
    """Contrast, correlation, energy, homogeneity and entropy (bits) of counts of co-occurrence."""
    share = counts / counts.sum()
    levels = np.arange(len(counts), dtype=np.float64)
    apart = levels[:, None] - levels[None]
    at = share.sum(axis=1)
    mean = (at * levels).sum()
    variance = (at * (levels - mean) ** 2).sum()
    together = (share * np.outer(levels - mean, levels - mean)).sum()
    there = share[share > 0]
    return [
        float((share * apart**2).sum()),
        float(together / variance) if variance > 0 else 1.0,
        float((share**2).sum()),
        float((share / (1 + apart**2)).sum()),
        max(0.0, -math.fsum(value * math.log2(value) for value in there.tolist())),
    ]


def _separator(stain: str) -> Separator:
    return Separator(stain_matrix(HAEMATOXYLIN, EOSIN if stain == "he" else DAB))


def _mean_sd(counts: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> list[float]:
    total = int(counts.sum())
    mean = float((counts * values).sum()) / total
    return [mean, math.sqrt(float((counts * (values - mean) ** 2).sum()) / total)]


def _stain_mean_p95(amount: Float32[np.ndarray, "h w"]) -> list[float]:
    """In steps of 0.01 OD, up to 2.55."""
    counts = plane_counts(cv2.convertScaleAbs(amount, alpha=OD_SCALE))
    mean = float((counts * np.arange(256)).sum()) / amount.size
    p95 = int(np.searchsorted(np.cumsum(counts), math.ceil(0.95 * amount.size)))
    return [mean / OD_SCALE, p95 / OD_SCALE]
