"""Which cells of the grid become tiles: by their tissue, and where regions are outlined by where they lie."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from hepipe.geometry import Box
from hepipe.slides.reader import Slide
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import TissueMasks
from hepipe.tiling.grid import Cell, cut_grid, tissue_fracs, tissue_start_um
from hepipe.tissue.regions import REGIONS

NO_REGION = ""
TOUCH_FRAC = 1e-6
"""A smaller share of a tile is the rounding of sums."""


@dataclass(frozen=True)
class Kept:
    """The cells of a case that become tiles.

    Attributes:
        cells: In reading order, each with the share of it that is tissue.
        most: The largest share of any cell that counts; 0 where none does.
        told: The rule in words and the numbers of cells, as the artefact keeps them.
    """

    cells: list[tuple[Cell, float]]
    most: float
    told: dict[str, Any]


def keep_cells(he: Slide, tissue: TissueMasks, spec: TilingSpec, *, case_id: str) -> Kept:
    """The cells with enough tissue.

    Where regions of `spec.inside` are outlined, those with enough tissue inside them, and a random share of those with
    enough tissue that touch none of it: these are for tests alone. The draw depends on the case and the cell only.

    Args:
        he: The slide whose grid it is.
        tissue: The common tissue of the pair.
        spec: Side, resolution, shares.
        case_id: What the draw is keyed by.
    """
    assert tissue.tissue is not None
    on_canvas = spec.origin == "canvas"
    cells = cut_grid(
        he.size_px0,
        level0_mpp=he.mpp,
        spec=spec,
        start_um=(0.0, 0.0) if on_canvas else tissue_start_um(tissue.tissue, tissue.mpp),
        origin_px0=he.origin_px0 if on_canvas else (0, 0),
    )
    map_ = _Map(tissue, he.mpp)
    boxes = [cell.box_px0 for cell in cells]
    whole = map_.shares(boxes)
    is_tissue = whole >= spec.min_tissue_frac
    drawn = map_.classes()
    focus = [region for region in drawn if region in spec.inside]
    if focus:
        held = map_.shares(boxes, focus)
        inside = (held >= spec.min_tissue_frac) & (held > TOUCH_FRAC)
        beside = is_tissue & (whole > TOUCH_FRAC) & (held <= TOUCH_FRAC)
    else:
        held, inside, beside = whole, is_tissue, np.zeros(len(cells), bool)
    outside = np.array(
        [
            out and draw(case_id, cell.column, cell.row) < spec.outside_frac
            for cell, out in zip(cells, beside.tolist(), strict=True)
        ],
        bool,
    )
    chosen = np.flatnonzero(inside | outside)
    of_chosen = [boxes[place] for place in chosen]
    names = map_.majority(of_chosen, [*drawn, NO_REGION])
    # Inside, a tile is of a class that it was kept for.
    own = map_.majority(of_chosen, focus) if focus else names
    kept = [
        (
            dataclasses.replace(
                cells[place],
                region=kept_for if inside[place] else name,
                place="inside" if inside[place] else "outside",
            ),
            float(whole[place]),
        )
        for place, kept_for, name in zip(chosen, own, names, strict=True)
    ]
    told = {
        "rule": rule(spec, focus),
        "grid": f"from the corner of the {'canvas' if on_canvas else 'tissue'}",
        "canvas_px0": [int(side) for side in he.origin_px0],
        "kernel": spec.kernel,
        "n_cells": len(cells),
        "n_tissue": int(is_tissue.sum()),
        "n_inside": int(inside.sum()),
        "n_beside": int(beside.sum()),
        "n_outside": int(outside.sum()),
    }
    return Kept(kept, float(held.max(initial=0.0)), told)


def rule(spec: TilingSpec, focus: Sequence[str] = ()) -> str:
    """Which cells are kept, in words.

    Args:
        spec: The numbers.
        focus: Classes of region that tiles come from; none: from all tissue.
    """
    least = f"at least {spec.min_tissue_frac:.0%} of a tile is tissue on both slides"
    if not focus:
        return least
    return (
        f"{least} within regions {', '.join(focus)}; beside them {spec.outside_frac:.2%} of the tiles with as much "
        "tissue and none of theirs, drawn by case and cell"
    )


def draw(case_id: str, column: int, row: int) -> float:
    """A number from 0 up to 1 that is a cell's own, on any machine and in any order."""
    digest = hashlib.sha256(f"outside/{case_id}/{column}-{row}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class _Map:
    """Tissue and regions of a case, asked for shares of boxes."""

    def __init__(self, tissue: TissueMasks, level0_mpp: float) -> None:
        assert tissue.tissue is not None
        self._tissue = tissue.tissue
        self._regions = tissue.regions
        self._mpp = tissue.mpp
        self._level0_mpp = level0_mpp

    def classes(self) -> list[str]:
        """Those outlined anywhere on tissue."""
        if self._regions is None:
            return []
        found = set(np.unique(self._regions[self._tissue]).tolist())
        return [region for number, region in enumerate(REGIONS, start=1) if number in found]

    def shares(self, boxes: Sequence[Box], classes: Sequence[str] | None = None) -> Float64[np.ndarray, " n"]:
        """The share of each box that is tissue, of some classes or of all."""
        mask = self._tissue
        if classes is not None and self._regions is not None:
            listed = np.isin(np.arange(256), [_number(region) for region in classes])
            mask = mask & listed[self._regions]
        return tissue_fracs(list(boxes), mask, level0_mpp=self._level0_mpp, mask_mpp=self._mpp)

    def majority(self, boxes: Sequence[Box], classes: Sequence[str]) -> list[str]:
        """For each box the class that most of its tissue is of; of equal ones the first in the list."""
        if len(classes) == 1 or not boxes:
            return [classes[0]] * len(boxes)
        of_class = np.stack([self.shares(boxes, [region]) for region in classes])
        return [classes[place] for place in np.argmax(np.round(of_class, 9), axis=0)]


def _number(region: str) -> int:
    return [NO_REGION, *REGIONS].index(region)
