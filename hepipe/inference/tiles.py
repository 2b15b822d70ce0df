"""Virtual tiles of a split, in the form of a tile store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from hepipe.dataset.normalize import Normalization
from hepipe.dataset.tiles import SplitTiles, rgb_from_tensor, tensor_from_rgb
from hepipe.errors import StoreError
from hepipe.inference.blend import USUAL
from hepipe.inference.sweep import sweep
from hepipe.models.catalog import Entry
from hepipe.models.method import Method
from hepipe.models.rates import expected, known_rates, prediction_workload
from hepipe.models.resolved import ResolvedRun
from hepipe.models.spending import machine_name
from hepipe.progress import watched
from hepipe.specs.dataset import Split
from hepipe.specs.training import StitchSpec
from hepipe.stores.arrays import whole, write_group
from hepipe.stores.costs import Cost, Expected
from hepipe.stores.partial import discard_partial
from hepipe.stores.provenance import Provenance, digest
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


def tiles_as_trained(
    index: Path,
    split: Split,
    run: ResolvedRun,
    told: Mapping[str, Any],
    *,
    mpp_slack: float,
    normalization: Normalization | None = None,
) -> SplitTiles:
    """The tiles of a split as a run is used to see them: at its resolution, of its marker.

    Args:
        index: Of the data set, which need not be the one that the run was trained on.
        split: Which tiles.
        run: Its record.
        told: What the finished model tells; an older one does not say what it was trained on, and nothing is checked.
        mpp_slack: A store whose µm/px is within this share of the run's is taken as stored.
        normalization: Colours that the run sees.

    Raises:
        StoreError: The tiles are stored coarser than the run saw its own, or are of another marker.
    """
    stored = SplitTiles(index, split)
    trained = told.get("trained_on", {})
    where = f"{split} tiles of {index.parent.name}"
    markers, own = {row.marker for row in stored.rows}, set(trained.get("markers", ()))
    if own and not markers <= own:
        raise StoreError(
            f"{where} are of {', '.join(sorted(markers))}, but run {run.name} has learnt {', '.join(sorted(own))} on "
            f"{run.dataset}; evaluate it on a data set of its marker"
        )
    wanted: float = trained.get("mpp") or run.training.mpp or stored.stored_mpp
    is_alike = abs(stored.stored_mpp - wanted) <= mpp_slack * wanted
    if stored.rows and not is_alike and stored.stored_mpp > wanted:
        raise StoreError(
            f"{where} are stored at {stored.stored_mpp:g} µm/px, but run {run.name} was trained on {run.dataset} at "
            f"{wanted:g}: a view as fine cannot be made of them; train a run with training.mpp of "
            f"{stored.stored_mpp:g} or more, or raise evaluation.mpp_slack if the two are the same by another name"
        )
    mpp = None if is_alike or not stored.rows else wanted
    if mpp is None and normalization is None:
        return stored
    return SplitTiles(index, split, mpp=mpp, normalization=normalization)


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
    stitch: StitchSpec = USUAL,
    count: Callable[[int], None] | None = None,
) -> None:
    """Write a split's virtual tiles, sorted by tile id, with the ids as attribute `tile_ids`.

    An empty split gives a store without arrays. `count` is told of the tiles that are done, batch by batch.
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
            for virtual in sweep(method, he, ids, crop_px=crop_px, seed=seed, stitch=stitch):
                writer.add(virtual=rgb_from_tensor(virtual))
            if count is not None:
                count(len(places))
        writer.finish()


def prediction_cost(
    run: ResolvedRun, tiles: SplitTiles, provenance: Provenance, *, runs: Path, device: torch.device
) -> Cost:
    """What is known of a prediction's cost before it begins.

    Args:
        run: That predicts.
        tiles: To be predicted.
        provenance: Of the store that it makes.
        runs: Folder of the runs, where those finished before left what they took.
        device: That computes.
    """
    work = prediction_workload(run, side_px=tiles.side_px or 1, machine=machine_name(device))
    try:
        before = expected(work, len(tiles), known_rates(runs))
    except StoreError as error:  # an estimate that cannot be made stops no prediction
        before = Expected(ground=str(error))
    key = digest({"inputs": provenance.inputs, "spec": provenance.spec})
    return Cost(run=run.name, key=key, workload=work, n_units=len(tiles), expected=before)
