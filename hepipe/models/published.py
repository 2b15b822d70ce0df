"""What the four papers print, as data: their systems, numbers and tile sets. To be shown beside own runs, never ranked.

Printed numbers stay strings, so that a reader sees the digits of the paper. A metric has the name of our catalog only
where it means the same; `…_any` is a metric whose flavour (window, features, resizing) the paper does not say.
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeVar, cast

from hepipe.errors import StoreError

MARKS = ("clear", "restored", "doubtful")
Better = Literal["higher", "lower", "neither"]
Row = TypeVar("Row", "Number", "TileSetCount")

MARKERS = ("HER2", "ER", "PR", "Ki67")
LEVELS = ("", "0", "1+", "2+", "3+")
SPLITS = ("train", "val", "test")
TILE_SETS = ("bci", "bci-clean", "mist", "her2match")
"""As the importers name them."""


@dataclass(frozen=True)
class Number:
    """One printed number.

    Attributes:
        paper: That prints it; a key of `papers()`.
        table: Of the paper.
        trained_on: Tile set that the model was trained on.
        dataset: Tile set that it was measured on.
        marker: What the IHC stains.
        her2_score: Of the tiles where the paper divides them by score; empty for all.
        split: Of the tile set.
        pairing: paired or unpaired where the table says so.
        method: Name of the model as in the zoo, or as it would stand there.
        variant: The ablation, a preset's name where the zoo has that preset; empty for the whole method.
        metric: A key of `PRINTED`.
        value: The printed digits.
        spread: The printed digits behind ±; empty for none.
        scale: By what a kernel distance was multiplied: 1000, or unknown; empty for other metrics.
        quoted_from: The paper that this one copied it from; empty for own measurements.
        mark: How well it could be read: one of `MARKS`.
        note: What a reader must know.
    """

    paper: str
    table: str
    trained_on: str
    dataset: str
    marker: str
    her2_score: str
    split: str
    pairing: str
    method: str
    variant: str
    metric: str
    value: str
    spread: str
    scale: str
    quoted_from: str
    mark: str
    note: str

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from every other number."""
        return tuple(getattr(self, field.name) for field in fields(self)[:_N_KEYS])

    @property
    def text(self) -> str:
        """The number for a reader: `4.5 ± 0.8`, with ? where it is in doubt."""
        spread = f" ± {self.spread}" if self.spread else ""
        return f"{self.value}{spread}{'?' if self.mark == 'doubtful' else ''}"

    @property
    def where(self) -> str:
        """The tiles in words."""
        marker = f" {self.marker}" if self.dataset == "mist" else ""
        level = f", HER2 {self.her2_score}" if self.her2_score else ""
        trained = f", trained on {self.trained_on} {self.marker}" if self.trained_on != self.dataset else ""
        return f"{self.dataset}{marker} {self.split}{level}{trained}"


_N_KEYS = 11


@dataclass(frozen=True)
class TileSetCount:
    """How many tile pairs of a set a paper names; empty tile_px or mpp: not stated there."""

    paper: str
    dataset: str
    marker: str
    her2_score: str
    split: str
    tile_pairs: str
    tile_px: str
    mpp: str
    note: str


@dataclass(frozen=True)
class Printed:
    """A metric as papers print it.

    Attributes:
        name: Ours where it means the same.
        title: For people.
        better: Which way is better.
        near: Metrics of our catalog that look at the same thing; one that means the same stands alone.
        remark: What keeps it from being one of ours.
    """

    name: str
    title: str
    better: Better
    near: tuple[str, ...]
    remark: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it means what our catalog's metric of this name means."""
        return self.near == (self.name,)

    @property
    def arrow(self) -> str:
        """Direction as a sign."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.better]


_HASH = "which normalisation of the input is not said"
_READ = "share of tile pairs in a blinded reading by three pathologists"
PRINTED: Mapping[str, Printed] = {
    metric.name: metric
    for metric in (
        Printed("psnr", "PSNR", "higher", ("psnr",)),
        Printed("ssim_any", "SSIM", "higher", ("ssim", "ssim_sk7"), "its window is not said"),
        Printed("msssim", "MS-SSIM", "higher", ("msssim",)),
        Printed("css_he", "CSS with H&E", "higher", ("css_he",)),
        Printed("css_ihc_any", "CSS with IHC", "higher", ("css_ihc", "css_ihc_u5"), "its window is not said"),
        Printed("lpips_any", "LPIPS", "lower", ("lpips_alex", "lpips_vgg"), "its network is not said"),
        Printed("fid_any", "FID", "lower", ("fid",), "how tiles were resized is not said"),
        Printed("kid_any", "KID", "lower", ("kid_full",), "over subsets or all tiles is not said"),
        Printed("phv_any", "PHV", "lower", ("phv",), _HASH),
        *(Printed(f"phv_any_layer{n}", f"PHV, layer {n}", "lower", ("phv",), _HASH) for n in (1, 2, 3, 4)),
        Printed("phv_unexplained", "PHV", "lower", (), "named pathological heatmap variance, without a formula"),
        Printed("r_avg_any", "Mean correlation", "higher", ("r_avg",), "no formula in the paper"),
        Printed("read_similar", "Same staining pattern", "higher", (), _READ),
        Printed("read_preferred", "Picked as the better one", "higher", (), _READ),
        Printed("read_taken_for_real", "Picked as the real one", "higher", (), _READ),
    )
}


@dataclass(frozen=True)
class Paper:
    """One of the four papers."""

    name: str
    cite: str
    venue: str
    tables: str


@dataclass(frozen=True)
class System:
    """A system that the papers name.

    Attributes:
        name: Of its zoo file, there or not.
        title: As papers write it.
        source: Where it was published first.
        family: Kind of model.
        idea: What sets it apart, in a few words.
        pairing: paired, unpaired, both, or none where nothing is learned.
        needs: What it takes beside both stains; empty for nothing.
        reason: Why it cannot be what its paper printed, or is not planned; empty for neither.
        named_in: Paper to its part there.
        reproducible: Whether enough is public to build what was measured.
    """

    name: str
    title: str
    source: str
    family: str
    idea: str
    pairing: str
    needs: str
    named_in: Mapping[str, str]
    reason: str = ""
    reproducible: bool = True

    @property
    def is_model(self) -> bool:
        """Whether a zoo file of it would make sense."""
        return self.family not in ("part", "cited", "colour")


@cache
def papers() -> Mapping[str, Paper]:
    """The papers by name."""
    return {name: Paper(name=name, **entry) for name, entry in _described()["papers"].items()}


@cache
def systems() -> Mapping[str, System]:
    """Every system that the papers name, families together."""
    return {name: System(name=name, **entry) for name, entry in _described()["systems"].items()}


@cache
def numbers() -> tuple[Number, ...]:
    """Every printed number, in the papers' order.

    Raises:
        StoreError: The package's own table is not what it should be.
    """
    rows = tuple(_rows("numbers.csv", Number))
    seen: set[tuple[str, ...]] = set()
    for line, row in enumerate(rows, start=2):
        check_number(f"numbers.csv, line {line}", row)
        if row.key in seen:
            raise StoreError(f"numbers.csv, line {line}: {', '.join(row.key)} stands there twice")
        seen.add(row.key)
    return rows


@cache
def tile_sets() -> tuple[TileSetCount, ...]:
    """Sizes of the tile sets as the papers give them.

    Raises:
        StoreError: The package's own table is not what it should be.
    """
    rows = tuple(_rows("tilesets.csv", TileSetCount))
    for line, row in enumerate(rows, start=2):
        _one_of(f"tilesets.csv, line {line}", "dataset", row.dataset, TILE_SETS)
        if not row.tile_pairs.isdigit():
            raise StoreError(f"tilesets.csv, line {line}: tile_pairs is {row.tile_pairs!r}; a count expected")
    return rows


def numbers_of(method: str) -> list[Number]:
    """The printed numbers of one model and its ablations."""
    return [number for number in numbers() if number.method == method]


def check_number(where: str, row: Number) -> None:
    """Whether a row holds what its columns may hold.

    Raises:
        StoreError: Naming the column, what was found and what was expected.
    """
    _one_of(where, "paper", row.paper, tuple(papers()))
    _one_of(where, "trained_on", row.trained_on, TILE_SETS)
    _one_of(where, "dataset", row.dataset, TILE_SETS)
    _one_of(where, "marker", row.marker, MARKERS)
    _one_of(where, "her2_score", row.her2_score, LEVELS)
    _one_of(where, "split", row.split, SPLITS)
    _one_of(where, "pairing", row.pairing, ("", "paired", "unpaired"))
    _one_of(where, "method", row.method, tuple(systems()))
    _one_of(where, "metric", row.metric, tuple(PRINTED))
    _one_of(where, "scale", row.scale, ("1000", "unknown") if row.metric == "kid_any" else ("",))
    _one_of(where, "mark", row.mark, MARKS)
    for name, text in (("value", row.value), ("spread", row.spread or "0")):
        try:
            is_number = math.isfinite(float(text))
        except ValueError:
            is_number = False
        if not is_number:
            raise StoreError(f"{where}: {name} is {text!r}; a printed number expected")


def _one_of(where: str, name: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise StoreError(f"{where}: {name} is {found!r}; one of {', '.join(repr(one) for one in known)} expected")


def _rows(name: str, kind: type[Row]) -> Iterator[Row]:
    columns = [field.name for field in fields(kind)]
    reader = csv.DictReader(_text(name).splitlines())
    if reader.fieldnames != columns:
        raise StoreError(f"{name}: columns {reader.fieldnames} found, {', '.join(columns)} expected")
    for row in reader:
        yield kind(**cast(dict[str, str], row))


@cache
def _described() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    return tomllib.loads(_text("systems.toml"))


def _text(name: str) -> str:
    return resources.files("hepipe.models").joinpath("printed", name).read_text(encoding="utf-8")
