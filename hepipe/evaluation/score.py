"""From pairs of tiles to the long table of scores: one row per tile, case or set and metric, with its status.

What could not be computed has no number and says why; nothing is left blank.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hepipe.evaluation.features import Networks
from hepipe.evaluation.pairs import TilePair
from hepipe.metrics import dab, pixel, ssim
from hepipe.metrics.catalog import METRICS, of_level
from hepipe.metrics.frechet import frechet_distance, kernel_distance
from hepipe.specs.training import EvaluationSpec

OK = "ok"
MIN_SET = 50
"""Fewer tiles than this give no Fréchet or kernel distance."""
SMALL_TILE = "not computed: tile smaller than 176 px"
EMPTY_MASKS = "not computed: no DAB in either tile"
ONE_EMPTY_MASK = "not computed: no DAB in one of the tiles"
NO_TISSUE = "not computed: no tissue in the tile"

Row = dict[str, Any]


@dataclass(frozen=True)
class TileScores:
    """What one pair yields: values by metric, reasons for the undefined ones, and what the set's metrics need."""

    values: dict[str, float]
    reasons: dict[str, str]
    windows: dict[str, np.ndarray]


def score_tile(pair: TilePair, thresholds_od: tuple[float, float, float]) -> TileScores:
    """The weight-free metrics of one pair."""
    with_real = ssim.similarities(pair.fake, pair.real)
    real, fake = dab.separate_hdab(pair.real), dab.separate_hdab(pair.fake)
    tissue = dab.tissue_of_tile(pair.real)
    positive_real, positive_fake = (part.dab >= thresholds_od[0] for part in (real, fake))
    positive_real, positive_fake = positive_real & tissue, positive_fake & tissue
    overlap = dab.overlap(positive_fake, positive_real)
    outline = dab.boundary_distance(positive_fake, positive_real, mpp=pair.mpp)
    bands = {
        name: dab.bands(part.dab, tissue, thresholds_od=thresholds_od)
        for name, part in (("fake", fake), ("real", real))
    }
    hscores = {name: dab.hscore(shares) for name, shares in bands.items()}
    fractions = {name: math.fsum(shares) for name, shares in bands.items()}
    n_tissue = int(tissue.sum())
    values = {
        "mae": pixel.mae(pair.fake, pair.real),
        "mse": pixel.mse(pair.fake, pair.real),
        "psnr": pixel.psnr(pair.fake, pair.real),
        "ssim": with_real.ssim,
        "ssim_sk7": ssim.ssim_sk7(pair.fake, pair.real),
        "msssim": with_real.msssim,
        "css_he": ssim.css(pair.fake, pair.he),
        "css_ihc": with_real.css,
        "css_he_u5": ssim.css_u5(pair.fake, pair.he),
        "css_ihc_u5": ssim.css_u5(pair.fake, pair.real),
        "dab_mean_od_fake": float(fake.dab[tissue].mean()) if n_tissue else math.nan,
        "dab_mean_od_real": float(real.dab[tissue].mean()) if n_tissue else math.nan,
        "iod_fake": dab.integrated_od(fake.dab, tissue),
        "iod_real": dab.integrated_od(real.dab, tissue),
        "iod_pos_fake": dab.integrated_od(fake.dab, positive_fake),
        "iod_pos_real": dab.integrated_od(real.dab, positive_real),
        "dab_pos_fraction_fake": fractions["fake"],
        "dab_pos_fraction_real": fractions["real"],
        "pos_fraction_error": abs(fractions["fake"] - fractions["real"]),
        "dab_dice": overlap.dice,
        "dab_iou": overlap.iou,
        "dab_tpr": overlap.tpr,
        "dab_tnr": overlap.tnr,
        "dab_hd95": outline.hausdorff95,
        "dab_assd": outline.mean,
        "dab_jsd_fixed": dab.histogram_distance(fake.dab, real.dab),
        "dab_jsd150": dab.histogram_distance_own_range(pair.fake, pair.real),
        "hscore_px_fake": hscores["fake"],
        "hscore_px_real": hscores["real"],
        "hscore_px_error": abs(hscores["fake"] - hscores["real"]),
    }
    reasons = dict.fromkeys(("dab_dice", "dab_iou"), EMPTY_MASKS)
    reasons |= {"dab_tpr": "not computed: no DAB in the real tile", "dab_tnr": "not computed: DAB everywhere"}
    reasons |= dict.fromkeys(("dab_hd95", "dab_assd"), ONE_EMPTY_MASK) | {"msssim": SMALL_TILE}
    undefined = {name: reasons.get(name, NO_TISSUE) for name, value in values.items() if math.isnan(value)}
    windows = {
        "he": dab.window_means(dab.haematoxylin_of_he(pair.he)),
        "haematoxylin": dab.window_means(fake.haematoxylin),
        "fake": dab.window_means(fake.dab),
        "real": dab.window_means(real.dab),
    }
    return TileScores(values, undefined, windows)


def score_run(
    pairs: Iterable[TilePair],
    *,
    run: str,
    dataset: str,
    split: str,
    spec: EvaluationSpec,
    networks: Networks,
) -> list[Row]:
    """Every row of a run's score table on one split.

    Args:
        pairs: Consumed once, a few at a time.
        run: Name of the run.
        dataset: Name of the data set.
        split: Name of the split.
        spec: Thresholds and batch size.
        networks: The feature networks at hand.
    """
    table = _Table({"run": run, "dataset": dataset, "split": split})
    seen = _Seen()
    for batch in _batches(pairs, spec.batch_size):
        stand_in = networks.stand_in
        features = None if stand_in is None else stand_in([p.fake for p in batch], [p.real for p in batch])
        perceptual = networks.perceptual([p.fake for p in batch], [p.real for p in batch])
        for place, pair in enumerate(batch):
            scores = score_tile(pair, spec.dab_thresholds_od)
            values, reasons = dict(scores.values), dict(scores.reasons)
            if features is not None:
                values["pd_effnetlite0"] = features.perceptual[place]
                values["phv_effnetlite0"] = features.hashed[place]
            values |= {name: distances[place] for name, distances in perceptual.items()}
            for metric in of_level("tile"):
                if metric.name not in values:
                    reasons[metric.name] = networks.missing[metric.weights or ""]
                table.add(metric.name, values.get(metric.name), reasons.get(metric.name), pair=pair)
            seen.add(pair, scores)
        if features is not None:
            seen.features["fake"].append(features.fake)
            seen.features["real"].append(features.real)
    for case_id, (pair, values) in seen.cases().items():
        for name, value in values.items():
            table.add(name, value, NO_TISSUE if math.isnan(value) else None, case=(case_id, pair))
    values, reasons = seen.set_values()
    for metric in of_level("set"):
        reason = reasons.get(metric.name)
        if metric.name not in values and reason is None:
            reason = networks.missing[metric.weights or ""]
        table.add(metric.name, values.get(metric.name), reason)
    return table.rows


@dataclass
class _Table:
    """Rows as they come."""

    head: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        metric: str,
        value: float | None,
        reason: str | None,
        *,
        pair: TilePair | None = None,
        case: tuple[str, TilePair] | None = None,
    ) -> None:
        of = pair if pair is not None else case[1] if case is not None else None
        self.rows.append(
            {
                **self.head,
                "case_id": None if of is None else of.case_id,
                "patient_id": None if of is None else of.patient_id,
                "her2_score": None if of is None else of.her2_score,
                "tile_id": None if pair is None else pair.tile_id,
                "metric": METRICS[metric].name,
                "value": None if reason is not None else value,
                "status": reason or OK,
            }
        )


CASE_SUMS = ("iod_fake", "iod_real", "iod_pos_fake", "iod_pos_real")
CASE_MEANS = (
    "dab_mean_od_fake",
    "dab_mean_od_real",
    "dab_pos_fraction_fake",
    "dab_pos_fraction_real",
    "hscore_px_fake",
    "hscore_px_real",
)


class _Seen:
    """What must be kept of the tiles for the metrics of cases and of the whole set: numbers, never pixels."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)
        self.windows: dict[str, list[np.ndarray]] = defaultdict(list)
        self.features: dict[str, list[np.ndarray]] = {"fake": [], "real": []}
        self.of_case: dict[str, list[int]] = defaultdict(list)
        self.one_of_case: dict[str, TilePair] = {}

    def add(self, pair: TilePair, scores: TileScores) -> None:
        place = len(self.values["iod_real"])
        for name in (*CASE_SUMS, *CASE_MEANS, "pos_fraction_error"):
            self.values[name].append(scores.values[name])
        for name, means in scores.windows.items():
            self.windows[name].append(means.astype(np.float32))
        if pair.case_id is not None:
            self.of_case[pair.case_id].append(place)
            if pair.case_id not in self.one_of_case:
                nothing = np.zeros((0, 0, 3), np.uint8)
                self.one_of_case[pair.case_id] = TilePair(
                    pair.tile_id, pair.case_id, pair.patient_id, pair.her2_score, nothing, nothing, nothing, pair.mpp
                )

    def cases(self) -> dict[str, tuple[TilePair, dict[str, float]]]:
        """By case: sums of densities, means over tiles of the rest."""
        found = {}
        for case_id, places in sorted(self.of_case.items()):
            sums = {name: math.fsum(self.values[name][place] for place in places) for name in CASE_SUMS}
            means = {name: _mean([self.values[name][place] for place in places]) for name in CASE_MEANS}
            found[case_id] = (self.one_of_case[case_id], sums | means)
        return found

    def set_values(self) -> tuple[dict[str, float], dict[str, str]]:
        """Values and reasons of the metrics of the set."""
        fake, real = (np.array(self.values[f"iod_{side}"]) for side in ("fake", "real"))
        values: dict[str, float] = {
            "iod_rel_err": float((fake.sum() - real.sum()) / real.sum()) if real.sum() > 0 else math.nan,
            "iod_pearson": dab.pearson(fake, real),
            "iod_spearman": dab.pearson(rankdata(fake), rankdata(real)) if len(fake) else math.nan,
            "iod_ccc": dab.concordance(fake, real),
        }
        by_case = [values for _, values in self.cases().values()]
        for name, column in (("iod_ccc_case", "iod"), ("hscore_ccc_case", "hscore_px")):
            pairs = np.array([[case[f"{column}_fake"], case[f"{column}_real"]] for case in by_case]).reshape(-1, 2)
            pairs = pairs[np.isfinite(pairs).all(axis=1)]
            values[name] = dab.concordance(pairs[:, 0], pairs[:, 1])
        values["r_content"] = self._window_correlation("he", "haematoxylin")
        values["r_path"] = self._window_correlation("real", "fake")
        values["r_avg"] = (values["r_content"] + values["r_path"]) / 2
        few = f"not computed: n={len(fake)} tiles"
        no_cases = "not computed: cases unknown" if not by_case else f"not computed: n={len(by_case)} cases"
        reasons = {
            name: (no_cases if name.endswith("_case") else f"{few} or no variation")
            for name, value in values.items()
            if math.isnan(value)
        }
        if self.features["fake"] or not len(fake):
            if len(fake) < MIN_SET:
                reasons |= dict.fromkeys(("fd_effnetlite0", "kd_effnetlite0"), f"{few} < {MIN_SET}")
            else:
                features = [np.concatenate(self.features[side]) for side in ("fake", "real")]
                values["fd_effnetlite0"] = frechet_distance(*features)
                values["kd_effnetlite0"] = kernel_distance(*features)
        return values, reasons

    def _window_correlation(self, first: str, second: str) -> float:
        if not self.windows[first]:
            return math.nan
        x, y = (np.concatenate(self.windows[name]).astype(np.float64) for name in (first, second))
        return dab.pearson(x, y)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _batches(pairs: Iterable[TilePair], size: int) -> Iterator[list[TilePair]]:
    waiting = iter(pairs)
    while batch := list(islice(waiting, size)):
        yield batch
