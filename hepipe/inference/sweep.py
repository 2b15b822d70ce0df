"""A method over tiles larger than it takes: crops one after the other, blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hepipe.dataset.tiles import tile_seed
from hepipe.inference.blend import USUAL, starts, weights
from hepipe.models.method import Method
from hepipe.specs.training import StitchSpec


@torch.no_grad()
def sweep(
    method: Method,
    tiles: Float[Tensor, "b 3 h w"],
    tile_ids: Sequence[str],
    *,
    crop_px: int,
    seed: int,
    stitch: StitchSpec = USUAL,
) -> Float[Tensor, "b 3 h w"]:
    """Virtual tiles; the method sees crops of `crop_px`, whole tiles when that is their side.

    Neither side may be smaller than a crop.

    The random numbers of a crop follow from the tile's id and the crop's place, never from the batch.
    """
    height, width = tiles.shape[-2:]
    if crop_px == height == width:
        return method.stain(tiles, seeds=_seeds([*tile_ids], seed, tiles.device))
    share = torch.from_numpy(weights(crop_px, stitch=stitch)).to(tiles.device)
    total = torch.zeros_like(tiles)
    covered = torch.zeros(height, width, device=tiles.device)
    for y in starts(height, crop_px, overlap_frac=stitch.overlap_frac):
        for x in starts(width, crop_px, overlap_frac=stitch.overlap_frac):
            here = (..., slice(y, y + crop_px), slice(x, x + crop_px))
            seeds = _seeds([f"{tile_id}@{x},{y}" for tile_id in tile_ids], seed, tiles.device)
            total[here] += method.stain(tiles[here].contiguous(), seeds=seeds).float() * share
            covered[here] += share
    return total / covered


def _seeds(names: Sequence[str], seed: int, device: torch.device) -> Tensor:
    return torch.tensor([tile_seed(name, seed) for name in names], device=device)
