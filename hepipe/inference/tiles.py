"""Virtual tiles of a split, in the form of a tile store."""

from __future__ import annotations

from pathlib import Path

import torch

from hepipe.dataset.tiles import SplitTiles, rgb_from_tensor, tensor_from_rgb
from hepipe.errors import StoreError
from hepipe.inference.sweep import sweep
from hepipe.models.catalog import Entry
from hepipe.models.method import Method
from hepipe.progress import watched
from hepipe.stores.arrays import whole, write_group
from hepipe.stores.partial import discard_partial
from hepipe.stores.provenance import Provenance
from hepipe.stores.tiles import TileWriter


def crop_of(entry: Entry, preset: str, *, side_px: int, wanted_px: int) -> int:
    """Side of the crops that a model predicts tiles by.

    Args:
        entry: The model.
        preset: Of the run.
        side_px: Of the tiles.
        wanted_px: What the protocol asks for; 0 takes whole tiles, or the largest crops that the model takes.

    Raises:
        StoreError: The tiles are too small for the model.
    """
    crop = entry.largest(side_px, preset) if wanted_px == 0 else wanted_px
    if crop == 0 or crop > side_px or not entry.takes(crop, preset):
        raise StoreError(
            f"tiles of {side_px} px cannot be predicted by crops of {wanted_px or side_px} px: "
            f"{entry.name} {preset} takes {entry.size_in_words(preset)}"
        )
    return crop


def predict_split(
    method: Method,
    tiles: SplitTiles,
    path: Path,
    provenance: Provenance,
    *,
    crop_px: int,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> None:
    """Write a split's virtual tiles, sorted by tile id, with the ids as attribute `tile_ids`.

    An empty split gives a store without arrays.
    """
    method.to(device)
    method.train(False)
    if not tiles.rows:
        with whole(path) as beside:
            write_group(beside, provenance, mpp=tiles.mpp, tile_px=0, tile_ids=[])
        return
    # Half a prediction is not gone on with: nothing here says that its H&E tiles were these.
    discard_partial(path)
    tile_ids = [row.tile_id for row in tiles.rows]
    with TileWriter(
        path,
        provenance,
        mpp=tiles.mpp,
        tile_px=tiles.side_px,
        arrays={"virtual": 3},
        attributes={"tile_ids": tile_ids},
    ) as writer:
        starts = range(0, len(tiles), batch_size)
        for start in watched(starts, "predict", total=len(starts), unit="step"):
            places = range(start, min(start + batch_size, len(tiles)))
            he = torch.stack([tensor_from_rgb(tiles.rgb("he", place)) for place in places]).to(device)
            ids = tile_ids[places.start : places.stop]
            for virtual in sweep(method, he, ids, crop_px=crop_px, seed=seed):
                writer.add(virtual=rgb_from_tensor(virtual))
        writer.finish()
