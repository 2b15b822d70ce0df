"""U-Net generator of pix2pix (Isola et al., CVPR 2017, appendix 6.1)."""

from __future__ import annotations

import re
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import Norm, has_bias, norm_layer


class Level(nn.Module):
    """A convolution that halves or doubles the sides, and what follows it."""

    def __init__(self, convolution: nn.Module, norm: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = convolution
        self.norm = norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        return self.dropout(self.norm(self.conv(x)))


class UnetGenerator(nn.Module):
    """Picture to picture in [-1, 1]; sides must be multiples of 2^n_downs.

    Args:
        n_downs: Halvings of the side; 8 bring 256 px to one, at least 5.
        width: Channels of the first level; doubled per level up to eight times.
        dropout: In the innermost levels of full width but the very last one.
    """

    def __init__(
        self,
        *,
        n_downs: int = 8,
        width: int = 64,
        norm: Norm = "batch",
        dropout: float = 0.5,
        inputs: int = 3,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        bias = has_bias(norm)
        widths = [width * min(2**level, 8) for level in range(n_downs)]
        deepest = n_downs - 1

        def down(i: int, o: int, level: int) -> Level:
            # The outermost sees a picture and the innermost may see a single px: neither has a norm.
            own = norm if 0 < level < deepest else "none"
            return Level(nn.Conv2d(i, o, 4, stride=2, padding=1, bias=bias), norm_layer(own, o))

        def up(i: int, o: int, level: int) -> Level:
            convolution = nn.ConvTranspose2d(i, o, 4, stride=2, padding=1, bias=bias or level == 0)
            dropped = dropout if 4 <= level < deepest else 0.0
            return Level(convolution, norm_layer(norm if level > 0 else "none", o), dropped)

        self.downs = nn.ModuleList(down(i, o, level) for level, (i, o) in enumerate(pairwise([inputs, *widths])))
        # Every level but the innermost is given its skip beside what comes from below.
        self.ups = nn.ModuleList(
            up(i if level == deepest else 2 * i, o, level) for level, (o, i) in enumerate(pairwise([outputs, *widths]))
        )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        skips = [self.downs[0](x)]
        for down in list(self.downs)[1:]:
            skips.append(down(F.leaky_relu(skips[-1], 0.2)))
        y = self.ups[-1](F.relu(skips.pop()))
        for up in reversed(list(self.ups)[:-1]):
            y = up(F.relu(torch.cat([skips.pop(), y], dim=1)))
        return y.tanh()


def unet_name(released: str, *, n_downs: int) -> str:
    """Our name of a tensor of the authors' U-Net, whose levels are nested in one another.

    `model.model.0` is the outermost convolution; within a level 1 is the convolution down, 2 its norm, 3 the next
    level, 5 the convolution up and 6 its norm; the innermost has no norm down, so its way up is 3 and 4.
    """
    places = [int(number) for number in re.findall(r"(?<=model\.)\d+", released)]
    if not places:
        return released
    leaf, level, place = released.rsplit(".", 1)[1], len(places) - 1, places[-1]
    if level == 0:
        way = {0: "downs.0.conv", 3: "ups.0.conv"}
    elif level == n_downs - 1:
        way = {1: f"downs.{level}.conv", 3: f"ups.{level}.conv", 4: f"ups.{level}.norm"}
    else:
        way = {1: f"downs.{level}.conv", 2: f"downs.{level}.norm", 5: f"ups.{level}.conv", 6: f"ups.{level}.norm"}
    return f"{way[place]}.{leaf}" if place in way else released
