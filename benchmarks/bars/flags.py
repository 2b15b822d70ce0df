"""Which tiles of a registered case the pipeline's own stages flag, against the truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from bars.child import command
from bars.ours import FAR_UM, Case, Found, point_errors

from hepipe.specs.tiling import TilingSpec
from hepipe.stores.tables import TILES, VERDICTS, read_table


@dataclass(frozen=True)
class GradedTile:
    """A square of the H&E slide, px0, and what `hepipe grade` says of it; `keep` is the word of all filters."""

    x: float
    y: float
    side: float
    aligned: bool
    keep: bool


@dataclass(frozen=True)
class Flags:
    """How the tiles of a case sort its points, in numbers of points and tiles.

    Attributes:
        far: Points off by `FAR_UM` or more.
        flagged: Of these, those in a tile whose class is not aligned, or in no tile: too little tissue.
        without_tile: Of `flagged`, those in no tile.
        unseen: Of the far points in aligned tiles, those where the IHC slide lost its tissue and shows glass.
        in_aligned: Points that aligned tiles show.
        in_kept: Points of the tiles that pass every filter, weak ones among them: what enters a data set.
        far_kept: Of these, the far ones.
        tiles: All that were cut.
        aligned: Those of this class.
        missed: Of these, those that hold a far point.
        false_alarms: Tiles of other classes that hold none.
    """

    far: int
    flagged: int
    without_tile: int
    unseen: int
    in_aligned: int
    in_kept: int
    far_kept: int
    tiles: int
    aligned: int
    missed: int
    false_alarms: int

    @property
    def share(self) -> float:
        """Of the far points that are flagged; 1 without any."""
        return self.flagged / self.far if self.far else 1.0

    def __str__(self) -> str:
        """For the table."""
        rest = "no point ≥ 1 µm"
        if self.far:
            missed = self.far - self.flagged
            rest = (
                f"{self.share:.1%} of {self.far} points ≥ 1 µm flagged by tile ({self.without_tile / self.far:.0%} "
                f"in no tile; of the {missed} others {self.unseen} on tissue that the IHC lost)"
            )
        return (
            f"{rest}, {_below(self.far - self.flagged, self.in_aligned)} < 1 µm in aligned tiles, "
            f"{_below(self.far_kept, self.in_kept)} in kept ones; {self.tiles} tiles, {self.aligned} aligned of which "
            f"{self.missed} hold such a point, {self.false_alarms} flagged that hold none"
        )


def _below(far: int, points: int) -> str:
    return f"{1 - far / points:.3%}" if points else "none"


def together_of(cases: Sequence[Flags]) -> Flags:
    """The sum of several."""
    return Flags(**{one.name: sum(getattr(case, one.name) for case in cases) for one in fields(Flags)})


def sort_points(points: np.ndarray, far: np.ndarray, lost: np.ndarray, tiles: Iterable[GradedTile]) -> Flags:
    """What the tiles say of points whose error is known.

    Args:
        points: (n, 2) x, y in px0 of the H&E slide.
        far: (n,) bool.
        lost: (n,) bool: glass on the IHC slide.
        tiles: They may overlap: a point that any aligned tile shows is not flagged.
    """
    in_any, in_aligned, in_kept = (np.zeros(len(points), bool) for _ in range(3))
    count = aligned = false_alarms = missed = 0
    for tile in tiles:
        inside = ((points >= (tile.x, tile.y)) & (points < (tile.x + tile.side, tile.y + tile.side))).all(axis=1)
        in_any |= inside
        in_aligned |= inside & tile.aligned
        in_kept |= inside & tile.keep
        holds_far = bool((inside & far).any())
        count, aligned = count + 1, aligned + tile.aligned
        missed += tile.aligned and holds_far
        false_alarms += not tile.aligned and not holds_far
    return Flags(
        far=int(far.sum()),
        flagged=int((far & ~in_aligned).sum()),
        without_tile=int((far & ~in_any).sum()),
        unseen=int((far & in_aligned & lost).sum()),
        in_aligned=int(in_aligned.sum()),
        in_kept=int(in_kept.sum()),
        far_kept=int((far & in_kept).sum()),
        tiles=count,
        aligned=aligned,
        missed=missed,
        false_alarms=false_alarms,
    )


def flags_of(case: Case, found: Found, transform: Path, work: Path, tiling: TilingSpec) -> Flags | str:
    """Cut and grade the registered case; or what went wrong.

    Args:
        case: The pair and its truth.
        found: Its registration.
        transform: Where that lies.
        work: The other artefacts are written here; the tiles' pixels do not stay.
        tiling: All other settings are the defaults.
    """
    if found.registered is None or found.registered.ihc_from_he is None:
        return "no tiles: the registration failed"
    tiles = grade_tiles(case, transform, work, tiling)
    if isinstance(tiles, str):
        return tiles
    points, error = point_errors(case, found.registered.ihc_from_he)
    return sort_points(points, error >= FAR_UM, case.lost(points), tiles)


def grade_tiles(case: Case, transform: Path, work: Path, tiling: TilingSpec) -> list[GradedTile] | str:
    """The commands that the workflow's rules run from `check` to `grade`; or the last line of the one that failed."""
    row = {
        "case_id": "case",
        "patient_id": "patient",
        "he": str(case.folder / "he.tif"),
        "ihc": str(case.folder / "ihc.tif"),
        "marker": "HER2",
        "her2_score": None,
        "section": case.section,
    }
    pair = ("--he", row["he"], "--ihc", row["ihc"], "--checked", work / "checked.json", "--transform", transform)
    tissue, stains = ("--tissue", work / "tissue.zarr"), ("--stains", work / "stains.json")
    tiles = ("--tiles", work / "tiles.zarr")
    index, verdict = work / "tiles.parquet", work / "verdict.parquet"
    for words in (
        ("check", "--row", json.dumps(row), "--checked", work / "checked.json", "--private", work / "row.json"),
        ("tissue", *pair, *tissue),
        ("stains", "estimate", *pair, *tissue, *stains),
        ("tile", *pair, *tissue, *stains, *tiles, "--index", index, "--spec", tiling.model_dump_json()),
        ("grade", "--index", index, "--verdict", verdict),
    ):
        ran = command(*words)
        if ran.status != 0:
            return f"{words[0]}: exit {ran.status}: {ran.last[:160]}"
    shutil.rmtree(work / "tiles.zarr")
    classes = {one["tile_id"]: one for one in read_table(verdict, VERDICTS)}
    side = tiling.tile_px * tiling.mpp / case.facts["mpp"]
    return [
        GradedTile(
            float(one["x_px0"]),
            float(one["y_px0"]),
            side,
            classes[one["tile_id"]]["alignment"] == "aligned",
            classes[one["tile_id"]]["keep"],
        )
        for one in read_table(index, TILES)
    ]
