"""What judges a picture in BCIstainer: PatchGANs at several scales, and a classifier whose features are compared.

Zhu et al. 2023 (`networks/styled.py`); several scales after Wang et al., CVPR 2018. Named as in the released code.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import Norm
from hepipe.networks.styled import ConvNormAct


class MultiScaleDiscriminator(nn.Module):
    """PatchGANs, with a reflected border and a norm in every layer but the last, on a picture and its halvings.

    Args:
        width: Channels of the first layer; doubled per layer up to eight times.
        n_layers: Convolutions before the last two.
        scales: `layer<scales - 1>` sees the picture as it is, `layer0` the smallest.
    """

    def __init__(
        self, *, inputs: int = 3, width: int = 32, n_layers: int = 3, scales: int = 2, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.scales = scales
        for scale in range(scales):
            widths = [inputs, *(width * min(2**n, 8) for n in range(n_layers + 1))]
            layers: list[nn.Module] = [
                ConvNormAct(widths[n], widths[n + 1], 4, stride=2 if n < n_layers else 1, norm=norm)
                for n in range(n_layers + 1)
            ]
            self.add_module(f"layer{scale}", nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1)))

    def forward(self, x: Float[Tensor, "b i h w"]) -> list[Tensor]:
        """A map of logits of each scale, that of the picture as it is first."""
        maps = []
        for scale in reversed(range(self.scales)):
            maps.append(self.get_submodule(f"layer{scale}")(x))
            if scale:
                x = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)
        return maps


class Compared(NamedTuple):
    """What the comparator gives for a batch."""

    latent: Float[Tensor, "b c"]
    logits: Float[Tensor, "b levels"]


class Comparator(nn.Module):
    """A classifier of HER2 levels whose pooled features say how alike two IHC pictures are.

    Args:
        full_size: Side of the tiles that it is built for, px, a power of two: halved to 8 px.
        width: Channels of the first layer, doubled per layer up to `max_width`.
    """

    def __init__(
        self,
        *,
        full_size: int = 1024,
        width: int = 32,
        max_width: int = 256,
        levels: int = 4,
        norm: Norm = "batch",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        halvings = int(math.log2(full_size)) - 4
        assert halvings >= 0, f"full_size {full_size} is below 16"
        widths = [min(width * 2**n, max_width) for n in range(halvings + 1)]
        self.encoder = nn.Sequential(
            ConvNormAct(3, width, 7, stride=2, padding=3, norm=norm),
            *(ConvNormAct(a, b, 3, stride=2, norm=norm) for a, b in pairwise(widths)),
        )
        self.classify_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], levels))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Compared:
        latent = self.encoder(x).mean((2, 3))
        return Compared(latent, self.classify_head(latent))
