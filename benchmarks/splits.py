"""The division of patients, measured: distance from the wanted shares, its bound, and what it costs.

    OMP_NUM_THREADS=1 python benchmarks/splits.py [--cohorts 5] [--sizes 12 17 30 100 300 1000] [--folds 5]
        [--milp-nodes 20000] [--tiles 36000]

Cohorts are drawn: tile counts uniform (1 to 300), heavy-tailed (Pareto of shape 1), nearly equal (98 to 102) or of two
sizes (97 to 99 and 1000 to 1002); a patient holds one score, every fifth a second one; no DAB, so that shares decide.
The rivals run on the same cohort: HiGHS by `scipy.optimize.milp` (least sum of gaps, as linear programs go, with as
many missing pairs as ours; it ends after so many nodes or 20 s) and the best of 10,000 random divisions. Ratios of CPU
time are HiGHS over ours. The last table is of the search for near-duplicates among random hashes, against a comparison
of all pairs.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from hepipe.dataset.near import TURNS, near_pairs, turned
from hepipe.dataset.splits import Patient, assign
from hepipe.sheet import SCORES
from hepipe.specs.dataset import SplitsSpec

SIZES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "uniform": lambda random, n: random.integers(1, 301, n),
    "heavy tail": lambda random, n: np.maximum(1, random.pareto(1.0, n) * 100).astype(int),
    "near equal": lambda random, n: random.integers(98, 103, n),
    "two sizes": lambda random, n: np.where(random.random(n) < 0.5, 1000, 97) + random.integers(0, 3, n),
}
RANDOM_DIVISIONS = 10_000
MILP_SECONDS = 20.0


def cohort(kind: str, count: int, seed: int) -> list[Patient]:
    """Patients of one drawn cohort."""
    random = np.random.default_rng([seed, count])
    tiles = SIZES[kind](random, count)
    patients = []
    for number in range(count):
        own = {SCORES[int(random.integers(4))]}
        if random.random() < 0.2:
            own.add(SCORES[int(random.integers(4))])
        patients.append(Patient(f"p{number:04d}", int(tiles[number]), frozenset(own)))
    return patients


def by_highs(patients: list[Patient], wanted: np.ndarray, missing: int, nodes: int) -> tuple[float, float]:
    """CPU seconds and distance of the integer program's division; nan where it found none."""
    n, k = len(patients), len(wanted)
    tiles = np.array([patient.tiles for patient in patients], float)
    present = [score for score in SCORES if any(score in patient.scores for patient in patients)]
    # x[i, g], a gap above and below for each group, and a missing pair for each score and group.
    width = n * k + 2 * k + len(present) * k
    cost = np.concatenate([np.zeros(n * k), np.full(2 * k, 1 / tiles.sum()), np.zeros(len(present) * k)])
    rows = lil_matrix((n + k + len(present) * k + 1, width))
    low, high = np.zeros(rows.shape[0]), np.zeros(rows.shape[0])
    for i in range(n):
        rows[i, i * k : (i + 1) * k] = 1
        low[i] = high[i] = 1
    for g in range(k):
        for i in range(n):
            rows[n + g, i * k + g] = tiles[i]
        rows[n + g, n * k + 2 * g], rows[n + g, n * k + 2 * g + 1] = -1, 1
        low[n + g] = high[n + g] = wanted[g] * tiles.sum()
    for s, score in enumerate(present):
        for g in range(k):
            row = n + k + s * k + g
            for i, patient in enumerate(patients):
                if score in patient.scores:
                    rows[row, i * k + g] = 1
            rows[row, n * k + 2 * k + s * k + g] = 1
            low[row], high[row] = 1, np.inf
    rows[-1, n * k + 2 * k :] = 1
    low[-1], high[-1] = -np.inf, missing
    whole = np.concatenate([np.ones(n * k), np.zeros(2 * k), np.ones(len(present) * k)])
    upper = np.concatenate([np.ones(n * k), np.full(2 * k, np.inf), np.ones(len(present) * k)])
    start = time.process_time()
    found = milp(
        cost, integrality=whole, bounds=Bounds(0, upper), constraints=LinearConstraint(rows.tocsr(), low, high),
        options={"node_limit": nodes, "time_limit": MILP_SECONDS, "mip_rel_gap": 0.0},
    )  # fmt: skip
    spent = time.process_time() - start
    if found.x is None:
        return spent, float("nan")
    groups = found.x[: n * k].reshape(n, k).argmax(1)
    shares = np.array([tiles[groups == g].sum() for g in range(k)]) / tiles.sum()
    return spent, float(np.sqrt(((shares - wanted) ** 2).sum()))


def by_chance(patients: list[Patient], wanted: np.ndarray, missing: int) -> float:
    """Distance of the best of many random divisions that are as complete as ours."""
    random = np.random.default_rng(0)
    tiles = np.array([patient.tiles for patient in patients])
    has = np.array([[score in patient.scores for score in SCORES] for patient in patients])
    best = float("nan")
    for _ in range(RANDOM_DIVISIONS):
        groups = random.choice(len(wanted), len(tiles), p=wanted)
        lacking = sum((has.any(0) & ~has[groups == g].any(0)).sum() for g in range(len(wanted)))
        if lacking <= missing:
            shares = np.bincount(groups, tiles, len(wanted)) / tiles.sum()
            best = np.nanmin([best, np.sqrt(((shares - wanted) ** 2).sum())])
    return float(best)


def divisions(sizes: list[int], cohorts: int, folds: int | None, nodes: int) -> None:
    """A line for each size and kind of cohort."""
    spec = SplitsSpec(folds=folds)
    wanted = np.array([0.6, 0.2, 0.2]) if folds is None else np.full(folds, 1 / folds)
    print(
        f"\n{'train, val, test' if folds is None else f'{folds} folds'}; means over {cohorts} cohorts, gap: the worst"
    )
    print("patients  sizes        CPU s  distance  gap to bound  HiGHS CPU s  ratio  distance  by chance")
    for count in sizes:
        for kind in SIZES:
            ours, costs, gaps, theirs, their_costs, chance = [], [], [], [], [], []
            for seed in range(cohorts):
                patients = cohort(kind, count, seed)
                start = time.process_time()
                proof = assign(patients, spec).proof
                costs.append(time.process_time() - start)
                assert proof is not None
                ours.append(proof.distance)
                bound = proof.distance if proof.method == "every division" else proof.distance_bound
                gaps.append(proof.distance - (0.0 if bound is None else bound))
                spent, distance = by_highs(patients, wanted, proof.missing, nodes)
                theirs.append(distance)
                their_costs.append(spent)
                chance.append(by_chance(patients, wanted, proof.missing) if seed == 0 else float("nan"))
            print(
                f"{count:8d}  {kind:11s}  {np.mean(costs):5.2f}  {np.mean(ours):8.5f}  {max(gaps):12.5f}  "
                f"{np.mean(their_costs):11.2f}  {np.mean(their_costs) / np.mean(costs):5.1f}  "
                f"{np.nanmean(theirs):8.5f}  {chance[0]:9.5f}",
                flush=True,
            )


def hashes(count: int) -> None:
    """The search for near hashes against a comparison of all pairs."""
    random = np.random.default_rng(1)
    values = random.integers(0, 1 << 63, count, dtype=np.uint64) | np.uint64(1 << 63)
    groups = np.arange(count) % 3
    start = time.process_time()
    found = len(list(near_pairs(values, groups, bits=6)))
    ours, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    some = min(count, 2000)
    start = time.process_time()
    every = 0
    for turns, mirrored in TURNS:
        asked = turned(values[:some], turns, mirrored)
        for place in range(some):
            every += int((np.bitwise_count(asked[place] ^ values[place + 1 :]) <= 6).sum())
    # A pair costs the same anywhere, so the first rows tell of all.
    share = (some * (count - 1) - some * (some - 1) / 2) / (count * (count - 1) / 2)
    rival = (time.process_time() - start) / share
    print(
        f"\nnear-duplicates among {count:,} random hashes: {ours:.2f} CPU s, every pair {rival:.1f} (ratio "
        f"{rival / ours:.0f}), {found} and {every} found by chance, peak memory of this process {peak:.0f} MB"
    )


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cohorts", type=int, default=5)
    options.add_argument("--sizes", type=int, nargs="+", default=[12, 17, 30, 100, 300, 1000])
    options.add_argument("--folds", type=int, default=None)
    options.add_argument("--milp-nodes", type=int, default=20_000)
    options.add_argument("--tiles", type=int, default=36_000)
    chosen = options.parse_args()
    divisions(chosen.sizes, chosen.cohorts, chosen.folds, chosen.milp_nodes)
    hashes(chosen.tiles)


if __name__ == "__main__":
    main()
