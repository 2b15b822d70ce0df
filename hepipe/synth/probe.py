"""How much of the score the H&E shows: a linear probe on the nuclear truth of tiles, patients held out.

It reads no picture, only what was drawn, so it bounds what a model could learn from nuclei alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from hepipe.progress import watched
from hepipe.sheet import SCORES
from hepipe.specs.synth import SynthSpec
from hepipe.synth.architecture import GRID_UM, Architecture, draw_architecture
from hepipe.synth.cells import Cells, place_cells
from hepipe.synth.plan import MPP, plan_case

MIN_NUCLEI = 12
FEATURES = (
    "mean diameter",
    "spread of diameters",
    "share with nucleolus",
    "mean nucleolus",
    "irregularity",
    "mean chromatin",
    "spread of chromatin",
    "lumen share",
)


@dataclass(frozen=True)
class Probed:
    """What the probe found.

    Attributes:
        accuracy: Share of tiles whose score it gave right.
        within_one: Share right or one score off.
        case_accuracy: Share of patients right by the mean of their tiles.
        confusion: Tiles by true score (rows) and given score (columns).
    """

    accuracy: float
    within_one: float
    case_accuracy: float
    confusion: Int[np.ndarray, "4 4"]

    @property
    def n_tiles(self) -> int:
        """Tiles looked at."""
        return int(self.confusion.sum())


def probe(spec: SynthSpec, *, tile_um: float = 128.0) -> Probed:
    """Draw the cohort's nuclei (no pixels) and predict each patient's tiles from the other patients'."""
    features, scores, patients = [], [], []
    for number in watched(range(1, spec.patients + 1), "draw", total=spec.patients, unit="patient"):
        plan = plan_case(spec, number)
        arch = draw_architecture(plan)
        rows = tile_features(place_cells(plan, arch), arch, tile_um=tile_um)
        features.append(rows)
        scores.append(np.full(len(rows), SCORES.index(plan.biology.score)))
        patients.append(np.full(len(rows), number))
    return hold_out(np.concatenate(features), np.concatenate(scores), np.concatenate(patients))


def tile_features(cells: Cells, arch: Architecture, *, tile_um: float) -> Float[np.ndarray, "n 8"]:
    """One row for each tile of a grid with enough tumour nuclei; columns as in `FEATURES`."""
    tumour = cells.only(cells.is_kind("tumour"))
    step = tile_um / MPP
    column, row = (tumour.x // step).astype(int), (tumour.y // step).astype(int)
    key = row * 10_000 + column
    px = round(tile_um / GRID_UM)
    rows = []
    for tile in np.unique(key):
        some = tumour.only(key == tile)
        if len(some) < MIN_NUCLEI:
            continue
        diameter = 2 * np.sqrt(some.long * some.short)
        top, left = tile // 10_000 * px, tile % 10_000 * px
        here = (slice(top, top + px), slice(left, left + px))
        lumen = (arch.hole[here] > 0) & (arch.fat[here] < 0)
        rows.append(
            [
                diameter.mean(),
                diameter.std() / diameter.mean(),
                (some.nucleolus > 0).mean(),
                some.nucleolus.mean(),
                np.abs(some.amplitude).mean(),
                some.chromatin.mean(),
                some.chromatin.std(),
                lumen.mean(),
            ]
        )
    return np.array(rows, np.float64).reshape(-1, len(FEATURES))


def hold_out(
    features: Float[np.ndarray, "n f"], scores: Int[np.ndarray, " n"], patients: Int[np.ndarray, " n"]
) -> Probed:
    """Leave one patient out at a time; every patient weighs the same in the fit."""
    logits = np.zeros((len(scores), len(SCORES)))
    for patient in np.unique(patients):
        out = patients == patient
        mean, spread = features[~out].mean(axis=0), features[~out].std(axis=0) + 1e-9
        weights = 1 / np.bincount(patients)[patients[~out]]
        fitted = _softmax_regression((features[~out] - mean) / spread, scores[~out], weights / weights.sum())
        logits[out] = _with_ones((features[out] - mean) / spread) @ fitted
    given = logits.argmax(axis=1)
    confusion = np.zeros((len(SCORES), len(SCORES)), np.int64)
    np.add.at(confusion, (scores, given), 1)
    right = [
        _probabilities(logits[patients == patient]).mean(axis=0).argmax() == scores[patients == patient][0]
        for patient in np.unique(patients)
    ]
    return Probed(
        accuracy=float((given == scores).mean()),
        within_one=float((np.abs(given - scores) <= 1).mean()),
        case_accuracy=float(np.mean(right)),
        confusion=confusion,
    )


def _with_ones(features: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n g"]:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def _probabilities(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _softmax_regression(
    features: Float[np.ndarray, "n f"], scores: Int[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "g k"]:
    """Multinomial logistic regression with a little ridge, by plain gradient descent (the loss is convex)."""
    inputs = _with_ones(features)
    target = np.eye(len(SCORES))[scores]
    fitted = np.zeros((inputs.shape[1], len(SCORES)))
    for _ in range(1500):
        slope = inputs.T @ ((_probabilities(inputs @ fitted) - target) * weights[:, None]) + 1e-3 * fitted
        fitted -= 0.5 * slope
    return fitted
