"""Feature networks of the perceptual and set metrics, in plain torch.

Parameter names equal those of the public state dicts, so a weights file loads as it is. Nothing here downloads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

LITE0_STAGES = (
    # repeats, kernel, stride, expansion, channels out: Tan and Le, ICML 2019, the "lite" variant of its authors
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LITE0_TAPS = (0, 2, 4, 10, 14, 15)
"""Blocks whose outputs the stand-in distances compare: the last of each resolution, and the last two."""
BATCH_NORM_EPS = 1e-3


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does it: the odd px goes to the right and the bottom."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Padded to ceil(side / stride)."""
        pads: list[int] = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class LiteBlock(nn.Module):
    """Inverted bottleneck without squeeze and excitation."""

    def __init__(self, *, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = width_in * expansion
        self.expands = expansion != 1
        self.skips = stride == 1 and width_in == width_out
        if self.expands:
            self._expand_conv = SameConv(width_in, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self._project_conv = SameConv(width, width_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width_out, eps=BATCH_NORM_EPS)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The block's output, before any activation."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0; the stand-in where the networks that papers use are not at hand."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=BATCH_NORM_EPS)
        blocks, width = [], 32
        for repeats, kernel, stride, expansion, width_out in LITE0_STAGES:
            for number in range(repeats):
                blocks.append(
                    LiteBlock(
                        width_in=width,
                        width_out=width_out,
                        kernel=kernel,
                        stride=stride if number == 0 else 1,
                        expansion=expansion,
                    )
                )
                width = width_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(width, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=BATCH_NORM_EPS)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, tiles: UInt8[Tensor, "b 3 h w"]) -> tuple[list[Float[Tensor, "b ..."]], Float[Tensor, "b 1280"]]:
        """Outputs of the tapped blocks and the pooled features of 8-bit tiles at their own size."""
        x = (tiles.float() - 127) / 128
        x = F.relu6(self._bn0(self._conv_stem(x)))
        taps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in LITE0_TAPS:
                taps.append(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return taps, x.mean(dim=(2, 3))


def perceptual_distance(
    first: Sequence[Float[Tensor, "b ..."]], second: Sequence[Float[Tensor, "b ..."]]
) -> Float[Tensor, " b"]:
    """Squared distance of unit-length feature vectors, averaged over places and taps: LPIPS without its weights.

    After Zhang et al., CVPR 2018, equation 1 with w = 1. Lower is better; 0 for identical tiles.
    """
    per_tap = [((_unit(a) - _unit(b)) ** 2).sum(dim=1).mean(dim=(1, 2)) for a, b in zip(first, second, strict=True)]
    return torch.stack(per_tap).mean(dim=0)


def hash_distance(
    first: Sequence[Float[Tensor, "b ..."]], second: Sequence[Float[Tensor, "b ..."]], *, threshold: float = 0.01
) -> Float[Tensor, "b taps"]:
    """Share of channels of each tap whose mean differs by more than the threshold: PHV of Liu et al., TMI 2021.

    Lower is better, 0 to 1.
    """
    shares = [
        ((a.mean(dim=(2, 3)) - b.mean(dim=(2, 3))).abs() > threshold).float().mean(dim=1)
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(shares, dim=1)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
