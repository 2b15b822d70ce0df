"""BCIstainer's second generator in the released code ("CAHR"): crops stained in the style of the whole, blended in.

Zhu et al. 2023 (`networks/styled.py`). No released configuration and no reported number uses it, and neither does a
preset here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import Norm
from hepipe.networks.styled import Stained, StyledGenerator, picture_head, up_path

Corner = tuple[int, int]
"""Top and left, px."""


class Merged(NamedTuple):
    """What a generator gives for a batch with crops.

    Attributes:
        whole: Outputs for the whole tiles.
        crops: The crops' own pictures.
        blended: For each crop, the whole picture with the crop blended in.
    """

    whole: Stained
    crops: list[Tensor]
    blended: list[Tensor]


class CropMask(nn.Module):
    """How far each pixel is taken from the crop, 0 to 1, from what the middle makes of the crop.

    Args:
        width: Of the generator, and so are `encoder_blocks` and `norm`.
        of_middle: It sees what the middle makes of the crop; else what the middle is given.
    """

    def __init__(
        self, *, width: int = 32, encoder_blocks: int = 3, norm: Norm = "batch", of_middle: bool = True
    ) -> None:
        super().__init__()
        self.of_middle = of_middle
        self.mask_decoder = up_path([width * 2**i for i in range(encoder_blocks + 1)], norm)
        self.mask_outconv = picture_head(width, 1, 7, nn.Sigmoid())

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h2 w2"]:
        return self.mask_outconv(self.mask_decoder(features))


def merge_crops(
    generator: StyledGenerator,
    mask: CropMask,
    tiles: Float[Tensor, "b 3 h w"],
    crops: Sequence[Tensor],
    corners: Sequence[Corner],
) -> Merged:
    """Tiles and their crops through one generator; the style of a crop is that of its whole tile.

    Args:
        generator: Of both.
        mask: What blends.
        tiles: A batch.
        crops: Each the same square of every tile of the batch.
        corners: Where each is.
    """
    encoded = generator.encode(tiles)
    style = generator.style(encoded)
    whole = generator.outputs(generator.middle(encoded, style), style)
    pictures, blended = [], []
    for crop, corner in zip(crops, corners, strict=True):
        given = generator.encode(crop)
        features = generator.middle(given, style)
        picture, share = generator.paint(features), mask(features if mask.of_middle else given)
        around = _square(corner, crop.shape[2])
        full = whole.ihc.clone()
        full[around] = full[around] * (1 - share) + picture * share
        pictures.append(picture)
        blended.append(full)
    return Merged(whole, pictures, blended)


def half_overlapping(side_px: int, crop_px: int) -> list[Corner]:
    """Corners of crops that overlap their neighbours by half; nine where a crop is half as broad as the tile."""
    places = range(0, side_px - crop_px + 1, crop_px // 2)
    return [(top, left) for top in places for left in places]


def mean_of_wholes(merged: Merged) -> Float[Tensor, "b 3 h w"]:
    """The mean, over the crops, of the whole pictures with a crop blended in."""
    return torch.stack(merged.blended).mean(0)


def mean_of_crops(merged: Merged, corners: Sequence[Corner]) -> Float[Tensor, "b 3 h w"]:
    """At each pixel the mean of the blended crops that show it; nan where none does."""
    total, count = torch.zeros_like(merged.whole.ihc), torch.zeros_like(merged.whole.ihc)
    for full, picture, corner in zip(merged.blended, merged.crops, corners, strict=True):
        around = _square(corner, picture.shape[2])
        total[around] += full[around]
        count[around] += 1
    return total / count


def _square(corner: Corner, side_px: int) -> tuple[slice, slice, slice, slice]:
    top, left = corner
    return slice(None), slice(None), slice(top, top + side_px), slice(left, left + side_px)
