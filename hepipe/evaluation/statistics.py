"""Means with honest intervals: tiles of a patient are not independent, so patients are what is resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

SEED = 2026
FEW_CLUSTERS = 10
UNKNOWN = "cases unknown: interval not computed"
Values = Sequence[float] | Float[np.ndarray, " _"]
ONE = "one case: interval not computed"
FEW = "few cases ({n}): interval unreliable"


@dataclass(frozen=True)
class Summary:
    """A metric over the tiles of a set.

    Attributes:
        mean: Over tiles; nan without any.
        sd: Over tiles, n - 1.
        case_mean: Over the patients' own means; nan where patients are unknown.
        low: Lower end of the tile mean's 95 % interval over patients; nan if not computed.
        high: Upper end.
        case_low: Lower end of the case mean's interval.
        case_high: Upper end.
        n_tiles: Tiles with a finite value.
        n_left_out: Tiles whose value is undefined or infinite.
        n_patients: Patients with a value.
        note: What weakens the interval; empty when nothing does.
    """

    mean: float
    sd: float
    case_mean: float
    low: float
    high: float
    case_low: float
    case_high: float
    n_tiles: int
    n_left_out: int
    n_patients: int
    note: str


def summarize(values: Values, patients: Sequence[str | None], *, draws: int, seed: int = SEED) -> Summary:
    """Mean and SD over tiles, mean over patients, and percentile intervals of a bootstrap over patients.

    Args:
        values: One per tile; nan where undefined. These and infinite ones are left out and counted.
        patients: Of each tile; None where unknown, which leaves out the intervals.
        draws: Bootstrap draws.
        seed: Of the draws.
    """
    assert len(values) == len(patients), (len(values), len(patients))
    kept = [(value, patient) for value, patient in zip(values, patients, strict=True) if math.isfinite(value)]
    finite = np.array([value for value, _ in kept], np.float64)
    nan = math.nan
    mean = float(finite.mean()) if len(finite) else nan
    sd = float(finite.std(ddof=1)) if len(finite) > 1 else nan
    left_out = len(values) - len(finite)
    if not kept or any(patient is None for _, patient in kept):
        return Summary(mean, sd, nan, nan, nan, nan, nan, len(finite), left_out, 0, UNKNOWN if kept else "")
    sums, counts = _clusters(finite[:, None], [str(patient) for _, patient in kept])
    n = len(counts)
    case_means = sums[:, 0] / counts
    if n < 2:
        return Summary(mean, sd, float(case_means.mean()), nan, nan, nan, nan, len(finite), left_out, n, ONE)
    drawn = _draws(n, draws, seed)
    low, high = _percentiles(sums[:, 0][drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    case_low, case_high = _percentiles(case_means[drawn].mean(axis=1))
    note = FEW.format(n=n) if n < FEW_CLUSTERS else ""
    case_mean = float(case_means.mean())
    return Summary(mean, sd, case_mean, low, high, case_low, case_high, len(finite), left_out, n, note)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval over patients and what weakens it; nan if not computed."""

    low: float
    high: float
    note: str


def moments_interval(
    x: Values,
    y: Values,
    patients: Sequence[str | None],
    *,
    statistic: Callable[[Float[np.ndarray, "draws 6"]], Float[np.ndarray, " draws"]],
    draws: int,
    seed: int = SEED,
) -> Interval:
    """Bootstrap interval over patients of a statistic of pairs that follows from their first and second moments.

    Args:
        x: One value per tile.
        y: The other value per tile.
        patients: Of each tile.
        statistic: Of n, Σx, Σy, Σx², Σy², Σxy per draw, such as `concordance_of_sums`.
        draws: Bootstrap draws.
        seed: Of the draws.
    """
    if not patients or any(patient is None for patient in patients):
        return Interval(math.nan, math.nan, UNKNOWN)
    a, b = np.array(x, np.float64), np.array(y, np.float64)
    columns = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=1)
    sums, counts = _clusters(columns, [str(patient) for patient in patients])
    n = len(counts)
    if n < 2:
        return Interval(math.nan, math.nan, ONE)
    values = statistic(sums[_draws(n, draws, seed)].sum(axis=1))
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(math.nan, math.nan, "no variation: interval not computed")
    low, high = _percentiles(values)
    return Interval(low, high, FEW.format(n=n) if n < FEW_CLUSTERS else "")


def concordance_of_sums(sums: Float[np.ndarray, "draws 6"]) -> Float[np.ndarray, " draws"]:
    """Lin's concordance from n, Σx, Σy, Σx², Σy², Σxy."""
    mean_x, mean_y, var_x, var_y, cov = _moments(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: np.ndarray = 2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2)
    return values


def pearson_of_sums(sums: Float[np.ndarray, "draws 6"]) -> Float[np.ndarray, " draws"]:
    """Pearson correlation from n, Σx, Σy, Σx², Σy², Σxy."""
    _, _, var_x, var_y, cov = _moments(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: np.ndarray = cov / np.sqrt(var_x * var_y)
    return values


def relative_error_of_sums(sums: Float[np.ndarray, "draws 6"]) -> Float[np.ndarray, " draws"]:
    """(Σx - Σy) / Σy."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values: np.ndarray = (sums[:, 1] - sums[:, 2]) / sums[:, 2]
    return values


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same patients: difference of case means, its interval, and an exact paired test."""

    difference: float
    low: float
    high: float
    p_wilcoxon: float
    smallest_p: float
    n_patients: int


def compare(
    first: Values,
    second: Values,
    patients: Sequence[str],
    *,
    draws: int,
    seed: int = SEED,
) -> Comparison:
    """`first` minus `second` over tiles that both have, with patients as the unit; exact two-sided Wilcoxon.

    With n patients no p can be below 2^(1 - n): five cannot reach 0.05, whatever the difference.
    """
    from scipy.stats import wilcoxon

    values = np.stack([np.array(first, np.float64), np.array(second, np.float64)], axis=1)
    kept = np.asarray(np.isfinite(values).all(axis=1))
    sums, counts = _clusters(values[kept], [name for name, keep in zip(patients, kept, strict=True) if keep])
    n = len(counts)
    difference = (sums[:, 0] - sums[:, 1]) / counts if n else np.zeros(0)
    if n < 2:
        return Comparison(float(difference.mean()) if n else math.nan, math.nan, math.nan, math.nan, math.nan, n)
    low, high = _percentiles(difference[_draws(n, draws, seed)].mean(axis=1))
    p = float(wilcoxon(difference, method="exact").pvalue) if np.any(difference != 0) else 1.0
    return Comparison(float(difference.mean()), low, high, p, 2.0 ** (1 - n), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given; nan stays nan and does not count."""
    order = sorted((index for index, p in enumerate(p_values) if not math.isnan(p)), key=lambda index: p_values[index])
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _clusters(columns: Float[np.ndarray, "n c"], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of each column and the number of rows per cluster, clusters sorted by name."""
    if not names:
        return np.zeros((0, columns.shape[1])), np.zeros(0)
    _, place = np.unique(np.array(names), return_inverse=True)
    sums = np.stack([np.bincount(place, weights=column) for column in columns.T], axis=1)
    return sums, np.bincount(place)


def _draws(n: int, draws: int, seed: int) -> Int[np.ndarray, "draws n"]:
    return np.random.default_rng(seed).integers(0, n, size=(draws, n))


def _percentiles(values: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _moments(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    n, x, y, xx, yy, xy = sums.T
    mean_x, mean_y = x / n, y / n
    var_x, var_y = np.maximum(xx / n - mean_x**2, 0), np.maximum(yy / n - mean_y**2, 0)
    return mean_x, mean_y, var_x, var_y, xy / n - mean_x * mean_y
