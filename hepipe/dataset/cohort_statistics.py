"""Colours, tissue and DAB of a data set by case and split: what a paper's table of its data needs.

Everything is counted in whole numbers of px, and only the last step divides: so the numbers are the same however the
work was shared out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, UInt8
from pydantic import Field

from hepipe.dataset.cohort import Cohort, Name
from hepipe.dataset.schedule import Scheduler
from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import column

STAINS = ("he", "ihc")
CHANNELS = ("red", "green", "blue")
OD_BIN = 0.1
OD_BINS = 25
"""Of 0.1 OD, from 0 to 2.5: a level of 1 or 0 has 2.41."""
LEVELS = tuple(float(level) for level in range(256))
OD_OF_LEVEL = tuple(-math.log10(max(level, 1) / 255) for level in range(256))
"""Optical density of each level, base 10, white being 255 for every slide; 0 counts as 1."""
_COUNTS = len(STAINS) * len(CHANNELS) * 256
_EXACT_PX = 2**24
"""OpenCV counts into float32, which is exact up to here."""

Level = Literal["case", "split", "cohort"]

STATISTICS = pa.schema(
    [
        column("level", pa.string(), "what the row is about: case (its tiles of one split), split or cohort"),
        column("case_id", pa.string(), "case; null of a split or the cohort, or where unknown", nullable=True),
        column("split", pa.string(), "train, val or test; null of the cohort", nullable=True),
        column("stain", pa.string(), "he or ihc"),
        column("channel", pa.string(), "red, green or blue"),
        column("n_tiles", pa.int64(), "tiles"),
        column("n_px", pa.int64(), "px, those of overlapping tiles twice"),
        column("value_mean", pa.float64(), "mean level, 0 to 255"),
        column("value_sd", pa.float64(), "standard deviation over px (divided by n), levels"),
        column("od_mean", pa.float64(), "mean optical density, base 10, white 255"),
        column("od_sd", pa.float64(), "standard deviation over px (divided by n), OD"),
        column("od_p05", pa.float64(), "5th percentile (lowest OD that 5 % of px do not exceed)"),
        column("od_p50", pa.float64(), "median, likewise"),
        column("od_p95", pa.float64(), "95th percentile, likewise"),
        column("od_counts", pa.list_(pa.int64()), "px in 25 bins of 0.1 OD from 0"),
        column("value_counts", pa.list_(pa.int64()), "px of each level, 0 to 255"),
    ]
)


class ChannelNumbers(Spec):
    """One channel of a group's px."""

    value_mean: float
    value_sd: float
    od_mean: float
    od_sd: float


class GroupNumbers(Spec):
    """One case within a split, one split, or all."""

    level: Level
    case_id: str | None
    split: Split | None
    n_tiles: int
    n_cases: int = Field(description="Known cases; 0 where an imported set names none.")
    n_patients: int
    area_mm2: float = Field(description="Of the tiles; where they overlap it counts twice.")
    tissue_frac: float = Field(description="Mean share of a tile that is tissue on both slides.")
    dab_frac: float | None = Field(description="Share of px that the DAB mask holds; None without masks.")
    stains: Mapping[str, Mapping[str, ChannelNumbers]]


class CohortStatistics(Spec):
    """The numbers without their histograms."""

    name: str
    mpp: float
    tile_px: int
    groups: tuple[GroupNumbers, ...]
    provenance: Provenance


@dataclass
class Group:
    """What is counted of the tiles of a group."""

    tiles: int = 0
    dab_px: int = 0
    tissue: list[float] = field(default_factory=list)
    cases: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    counts: Int[np.ndarray, "2 3 256"] = field(default_factory=lambda: np.zeros((2, 3, 256), np.int64))


def level_counts(tile: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "3 256"]:
    """How many px of each channel have each level."""
    return np.stack([plane_counts(tile, channel) for channel in range(3)])


def plane_counts(picture: UInt8[np.ndarray, "h w *c"], channel: int = 0) -> Int[np.ndarray, " 256"]:
    """How many px of one channel have each level; a fifth of the time that numpy takes."""
    rows = max(1, _EXACT_PX // picture.shape[1])
    counts = np.zeros(256, np.int64)
    for top in range(0, picture.shape[0], rows):
        found = cv2.calcHist([picture[top : top + rows]], [channel], None, [256], [0, 256])
        counts += found.ravel().astype(np.int64)
    return counts


def chunk_counts(
    *,
    he: UInt8[np.ndarray, "n h w 3"],
    ihc: UInt8[np.ndarray, "n h w 3"],
    group: Int[np.ndarray, " n"],
    dab_mask: Bool[np.ndarray, "n h w 1"] | None = None,
) -> Int[np.ndarray, "groups numbers"]:
    """Counts of levels of both stains, then px with DAB, a row for each group of the chunk in the order of numbers."""
    groups, place = np.unique(group, return_inverse=True)
    found = np.zeros((len(groups), _COUNTS + 1), np.int64)
    for tile, row in enumerate(place):
        found[row, :_COUNTS] += np.stack([level_counts(he[tile]), level_counts(ihc[tile])]).ravel()
        if dab_mask is not None:
            found[row, _COUNTS] += np.count_nonzero(dab_mask[tile])
    return found


def statistics(cohort: Cohort, scheduler: Scheduler) -> tuple[list[dict[str, Any]], CohortStatistics]:
    """The rows of `STATISTICS` and the record: cases within their split, then splits, then the cohort."""
    group, kinds = cohort.codes("split", "case_id")
    slices = cohort.chunk_slices()
    here = [np.unique(group[part]) for part in slices]
    names: list[Name] = ["he", "ihc"]
    has_masks = cohort.has("dab_mask")
    if has_masks:
        names.append("dab_mask")
    parts = cohort.by_chunk(
        chunk_counts,
        scheduler=scheduler,
        rows=[len(groups) for groups in here],
        width=_COUNTS + 1,
        dtype=np.int64,
        names=names,
        beside={"group": group},
        task=f"statistics of {cohort.name}",
    )
    counts = np.zeros((len(kinds), _COUNTS + 1), np.int64)
    for groups, part in zip(here, parts, strict=True):
        counts[groups] += part
    by_group = _grouped(cohort, group, kinds, counts)
    rows: list[dict[str, Any]] = []
    records = []
    for (level, split, case_id), numbers in by_group.items():
        about = {"level": level, "case_id": case_id, "split": split}
        own = _channel_rows(numbers)
        rows += [{**about, "n_tiles": numbers.tiles, **row} for row in own]
        n_px = numbers.tiles * cohort.tile_px**2
        records.append(
            GroupNumbers(
                level=level,
                case_id=case_id,
                split=split,
                n_tiles=numbers.tiles,
                n_cases=len(numbers.cases),
                n_patients=len(numbers.patients),
                area_mm2=n_px * (cohort.mpp / 1000) ** 2,
                tissue_frac=math.fsum(numbers.tissue) / numbers.tiles,
                dab_frac=numbers.dab_px / n_px if has_masks else None,
                stains={
                    stain: {
                        row["channel"]: ChannelNumbers(**{name: row[name] for name in ChannelNumbers.model_fields})
                        for row in own
                        if row["stain"] == stain
                    }
                    for stain in STAINS
                },
            )
        )
    record = CohortStatistics(
        name=cohort.name,
        mpp=cohort.mpp,
        tile_px=cohort.tile_px,
        groups=tuple(records),
        provenance=cohort.provenance("cohort_statistics"),
    )
    return rows, record


def _grouped(
    cohort: Cohort, group: Int[np.ndarray, " n"], kinds: Sequence[tuple[Any, ...]], counts: Int[np.ndarray, "g k"]
) -> Mapping[tuple[Level, Split | None, str | None], Group]:
    """Cases, splits and the cohort, in this order."""
    wanted: dict[tuple[Level, Split | None, str | None], Group] = {}
    keys: list[list[tuple[Level, Split | None, str | None]]] = [
        [("case", split, case_id), ("split", split, None), ("cohort", None, None)] for split, case_id in kinds
    ]
    for place in range(3):
        for own in keys:
            wanted.setdefault(own[place], Group())
    for own, numbers in zip(keys, counts, strict=True):
        for key in own:
            wanted[key].counts += numbers[:_COUNTS].reshape(2, 3, 256)
            wanted[key].dab_px += int(numbers[_COUNTS])
    columns = (cohort.table[name].to_pylist() for name in ("tissue_frac", "case_id", "patient_id"))
    for number, tissue, case_id, patient_id in zip(group, *columns, strict=True):
        for key in keys[number]:
            found = wanted[key]
            found.tiles += 1
            found.tissue.append(tissue)
            found.cases |= {case_id} - {None}
            found.patients |= {patient_id} - {None}
    return wanted


def _channel_rows(numbers: Group) -> list[dict[str, Any]]:
    rows = []
    for stain, of_stain in zip(STAINS, numbers.counts, strict=True):
        for channel, counts in zip(CHANNELS, of_stain.tolist(), strict=True):
            value_mean, value_sd = mean_sd(counts, LEVELS)
            od_mean, od_sd = mean_sd(counts, OD_OF_LEVEL)
            od_counts = [0] * OD_BINS
            for density, count in zip(OD_OF_LEVEL, counts, strict=True):
                od_counts[int(density / OD_BIN)] += count
            rows.append(
                {
                    "stain": stain,
                    "channel": channel,
                    "n_px": sum(counts),
                    "value_mean": value_mean,
                    "value_sd": value_sd,
                    "od_mean": od_mean,
                    "od_sd": od_sd,
                    **{f"od_p{share:02d}": od_percentile(counts, share) for share in (5, 50, 95)},
                    "od_counts": od_counts,
                    "value_counts": counts,
                }
            )
    return rows


def mean_sd(counts: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, divided by n, of values that come as often as counted; in no order of sums."""
    total = sum(counts)
    mean = math.fsum(count * value for count, value in zip(counts, values, strict=True)) / total
    squares = math.fsum(count * (value - mean) ** 2 for count, value in zip(counts, values, strict=True))
    return mean, math.sqrt(squares / total)


def od_percentile(counts: Sequence[int], share: int) -> float:
    """The lowest optical density that at least `share` % of px do not exceed."""
    total, below = sum(counts), 0
    for level in range(255, -1, -1):
        below += counts[level]
        if below * 100 >= share * total:
            return OD_OF_LEVEL[level]
    raise AssertionError(share)
