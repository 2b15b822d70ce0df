"""Residual U-Net with a ResNet encoder (Teixeira et al., DGM4MICCAI 2025; encoder He et al., CVPR 2016).

The encoder is ResNet-18, 34 or 50 (v1.5: stride in the bottleneck's 3x3 convolution) with a stem of stride 1 and with
instance norm without affine, so that a ResNet file of the common key layout gives its convolutions only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import norm_layer
from hepipe.networks.released import check_tensors

Backbone = Literal["resnet18", "resnet34", "resnet50"]

DEPTHS: Mapping[str, tuple[int, ...]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
}


def _norm(channels: int) -> nn.Module:
    return norm_layer("instance", channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut (ResNet-50)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm1, self.norm2, self.norm3 = _norm(width), _norm(width), _norm(4 * width)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), _norm(outputs))


class ResnetEncoder(nn.Module):
    """Stem at full side, then four stages; gives [stem, stage 1, ... stage 4]."""

    def __init__(self, backbone: Backbone = "resnet50", *, width: int = 64) -> None:
        super().__init__()
        block = Bottleneck if backbone == "resnet50" else BasicBlock
        self.conv1 = nn.Conv2d(3, width, 7, padding=3, bias=False)
        self.norm1 = _norm(width)
        stages, inputs = [], width
        for i, depth in enumerate(DEPTHS[backbone]):
            stage: list[nn.Module] = []
            for j in range(depth):
                stage.append(block(inputs, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
                inputs = width * 2**i * block.expansion
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.widths = (width, *(width * 2**i * block.expansion for i in range(4)))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        maps = [F.relu(self.norm1(self.conv1(x)))]
        x = F.max_pool2d(maps[0], 3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def load_common(self, state: Mapping[str, Tensor], *, source: str = "encoder weights") -> None:
        """Take the convolutions of a ResNet file in the common key layout; norms and classifier are left out.

        Raises:
            WeightsError: A convolution is missing or of another shape, or there is one more.
        """
        given = {
            name: tensor
            for name, tensor in state.items()
            if tensor.ndim == 4 and name.endswith(".weight") and not name.startswith("fc.")
        }
        check_tensors(given, self.state_dict(), source=source)
        self.load_state_dict(given)


class DecoderLevel(nn.Module):
    """Doubles the deeper map, joins the skip before it, and convolves twice."""

    def __init__(self, *, skip: int, deeper: int, outputs: int) -> None:
        super().__init__()
        half = deeper // 2
        self.project = nn.Conv2d(skip, half, 1)
        self.shrink = nn.Conv2d(deeper, half, 1)
        self.conv1 = nn.Conv2d(2 * half, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1, self.norm2 = _norm(outputs), _norm(outputs)

    def forward(self, skip: Float[Tensor, "b s h w"], deeper: Float[Tensor, "b d _ _"]) -> Float[Tensor, "b o h w"]:
        up = F.interpolate(deeper, scale_factor=2, mode="bilinear", align_corners=True)
        x = torch.cat([self.project(skip), self.shrink(up)], dim=1)
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class UnetDecoder(nn.Module):
    """From the encoder's maps back to full side; no activation at its end.

    Args:
        widths: Channels of the maps, from the stem to the deepest.
    """

    def __init__(self, widths: Sequence[int], *, outputs: int = 3) -> None:
        super().__init__()
        *skips, deepest = widths
        # Every level gives the channels of its skip, which the deeper half must fit: 2048 becomes 1024, ... 256, 64.
        self.levels = nn.ModuleList()
        for skip in reversed(skips):
            self.levels.append(DecoderLevel(skip=skip, deeper=deepest, outputs=skip))
            deepest = skip
        self.head = nn.Conv2d(deepest, outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "b o h w"]:
        *skips, x = maps
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            x = level(skip, x)
        return self.head(x)


class ResUnetGenerator(nn.Module):
    """Picture to picture in [0, 1]; sides must be multiples of 16, at least 32."""

    def __init__(self, backbone: Backbone = "resnet50", *, width: int = 64) -> None:
        super().__init__()
        self.encoder = ResnetEncoder(backbone, width=width)
        self.decoder = UnetDecoder(self.encoder.widths)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return cast(Tensor, self.decoder(self.encoder(x))).sigmoid()
