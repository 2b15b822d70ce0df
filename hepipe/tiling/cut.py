"""One pass over the pixels of a registered pair: read, warp, measure, store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.errors import PixelError, SlideError
from hepipe.geometry import Transform
from hepipe.parallel import in_order
from hepipe.progress import watched
from hepipe.registration.warp import read_warped
from hepipe.slides.reader import Slide
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import TissueMasks, content_digest
from hepipe.stores.cases import CheckedCase
from hepipe.stores.provenance import digest
from hepipe.stores.shards import sealed
from hepipe.stores.tiles import TileWriter
from hepipe.tiling.grid import Cell, tissue_fracs
from hepipe.tiling.likeness import perceptual_hash
from hepipe.tiling.passing import Passed

Measure = Callable[[np.ndarray, np.ndarray, float], Mapping[str, float]]
"""`(he, ihc, mpp)` of one tile to named numbers."""
DabMask = Callable[[np.ndarray, float, Mapping[str, float]], np.ndarray]
"""`(ihc, mpp, measurements)` of one tile to a bool mask."""

ARRAYS = {"he": 3, "ihc": 3, "dab_mask": 0}
OF_PIXELS = ("he_sha256", "ihc_sha256", "he_phash", "ihc_phash")
"""Columns that a tile without pixels leaves empty."""
DROPPED = "dropped_before"
"""In the store's journal, with each tile: rows of those before it whose pixels could not be read."""


@dataclass(frozen=True)
class Tile:
    """The pixels and numbers of one cell."""

    he: UInt8[np.ndarray, "h w 3"]
    ihc: UInt8[np.ndarray, "h w 3"]
    dab_mask: Bool[np.ndarray, "h w"]
    measurements: Mapping[str, float]


@dataclass(frozen=True)
class Encoded:
    """One cell as the store takes it.

    Attributes:
        chunks: Of each array; none where the pixels cannot be read.
        columns: Of the tile table, those that follow from pixels alone.
    """

    chunks: Mapping[str, bytes]
    columns: Mapping[str, Any]


def untrusted_fracs(
    cells: Sequence[tuple[Cell, float]],
    trust: UInt8[np.ndarray, "h w"],
    tissue: TissueMasks,
    *,
    grid_um: float,
    he_mpp: float,
) -> list[float]:
    """The share of each cell's tissue where no window supports the registration, 0 to 1.

    Args:
        cells: Of `keep_cells`.
        trust: 1 where windows do, on the registration's grid from the corner of the H&E slide; beyond it is none.
        tissue: The pair's.
        grid_um: Spacing of that grid.
        he_mpp: µm per px at level 0 of the H&E slide.
    """
    assert tissue.tissue is not None
    rows, columns = ((np.arange(side) + 0.5) * (tissue.mpp / grid_um) for side in tissue.tissue.shape)
    row, column = (
        np.minimum(place.astype(int), side) for place, side in zip((rows, columns), trust.shape, strict=True)
    )
    doubted = tissue.tissue & (np.pad(trust, ((0, 1), (0, 1)))[np.ix_(row, column)] == 0)
    boxes = [cell.box_px0 for cell, _ in cells]
    shares = tissue_fracs(boxes, doubted, level0_mpp=he_mpp, mask_mpp=tissue.mpp)
    return [min(1.0, float(share) / max(whole, 1e-6)) for share, (_, whole) in zip(shares, cells, strict=True)]


def cut_case(
    he: Slide,
    ihc: Slide,
    *,
    case: CheckedCase,
    ihc_from_he: Transform,
    cells: Sequence[tuple[Cell, float]],
    spec: TilingSpec,
    measures: Sequence[Measure],
    dab_mask: DabMask,
    store: TileWriter,
    workers: int = 1,
    untrusted: Sequence[float] | None = None,
    passed: Passed | None = None,
) -> list[dict[str, Any]]:
    """Tiles into the store and their rows of the tile table, in the order of `cells` whatever `workers` is.

    A tile whose pixels do not decode on one of the slides is not in the store; its row says so.

    Args:
        he: Read in its own frame.
        ihc: Read through the transform, with one interpolation.
        case: Whose slides these are.
        ihc_from_he: The registration.
        cells: Of `keep_cells`.
        spec: Resolution and side of the tiles.
        measures: Each adds its numbers to a tile's measurements.
        dab_mask: Makes the mask that is stored.
        store: Takes the tiles; the first cells are those that it holds already.
        workers: Threads that read and measure.
        untrusted: Of `untrusted_fracs`, one per cell, the measurement `untrusted_frac`; None: there is none.
        passed: Of `pass_through`, where the store takes the H&E tiles as they were scanned.

    Raises:
        SlideError: `spec.mpp` is finer than a slide, or no tile of it can be read.
    """

    def read(item: tuple[Cell, float | None]) -> Encoded:
        try:
            return made(*item)
        except PixelError as error:
            return Encoded({}, {**dict.fromkeys(OF_PIXELS), "measurements": {}, "problem": str(error)})

    def made(cell: Cell, doubt: float | None) -> Encoded:
        box = cell.box_px0
        size = (spec.tile_px, spec.tile_px)
        he_tile = he.read(box, mpp=spec.mpp, size=size)
        ihc_tile, valid = read_warped(ihc, ihc_from_he, box, mpp=spec.mpp, size=size)
        over_edge = box.width * box.height - _inside(cell, he.size_px0)
        measurements = {
            "outside_frac_he": over_edge / (box.width * box.height),
            "outside_frac_ihc": 1.0 - float(valid.mean()),
            **({} if doubt is None else {"untrusted_frac": doubt}),
        }
        tile = finish_tile(he_tile, ihc_tile, spec.mpp, measures, dab_mask, measurements)
        return encoded(tile, store, {} if passed is None else {"he": sealed(passed.chunk(box))})

    begun = sum(1 + len(row[DROPPED]) for row in store.rows)
    doubts: Sequence[float | None] = [None] * len(cells) if untrusted is None else untrusted
    work = [(cell, doubt) for (cell, _), doubt in zip(cells, doubts, strict=True)]
    # OpenCV's own threads would only compete with ours.
    cv2.setNumThreads(1)
    done = in_order(read, work[begun:], workers=max(1, workers), name="cut")
    dropped: list[dict[str, Any]] = []
    for (cell, share), tile in zip(
        cells[begun:], watched(done, "tiles", total=len(cells), unit="tile", start=begun), strict=True
    ):
        row = {
            "tile_id": f"{case.case_id}/{cell.column}-{cell.row}",
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "slide_id": he.slide_id,
            "batch": case.batch,
            "x_px0": int(cell.box_px0.x),
            "y_px0": int(cell.box_px0.y),
            "canvas_x_px0": int(cell.box_px0.x) + he.origin_px0[0],
            "canvas_y_px0": int(cell.box_px0.y) + he.origin_px0[1],
            "mpp": spec.mpp,
            "her2_score": case.her2_score,
            "score_level": "none" if case.her2_score is None else "slide",
            "marker": case.marker,
            "section": case.section,
            "source_split": case.split,
            "source_set": "",
            "source_name": "",
            "warped_stain": "ihc",
            "tissue_frac": share,
            "region": cell.region,
            "place": cell.place,
            **tile.columns,
        }
        if tile.chunks:
            store.append({**row, DROPPED: dropped}, tile.chunks)
            dropped = []
        else:
            dropped.append({**row, "row_in_store": None})
    if not store.rows:
        raise SlideError(he.slide_id, f"none of {len(cells)} tiles can be read: {dropped[0]['problem']}")
    return [*with_dropped(store.rows), *dropped]


def with_dropped(journal: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a store's journal, each after those whose pixels could not be read before it."""
    for entry in journal:
        row = dict(entry)
        yield from row.pop(DROPPED)
        yield row


def cut_key(case: CheckedCase, cells: Sequence[tuple[Cell, float]], untrusted: Sequence[float] | None) -> str:
    """A digest of what a begun store must share with the one that goes on with it, beside provenance and settings.

    The cells are those of a tissue mask and of outlines, and the record says how the slides are read: who decodes
    them, and into which colours.
    """
    places = [
        [cell.column, cell.row, *vars(cell.box_px0).values(), cell.region, cell.place, share] for cell, share in cells
    ]
    return digest([case.model_dump(mode="json"), places, None if untrusted is None else list(untrusted)])


def finish_tile(
    he: UInt8[np.ndarray, "h w 3"],
    ihc: UInt8[np.ndarray, "h w 3"],
    mpp: float,
    measures: Sequence[Measure],
    dab_mask: DabMask,
    measurements: Mapping[str, float],
) -> Tile:
    """A tile with its mask and every measurement, those given first."""
    numbers = dict(measurements)
    for measure in measures:
        found = measure(he, ihc, mpp)
        assert not found.keys() & numbers.keys(), sorted(found.keys() & numbers.keys())
        numbers.update(found)
    return Tile(he, ihc, dab_mask(ihc, mpp, numbers), numbers)


def encoded(tile: Tile, store: TileWriter, as_scanned: Mapping[str, bytes] = MappingProxyType({})) -> Encoded:
    """A tile as the store takes it, with hashes of its pixels; where a codec changes those, of its bytes. Any thread.

    Decoding again what was just encoded would cost as much as the encoding, and two decoders may differ by a level.

    Args:
        tile: The pixels.
        store: Knows the codecs.
        as_scanned: Chunks that need no encoding; their pixels are the tile's.
    """
    chunks = {name: as_scanned.get(name) or store.encode(name, getattr(tile, name)) for name in ARRAYS}
    hashes = {
        f"{name}_sha256": content_digest(getattr(tile, name))
        if store.lossless(name)
        else hashlib.sha256(chunks[name]).hexdigest()
        for name in ("he", "ihc")
    }
    likeness = {f"{name}_phash": perceptual_hash(getattr(tile, name)) for name in ("he", "ihc")}
    measured = {name: float(value) for name, value in sorted(tile.measurements.items())}
    return Encoded(chunks, {**hashes, **likeness, "measurements": measured, "problem": ""})


def _inside(cell: Cell, size_px0: tuple[int, int]) -> float:
    box = cell.box_px0
    width = max(0.0, min(box.right, size_px0[0]) - max(box.x, 0.0))
    height = max(0.0, min(box.bottom, size_px0[1]) - max(box.y, 0.0))
    return width * height
