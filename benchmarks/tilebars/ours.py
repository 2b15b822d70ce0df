"""Our side of the bars, each command in a process of its own: what `hepipe tile` does without its measurements.

    python benchmarks/tilebars/ours.py cut SLIDE OUT.zarr [--codec jpeg] [--quality 90] [--workers 1] …
    python benchmarks/tilebars/ours.py pair HE IHC TRANSFORM.npz OUT.zarr --kept 0.25 …

`cut` finds the tissue of one slide, lays the grid, keeps cells with enough of it and stores them: what hs2p does.
`pair` keeps the share `--kept` of the cells, those with the most tissue, and stores both stains, the second through
the transform: what one warps a whole slide for. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from hepipe.geometry import Transform
    from hepipe.slides.reader import Slide
    from hepipe.tiling.grid import Cell

Read = Callable[["Cell"], dict[str, np.ndarray]]
"""A cell's tile per array."""


def main() -> None:
    """Read the command line."""
    given = options()
    cv2.setNumThreads(1)
    from hepipe.slides.open import closing, open_slide
    from hepipe.specs.tiling import TilingSpec

    spec = TilingSpec(mpp=given.mpp, tile_px=given.tile_px, min_tissue_frac=given.min_tissue)
    he = open_slide(given.he, slide_id="bar-he", reader=given.reader)
    with closing(he):
        cells = kept_cells(he, spec, share=getattr(given, "kept", None))
        cut = cutter(he, spec)
        if given.command == "cut":
            done = store(cells, cut, given, spec)
        else:
            ihc = open_slide(given.ihc, slide_id="bar-ihc", reader=given.reader)
            with closing(ihc):
                done = store(cells, both(cut, ihc, transform_of(given.transform, ihc.mpp), spec), given, spec)
    print(json.dumps({**done, "reader": he.reader}))


def kept_cells(he: Slide, spec: Any, *, share: float | None) -> list[tuple[Cell, float]]:
    """The cells with enough tissue of a slide, or the share of all with the most; in reading order."""
    from hepipe.specs.slides import TissueSpec
    from hepipe.tiling.grid import cut_grid, tissue_fracs
    from hepipe.tissue.find import find_tissue

    tissue = TissueSpec()
    seen = list(he.overview(max_px=max(1, round(max(he.size_px0) * he.mpp / tissue.mpp))))
    mpp = seen.pop()
    mask = find_tissue(
        seen.pop(), mpp=mpp, spec=tissue
    )  # so that the picture of a large slide goes when it is done with
    cells = cut_grid(he.size_px0, level0_mpp=he.mpp, spec=spec)
    fracs = tissue_fracs([cell.box_px0 for cell in cells], mask, level0_mpp=he.mpp, mask_mpp=mpp)
    if share is None:
        places = np.flatnonzero(fracs >= spec.min_tissue_frac)
    else:
        places = np.sort(np.argsort(-fracs, kind="stable")[: round(share * len(cells))])
    return [(cells[place], float(fracs[place])) for place in places]


def cutter(he: Slide, spec: Any) -> Read:
    """A cell's tile of the slide, in an array that the next cell of the same thread fills again."""
    size = (spec.tile_px, spec.tile_px)
    room = threading.local()

    def read(cell: Cell) -> dict[str, np.ndarray]:
        room.he = he.read(cell.box_px0, mpp=spec.mpp, size=size, out=getattr(room, "he", None))
        return {"he": room.he}

    return read


def both(cut: Read, ihc: Slide, ihc_from_he: Transform, spec: Any) -> Read:
    """A cell's tiles of both stains."""
    from hepipe.registration.warp import read_warped

    def read(cell: Cell) -> dict[str, np.ndarray]:
        size = (spec.tile_px, spec.tile_px)
        warped, _ = read_warped(ihc, ihc_from_he, cell.box_px0, mpp=spec.mpp, size=size)
        return {**cut(cell), "ihc": warped}

    return read


def store(cells: Sequence[tuple[Cell, float]], read: Read, given: argparse.Namespace, spec: Any) -> dict[str, Any]:
    """Tiles into a store."""
    from hepipe.parallel import in_order
    from hepipe.specs.tiling import StoreSpec
    from hepipe.stores.provenance import Provenance
    from hepipe.stores.tiles import TileWriter

    provenance = Provenance(artefact="tiles", subject="bar", spec=spec.model_dump(mode="json"))
    arrays = {"he": 3} if given.command == "cut" else {"he": 3, "ihc": 3}
    settings = StoreSpec(codec=given.codec, quality=given.quality)
    writer = TileWriter(given.out, provenance, mpp=spec.mpp, tile_px=spec.tile_px, arrays=arrays, spec=settings)

    def finish(item: tuple[Cell, float]) -> tuple[dict[str, Any], dict[str, bytes]]:
        cell, frac = item
        chunks = {name: writer.encode(name, tile) for name, tile in read(cell).items()}
        row = {"tile_id": f"bar/{cell.column}-{cell.row}", "x_px0": int(cell.box_px0.x), "y_px0": int(cell.box_px0.y)}
        return {**row, "tissue_frac": frac}, chunks

    size = 0
    for row, chunks in in_order(finish, cells, workers=given.workers):
        writer.append(row, chunks)
        size += sum(map(len, chunks.values()))
    writer.finish()
    return {"tiles": len(cells), "bytes": size}


def transform_of(path: Path, moving_mpp: float) -> Transform:
    """The transform that `rivals/vips_warp.py` takes too, as ours."""
    from hepipe.geometry import Transform

    with np.load(path) as given:
        affine = np.concatenate([given["affine"], [[0.0, 0.0, 1.0]]])
        field = np.moveaxis(given["field"], -1, 0).astype(np.float32) * np.float32(moving_mpp)
        return Transform(affine, moving_mpp, moving_mpp, field, float(given["grid_px"]) * moving_mpp)


def options() -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = words.add_subparsers(dest="command", required=True)
    for name, paths in (("cut", ("he", "out")), ("pair", ("he", "ihc", "transform", "out"))):
        part = parts.add_parser(name)
        for path in paths:
            part.add_argument(path, type=Path)
        part.add_argument("--mpp", type=float, default=0.25)
        part.add_argument("--tile-px", type=int, default=1024)
        part.add_argument("--min-tissue", type=float, default=0.5)
        part.add_argument("--codec", default="jpeg")
        part.add_argument("--quality", type=int, default=90)
        part.add_argument("--workers", type=int, default=1)
        part.add_argument("--reader", default="direct")
    parts.choices["pair"].add_argument("--kept", type=float, required=True)
    return words.parse_args()


if __name__ == "__main__":
    main()
