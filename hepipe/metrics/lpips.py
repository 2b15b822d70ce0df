"""LPIPS, release 0.1: distance of deep features weighted as people judged.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, equation 1. Backbones
and heads come from a user's files (`hepipe weights`); parameter names equal those of the public state dicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from hepipe.errors import WeightsError

Backbone = Literal["alex", "vgg"]

ROLES: Mapping[Backbone, tuple[str, str]] = {"alex": ("alexnet", "lpips-alex"), "vgg": ("vgg16", "lpips-vgg")}
"""Weights roles of the backbone and of its heads."""
TAPS: Mapping[Backbone, tuple[int, ...]] = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""Layers whose outputs are compared: AlexNet's five ReLUs; relu1_2, 2_2, 3_3, 4_3 and 5_3 of VGG-16."""
MIN_SIDE = 32
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Of the authors' scaling layer, for tiles in [-1, 1]."""
_VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Widths of VGG-16's convolutions; 0 halves the side (Simonyan and Zisserman, ICLR 2015, configuration D)."""


def alexnet_layers() -> nn.Sequential:
    """Convolutional part of AlexNet up to its last ReLU (Krizhevsky, arXiv:1404.5997, one column)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def vgg16_layers() -> nn.Sequential:
    """Convolutional part of VGG-16 up to its last ReLU."""
    layers: list[nn.Module] = []
    width = 3
    for wanted in _VGG:
        if wanted == 0:
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(width, wanted, 3, padding=1), nn.ReLU()]
        width = wanted
    return nn.Sequential(*layers)


class Lpips(nn.Module):
    """The distance of two tiles; lower is better, 0 for identical ones.

    It cannot see a shift of colour that its features do not; tiles keep their own size.
    """

    def __init__(self, backbone: Backbone, *, features: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        """Load.

        Args:
            backbone: Which network.
            features: State of the ImageNet network, whose classifier is left out.
            heads: State of the linear heads.

        Raises:
            WeightsError: Other tensors than those of this network.
        """
        super().__init__()
        self.taps = TAPS[backbone]
        self.features = alexnet_layers() if backbone == "alex" else vgg16_layers()
        own = {name: value for name, value in features.items() if name.startswith("features.")}
        try:
            self.load_state_dict(own)
            found = [heads[f"lin{number}.model.1.weight"].flatten() for number in range(len(self.taps))]
        except (RuntimeError, KeyError) as error:
            raise WeightsError(
                f"{ROLES[backbone][0]}: not the tensors of LPIPS ({str(error).splitlines()[0]})"
            ) from None
        self.heads = found
        self.eval()
        self.requires_grad_(False)

    def forward(self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """The distance of each pair of tiles in [-1, 1]."""
        one, other = self._levels(first), self._levels(second)
        total = torch.zeros(len(first), device=first.device)
        for head, a, b in zip(self.heads, one, other, strict=True):
            weighted = (_unit(a) - _unit(b)).square() * head.to(a.device)[:, None, None]
            total = total + weighted.sum(dim=1).mean(dim=(1, 2))
        return total

    def of_pictures(self, first: UInt8[Tensor, "b 3 h w"], second: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """The same for 8-bit tiles."""
        distance: Tensor = self(first.float() / 127.5 - 1, second.float() / 127.5 - 1)
        return distance

    def _levels(self, tiles: Tensor) -> list[Tensor]:
        shift, scale = (torch.tensor(values, device=tiles.device)[:, None, None] for values in (SHIFT, SCALE))
        x, found = (tiles - shift) / scale, []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                found.append(x)
        return found


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
