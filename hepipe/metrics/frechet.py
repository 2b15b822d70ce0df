"""Distances between two sets of feature vectors: Fréchet and kernel. The network that made them is part of a name.

Fréchet: Heusel et al., NeurIPS 2017. Kernel: Bińkowski et al., Demystifying MMD GANs, ICLR 2018.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000
KERNEL_SEED = 2020

Features = Float[np.ndarray, "_ d"]


def frechet_distance(fake: Features, real: Features) -> float:
    """Fréchet distance of the Gaussians fitted to two feature sets; lower is better, 0 and above.

    Biased upwards for small sets, the more the fewer: values at different n are not comparable. At least two vectors
    a side. Rounding may leave a tiny negative number for equal sets.
    """
    assert min(len(fake), len(real)) >= 2, (len(fake), len(real))
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    shift = fake.mean(axis=0) - real.mean(axis=0)
    # tr sqrt(S1 S2) is the sum of singular values of X1 X2ᵀ, X the centred rows over sqrt(n - 1): exact for n < d,
    # where a matrix root of the rank-deficient product loses digits, and no d x d matrix is built.
    rows = [(part - part.mean(axis=0)) / np.sqrt(len(part) - 1) for part in (fake, real)]
    traces = sum(float((part**2).sum()) for part in rows)
    if min(len(fake), len(real)) <= fake.shape[1]:
        root = float(np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False).sum())
    else:
        first, second = (part.T @ part for part in rows)
        root = float(np.sqrt(np.linalg.eigvals(first @ second).astype(np.complex128)).real.sum())
    return float(shift @ shift) + traces - 2 * root


def kernel_distance(fake: Features, real: Features) -> float:
    """Unbiased squared MMD with the cubic kernel (x·y/d + 1)³ over the first min(n) vectors; lower is better.

    May be negative for sets that are alike: the sign is kept. Deterministic.
    """
    n = min(len(fake), len(real))
    assert n >= 2, (len(fake), len(real))
    return _mmd2(fake[:n].astype(np.float64), real[:n].astype(np.float64))


def kernel_distance_over_subsets(
    fake: Features,
    real: Features,
    *,
    subsets: int = KERNEL_SUBSETS,
    subset_size: int = KERNEL_SUBSET_SIZE,
    seed: int = KERNEL_SEED,
) -> tuple[float, float]:
    """Mean and SD (population) of `kernel_distance` over random subsets; the vectors of `fake` are drawn first."""
    rng = np.random.RandomState(seed)
    size = min(subset_size, len(fake), len(real))
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    values = []
    for _ in range(subsets):
        some_fake = fake[rng.choice(len(fake), size, replace=False)]
        some_real = real[rng.choice(len(real), size, replace=False)]
        values.append(_mmd2(some_fake, some_real))
    return float(np.mean(values)), float(np.std(values))


def _mmd2(x: np.ndarray, y: np.ndarray) -> float:
    n, width = x.shape
    within = 0.0

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        cubed: np.ndarray = (a @ b.T / width + 1) ** 3
        return cubed

    for part in (x, y):
        gram = kernel(part, part)
        within += float(gram.sum() - np.trace(gram))
    return float(within / (n * (n - 1)) - 2 * kernel(x, y).mean())
