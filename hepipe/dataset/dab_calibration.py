"""Thresholds of weak, moderate and strong DAB that fit a data set, from the scores of its training tiles.

QuPath's 0.2, 0.4 and 0.6 do not carry over between laboratories: on tiles of one public set scored 3+, 18 % of px lie
above 0.2 and 0.2 % above 0.6. Here the first threshold is the 99th percentile of the DAB index over the tissue of tiles
scored 0; the second and third are Youden's cuts (Cancer 1950) between tiles scored 1+ and 2+, and 2+ and 3+, where a
tile's value is the mean index of its px from the first threshold on. Only training tiles are looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field

from hepipe.dataset.cohort import Cohort
from hepipe.dataset.schedule import Scheduler
from hepipe.errors import ConfigError
from hepipe.sheet import SCORES
from hepipe.specs.base import Spec
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import Vector, stain_matrix
from hepipe.stores.cases import CaseStains, read_stains
from hepipe.stores.provenance import Provenance, digest

MAX_OD = 3.0
BINS = 600
"""Of 0.005 each; what is denser is in the last."""
NEGATIVE_PERCENTILE = 99.0
MIN_POSITIVE_FRAC = 0.01
"""A tile with less of its tissue positive says nothing about how strong its DAB is."""

Tissue = Callable[[UInt8[np.ndarray, "h w 3"], Sequence[float], float], Bool[np.ndarray, "h w"]]
"""`(ihc, white, mpp)` to where a tile is tissue."""
OfSlide = tuple[Vector, Vector, Vector]


class DabCalibration(Spec):
    """What was found, and on what; the config names the file as `stains.dab_calibration`."""

    name: str
    thresholds_od: tuple[float, float, float] = Field(description="Weak, moderate, strong from here on, DAB index.")
    youden: tuple[float, float] = Field(description="J of the second and third: 0 no better than chance, 1 perfect.")
    split: str = Field("train", description="What was looked at.")
    tiles: Mapping[str, int] = Field(description="Training tiles by score.")
    used: Mapping[str, int] = Field(description="Of these, tiles with enough DAB to have a strength; of score 0, all.")
    cases: Mapping[str, int] = Field(description="Cases they are of; 0 where the set does not say.")
    provenance: Provenance


def calibrate(cohort: Cohort, scheduler: Scheduler, *, tissue: Tissue) -> DabCalibration:
    """Find the thresholds.

    Args:
        cohort: Training tiles.
        scheduler: Who works.
        tissue: Says where a tile is tissue; a function of a module, since other processes call it.

    Raises:
        ConfigError: Other tiles than those of training, a score without tiles, or scores that the DAB index does not
            put in order.
        StoreError: A store without its record of stains.
    """
    if cohort.split != "train":
        raise ConfigError("thresholds are fitted on training tiles alone: give the cohort of split train")
    scores = [None if score is None else str(score) for score in cohort.table["her2_score"].to_pylist()]
    if missing := [score for score in SCORES if score not in scores]:
        raise ConfigError(
            f"{cohort.name}: no training tile is scored {', '.join(missing)}; thresholds need all of "
            f"{', '.join(SCORES)}: give dab_thresholds_od by hand"
        )
    records = _records(cohort)
    slides = [_of_slide(record) for record in records.values()]
    store = np.array([list(records).index(str(name)) for name in cohort.table["store"].to_pylist()], np.int64)
    parts = cohort.by_chunk(
        functools.partial(_histograms, slides=slides, tissue=tissue, mpp=cohort.mpp),
        scheduler=scheduler,
        rows=[part.stop - part.start for part in cohort.chunk_slices()],
        width=BINS,
        dtype=np.int64,
        names=["ihc"],
        beside={"store": store},
        task=f"DAB of {cohort.name}",
    )
    counts = np.concatenate(list(parts))
    thresholds, youden, used = thresholds_of(counts, scores)
    cases = [None if case is None else str(case) for case in cohort.table["case_id"].to_pylist()]
    return DabCalibration(
        name=cohort.name,
        thresholds_od=thresholds,
        youden=youden,
        tiles={score: scores.count(score) for score in SCORES},
        used=used,
        cases={
            score: len({case for case, own in zip(cases, scores, strict=True) if own == score and case is not None})
            for score in SCORES
        },
        provenance=cohort.provenance("dab_calibration").model_copy(
            update={
                "inputs": {
                    "tiles": cohort.digest,
                    "stains": digest([record.model_dump(mode="json") for record in records.values()]),
                }
            }
        ),
    )


def thresholds_of(
    counts: Int[np.ndarray, "n bins"], scores: Sequence[str | None]
) -> tuple[tuple[float, float, float], tuple[float, float], dict[str, int]]:
    """Thresholds, Youden's J of the second and third, and how many tiles of each score were of use.

    Args:
        counts: A tile's px of tissue by DAB index, in `BINS` bins from 0 to `MAX_OD`.
        scores: Of the tiles.

    Raises:
        ConfigError: Too little tissue or DAB, or the scores are not in the order of the index.
    """
    width = MAX_OD / BINS
    edges, centres = np.arange(BINS + 1) * width, (np.arange(BINS) + 0.5) * width
    of_score: dict[str, np.ndarray] = {score: np.array([own == score for own in scores]) for score in SCORES}
    negative = counts[of_score["0"]].sum(axis=0)
    if not negative.sum():
        raise ConfigError("the training tiles scored 0 have no tissue")
    below = np.cumsum(negative) / negative.sum()
    first = int(np.searchsorted(below, NEGATIVE_PERCENTILE / 100)) + 1
    positive = counts[:, first:]
    n_positive = positive.sum(axis=1)
    speaks = n_positive >= np.maximum(1, MIN_POSITIVE_FRAC * counts.sum(axis=1))
    strength = (positive @ centres[first:]) / np.maximum(1, n_positive)
    values: dict[str, np.ndarray] = {score: strength[of_score[score] & speaks] for score in SCORES[1:]}
    if empty := [score for score in SCORES[1:] if not len(values[score])]:
        raise ConfigError(
            f"no training tile scored {', '.join(empty)} has DAB above {edges[first]:.3f}, the 99th percentile of "
            "tiles scored 0, on 1 % of its tissue; look at the scores and at the stain vectors"
        )
    (second, j_second), (third, j_third) = (
        youden_cut(values[weaker], values[stronger]) for weaker, stronger in (("1+", "2+"), ("2+", "3+"))
    )
    found = (round(float(edges[first]), 4), round(second, 4), round(third, 4))
    if not found[0] < found[1] < found[2]:
        raise ConfigError(
            f"thresholds {found} do not ascend: the DAB index does not put these scores in order; "
            "give dab_thresholds_od by hand, or use otsu_od"
        )
    used = {"0": int(of_score["0"].sum())} | {score: len(own) for score, own in values.items()}
    return found, (round(j_second, 4), round(j_third, 4)), used


def youden_cut(weaker: Float[np.ndarray, " n"], stronger: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """The cut with the largest J = sensitivity + specificity - 1, halfway between two values, and J.

    The lowest of equal ones. Values from the cut on count as stronger.
    """
    values = np.unique(np.concatenate([weaker, stronger]))
    cuts = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    specificity = np.searchsorted(np.sort(weaker), cuts) / len(weaker)
    sensitivity = 1 - np.searchsorted(np.sort(stronger), cuts) / len(stronger)
    j = sensitivity + specificity - 1
    best = int(np.argmax(np.round(j, 12)))
    return float(cuts[best]), float(j[best])


def _histograms(
    *,
    ihc: UInt8[np.ndarray, "n h w 3"],
    store: Int[np.ndarray, " n"],
    slides: Sequence[OfSlide],
    tissue: Tissue,
    mpp: float,
) -> Int[np.ndarray, "n bins"]:
    counts = np.empty((len(ihc), BINS), np.int64)
    for row, tile, place in zip(counts, ihc, store.tolist(), strict=True):
        first, second, white = slides[place]
        dab = Separator(stain_matrix(first, second), white, stains=(1,))(tile)[0]
        bins = np.minimum((dab[tissue(tile, white, mpp)] * (BINS / MAX_OD)).astype(np.int64), BINS - 1)
        row[:] = np.bincount(bins, minlength=BINS)
    return counts


def _records(cohort: Cohort) -> dict[str, CaseStains]:
    """The record of stains of each store, by the store's name."""
    names = sorted({str(name) for name in cohort.table["store"].to_pylist()})
    folder = cohort.index.parent / "stains"
    return {name: read_stains(folder / f"{PurePosixPath(name).stem}.json") for name in names}


def _of_slide(record: CaseStains) -> OfSlide:
    assert record.ihc is not None, "a case without stains has no tiles"
    return record.ihc.first, record.ihc.second, record.ihc.white
