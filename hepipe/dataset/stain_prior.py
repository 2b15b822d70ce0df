"""What the stains of a data set have in common: the median over cases of their own vectors and white points.

A case's vectors are found from its kept tiles as `hepipe.stains.estimate` finds a slide's; here each case counts once,
however many tiles it has, and one odd slide moves the median little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from pydantic import Field

from hepipe.dataset.cohort import Cohort
from hepipe.dataset.schedule import Scheduler
from hepipe.errors import StoreError
from hepipe.specs.base import Spec
from hepipe.specs.stains import StainsSpec
from hepipe.stains.deconvolution import WHITE
from hepipe.stains.estimate import Stain, estimate, white_point
from hepipe.stains.matrices import Vector, angle_deg
from hepipe.stores.cases import CaseStains, SlideStains, read_stains
from hepipe.stores.provenance import Provenance

MOST_PX = 40_000
"""Px of a case that its vectors are found from, evenly spread over its tiles; `estimate` uses no more."""

WhiteFrom = Literal["slide", "tiles", "fixed"]


class CaseEstimate(Spec):
    """One slide of a case."""

    stains: SlideStains
    white_from: WhiteFrom = Field(
        description="The slide's glass, glass in its tiles, or 255 where there is too little."
    )


class CasePair(Spec):
    """Both slides of a case; `case_id` is None for all tiles of unknown cases together."""

    case_id: str | None
    n_tiles: int
    he: CaseEstimate
    ihc: CaseEstimate


class PriorStains(Spec):
    """The median of one stain's slides: unit vectors of optical density and the white point, as in a slide's record."""

    first: Vector
    second: Vector
    white: Vector
    n_vectors: int = Field(description="Cases whose own vectors are plausible; the others do not count.")
    n_white: int = Field(description="Cases whose white point was measured.")
    turn_deg: tuple[float, float] = Field(description="Median angle of the cases to the prior: first, second vector.")
    most_turn_deg: tuple[float, float] = Field(description="Largest angle.")


class StainPrior(Spec):
    """Of a data set; None of a stain where no case has plausible vectors and a measured white point."""

    name: str
    he: PriorStains | None
    ihc: PriorStains | None
    cases: tuple[CasePair, ...]
    provenance: Provenance


@dataclass
class _Waiting:
    """A case whose px have not all come."""

    tiles_to_come: int
    pixels: list[UInt8[np.ndarray, "n 6"]]


def stain_prior(cohort: Cohort, scheduler: Scheduler, spec: StainsSpec) -> StainPrior:
    """The median of a data set's stains, and what each case brought to it.

    Tasks only read and thin out pixels; the estimates are made here, one after the other.
    """
    records = _slide_records(cohort)
    cases = []
    for case_id, n_tiles, pixels, store in _case_pixels(cohort, scheduler):
        record = records.get(store)
        he = _estimated(pixels[:, :3], "he", spec, None if record is None else record.he)
        ihc = _estimated(pixels[:, 3:], "ihc", spec, None if record is None else record.ihc)
        cases.append(CasePair(case_id=case_id, n_tiles=n_tiles, he=he, ihc=ihc))
    cases.sort(key=lambda case: (case.case_id is not None, case.case_id))
    return StainPrior(
        name=cohort.name,
        he=_prior([case.he for case in cases]),
        ihc=_prior([case.ihc for case in cases]),
        cases=tuple(cases),
        provenance=cohort.provenance("stain_prior", {"stains": spec.model_dump(mode="json")}),
    )


def geometric_median(points: Float[np.ndarray, "n k"], *, iterations: int = 200) -> Float[np.ndarray, " k"]:
    """The point with the smallest sum of distances to all, by Weiszfeld's iteration from the median of each column.

    Up to half of the points may lie anywhere without moving it far.
    """
    at: np.ndarray = np.median(points, axis=0)
    for _ in range(iterations):
        distance = np.maximum(np.sqrt(((points - at) ** 2).sum(axis=1)), 1e-9)
        at = (points / distance[:, None]).sum(axis=0) / (1 / distance).sum()
    return at


def thinned(
    *, he: UInt8[np.ndarray, "n h w 3"], ihc: UInt8[np.ndarray, "n h w 3"], step: Int[np.ndarray, " n"]
) -> UInt8[np.ndarray, "px 6"]:
    """Every `step`-th px of each row and column of each pair of tiles: red, green and blue of H&E, then of IHC."""
    pairs = [
        np.concatenate([one[::every, ::every], other[::every, ::every]], axis=2).reshape(-1, 6)
        for one, other, every in zip(he, ihc, step, strict=True)
    ]
    return np.concatenate(pairs)


def step_for(n_tiles: int, tile_px: int) -> int:
    """The smallest step that leaves at most `MOST_PX` px of so many tiles, or one px of each."""
    step = 1
    while step < tile_px and n_tiles * (-(-tile_px // step)) ** 2 > MOST_PX:
        step += 1
    return step


def _case_pixels(
    cohort: Cohort, scheduler: Scheduler
) -> Iterator[tuple[str | None, int, UInt8[np.ndarray, "n 6"], str]]:
    """Case, its number of tiles, its thinned px and the store of its first tile; each as soon as it is whole."""
    number, kinds = cohort.codes("case_id")
    counts = np.bincount(number, minlength=len(kinds))
    steps = np.array([step_for(int(count), cohort.tile_px) for count in counts])[number]
    px = np.array([(-(-cohort.tile_px // int(step))) ** 2 for step in steps])
    slices = cohort.chunk_slices()
    parts = cohort.by_chunk(
        thinned,
        scheduler=scheduler,
        rows=[int(px[part].sum()) for part in slices],
        width=6,
        dtype=np.uint8,
        names=["he", "ihc"],
        beside={"step": steps},
        task=f"stain prior of {cohort.name}",
    )
    stores = [str(name) for name in cohort.table["store"].to_pylist()]
    first: dict[int, str] = {}
    for tile, case in enumerate(number.tolist()):
        first.setdefault(case, stores[tile])
    waiting = {case: _Waiting(int(count), []) for case, count in enumerate(counts)}
    for part, pixels in zip(slices, parts, strict=True):
        ends = np.cumsum(px[part])
        for case, own in zip(number[part].tolist(), np.split(pixels, ends[:-1]), strict=True):
            # A copy: the slice would keep the whole chunk's px.
            waiting[case].pixels.append(own.copy())
            waiting[case].tiles_to_come -= 1
            if not waiting[case].tiles_to_come:
                yield kinds[case][0], int(counts[case]), np.concatenate(waiting.pop(case).pixels), first[case]


def _slide_records(cohort: Cohort) -> Mapping[str, CaseStains]:
    """The record of stains of each store whose slide was looked at as a whole; an imported set has none."""
    found = {}
    for store in sorted({str(name) for name in cohort.table["store"].to_pylist()}):
        path = cohort.index.parent / "stains" / f"{PurePosixPath(store).stem}.json"
        try:
            record = read_stains(path)
        except StoreError:
            if path.exists():
                raise
        else:
            found[store] = record
    return found


def _estimated(
    pixels: UInt8[np.ndarray, "n 3"], stain: Stain, spec: StainsSpec, record: SlideStains | None
) -> CaseEstimate:
    white: Vector | None = None
    white_from: WhiteFrom = "fixed"
    if spec.white == "auto":
        if record is not None and record.white != WHITE and record.white_from == "slide":
            white, white_from = record.white, "slide"
        elif (own := white_point(pixels)) is not None:
            white, white_from = own, "tiles"
    found = estimate(pixels, stain=stain, spec=spec, white=white)
    return CaseEstimate(
        stains=SlideStains(
            first=found.first,
            second=found.second,
            white=found.white,
            white_from=found.white_from,
            method=found.method,
            notes=found.notes,
            n_pixels=found.n_pixels,
            dab_frac=found.dab_frac,
        ),
        white_from=white_from,
    )


def _prior(cases: Sequence[CaseEstimate]) -> PriorStains | None:
    return median_stains(
        [case.stains for case in cases], [case.stains.white for case in cases if case.white_from != "fixed"]
    )


def median_stains(slides: Sequence[SlideStains], whites: Sequence[Vector]) -> PriorStains | None:
    """The geometric median of the slides' own vectors and of the white points; None where no slide has its own.

    Args:
        slides: Those that took given or fixed vectors do not count.
        whites: Measured ones.
    """
    own = [stains for stains in slides if stains.method not in ("fixed", "batch")]
    if not own:
        return None
    first, second = (_median_vector([getattr(stains, name) for stains in own]) for name in ("first", "second"))
    turns = [(angle_deg(stains.first, first), angle_deg(stains.second, second)) for stains in own]
    middle, most = np.median(turns, axis=0), np.max(turns, axis=0)
    white = geometric_median(np.array(whites)) if whites else np.full(3, 255.0)
    return PriorStains(
        first=first,
        second=second,
        white=_rounded(white, 2),
        n_vectors=len(own),
        n_white=len(whites),
        turn_deg=(round(float(middle[0]), 2), round(float(middle[1]), 2)),
        most_turn_deg=(round(float(most[0]), 2), round(float(most[1]), 2)),
    )


def _median_vector(vectors: Sequence[Vector]) -> Vector:
    median = geometric_median(np.array(vectors))
    return _rounded(median / np.sqrt((median**2).sum()), 6)


def _rounded(values: Float[np.ndarray, " 3"], digits: int) -> Vector:
    red, green, blue = (round(float(value), digits) for value in values)
    return red, green, blue
