"""BCIstainer's generator: an encoder-decoder whose middle is conditioned on a style that it reads off the picture.

Zhu et al., Breast Cancer Immunohistochemical Image Generation: a Benchmark Dataset and Challenge Review, 2023 (second
place); modulated convolution after Karras et al., CVPR 2020; SimAM, Yang et al., ICML 2021; AdaIN, Huang & Belongie,
ICCV 2017. Modules and their numbers are named as in the released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import InstanceNorm, Norm, has_bias, norm_layer

Style = Literal["mod", "ada", "none"]


class Stained(NamedTuple):
    """What the generator gives for a batch.

    Attributes:
        ihc: Virtual IHC in [-1, 1].
        lowres: The same, as the middle of the network sees it, at 1 / 2**encoder_blocks of the side; None without it.
        logits: Of the levels 0, 1+, 2+, 3+; None without classification.
    """

    ihc: Float[Tensor, "b o h w"]
    lowres: Float[Tensor, "b o h2 w2"] | None
    logits: Float[Tensor, "b levels"] | None


class ConvNormAct(nn.Module):
    """Reflected border, convolution, norm, LeakyReLU(0.2)."""

    def __init__(
        self, inputs: int, outputs: int, side: int, *, stride: int = 1, padding: int = 1, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReflectionPad2d(padding),
            nn.Conv2d(inputs, outputs, side, stride=stride, bias=has_bias(norm)),
            norm_layer(norm, outputs),
            nn.LeakyReLU(0.2, True),
        )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        return self.conv(x)


class UpNormAct(nn.Module):
    """Transposed convolution that doubles the sides, norm, LeakyReLU(0.2)."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm = "batch") -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=has_bias(norm)),
            norm_layer(norm, outputs),
            nn.LeakyReLU(0.2, True),
        )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o 2*h 2*w"]:
        return self.conv(x)


class SimAM(nn.Module):
    """Attention without parameters: a place counts more, the farther it is from its channel's mean."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        distance = (x - x.mean((2, 3), keepdim=True)).square()
        places = x.shape[2] * x.shape[3]
        # By the mean, as the sum over a large tile leaves the range of half precision.
        variance = distance.mean((2, 3), keepdim=True) * (places / (places - 1))
        return x * torch.sigmoid(distance / (4 * (variance + 1e-4)) + 0.5)


class EqualizedLinear(nn.Module):
    """A linear layer whose weight is divided by the root of its inputs at use, so that all layers step alike."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        return F.linear(x, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class ModulatedConv(nn.Module):
    """3x3 convolution whose input channels are weighted by 1 + style, each output channel then brought to unit norm.

    Equation 3 of Karras et al. Weighting the input and the output by what the paper multiplies into the kernel is the
    same sum, as reflection commutes with it, and needs no kernel of its own for each tile.
    """

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b c"]) -> Float[Tensor, "b c h w"]:
        scale = 1 + style.float()
        gain = 1 / self.weight[0].numel()
        # Products and sums one by one: autocast leaves these in float32, as a matrix product it would not.
        power = (scale.square()[:, None] * self.weight.float().square().sum((2, 3))).sum(2)
        unit = math.sqrt(gain) * torch.rsqrt(gain * power + 1e-8)
        padded = F.pad(x * scale[:, :, None, None].to(x.dtype), (1, 1, 1, 1), mode="reflect")
        output = F.conv2d(padded, self.weight)
        output = output * unit[:, :, None, None].to(output.dtype)
        return output if self.bias is None else output + self.bias.to(output.dtype)[:, None, None]


class AdaIN(nn.Module):
    """Instance norm, then scale and shift that a linear layer reads off the style."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.linear = nn.Linear(style, 2 * channels)
        self.norm = InstanceNorm(channels)

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.linear(style)[:, :, None, None].chunk(2, 1)
        return (1 + scale) * self.norm(x) + shift


def _attention(wanted: bool) -> nn.Module:
    return SimAM() if wanted else nn.Identity()


def _joined(x: Tensor, out: Tensor) -> Tensor:
    return (x + out) / math.sqrt(2)


class ModBlock(nn.Module):
    """Two modulated convolutions beside the identity.

    Args:
        linear: Each sees the style through a linear layer of its own; else as it is, so as broad as the channels.
    """

    def __init__(
        self, channels: int, style: int, *, bias: bool = False, attention: bool = False, linear: bool = True
    ) -> None:
        super().__init__()
        self.style1, self.style2 = (nn.Linear(style, channels) if linear else nn.Identity() for _ in range(2))
        self.conv1, self.conv2 = ModulatedConv(channels, bias=bias), ModulatedConv(channels, bias=bias)
        self.attention = _attention(attention)

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b c h w"]:
        out = F.leaky_relu(self.conv1(x, self.style1(style)), 0.2)
        out = F.leaky_relu(self.conv2(out, self.style2(style)), 0.2)
        return _joined(x, self.attention(out))


class AdaBlock(nn.Module):
    """Two convolutions with zeros at the border, each with AdaIN, beside the identity."""

    def __init__(self, channels: int, style: int, *, bias: bool = False, attention: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.style1, self.style2 = AdaIN(channels, style), AdaIN(channels, style)
        self.attention = _attention(attention)

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b c h w"]:
        out = F.leaky_relu(self.style1(self.conv1(x), style), 0.2)
        out = self.attention(self.conv2(out))
        return _joined(x, F.leaky_relu(self.style2(out, style), 0.2))


class PlainBlock(nn.Module):
    """Two convolutions with a norm beside the identity; the style is not looked at."""

    def __init__(self, channels: int, *, norm: Norm = "batch", bias: bool = False, attention: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            norm_layer(norm, channels),
            nn.LeakyReLU(0.2, True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            *([SimAM()] if attention else []),
            norm_layer(norm, channels),
            nn.LeakyReLU(0.2, True),
        )

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b c h w"]:
        return _joined(x, self.conv(x))


def style_block(kind: Style, channels: int, *, norm: Norm, attention: bool, linear: bool = True) -> nn.Module:
    """A block of the middle, as broad as the style; `linear` is of modulated ones."""
    if kind == "mod":
        return ModBlock(channels, channels, bias=has_bias(norm), attention=attention, linear=linear)
    if kind == "ada":
        return AdaBlock(channels, channels, bias=has_bias(norm), attention=attention)
    return PlainBlock(channels, norm=norm, bias=has_bias(norm), attention=attention)


def picture_head(inputs: int, outputs: int, side: int, last: nn.Module) -> nn.Sequential:
    """Reflected border, convolution with bias, and what brings it into range."""
    return nn.Sequential(nn.ReflectionPad2d(side // 2), nn.Conv2d(inputs, outputs, side), last)


def up_path(widths: Sequence[int], norm: Norm) -> nn.Sequential:
    """Doublings from the last of the widths back to the first."""
    return nn.Sequential(*(UpNormAct(a, b, norm=norm) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)))


class StyledGenerator(nn.Module):
    """Encoder, style trunk, styled middle, decoder.

    Args:
        full_size: Side of the tiles that it is built for, px, a power of two; sets how often the style trunk halves,
            to 8 px. Other sides that 2**encoder_blocks divides work too.
        width: Channels of the first layer; doubled in every encoder block.
        style_linear: Modulated convolutions see the style through linear layers.
        levels: Classes that a head predicts from the style; 0 for no head.
    """

    def __init__(
        self,
        *,
        full_size: int = 1024,
        width: int = 32,
        encoder_blocks: int = 3,
        style_blocks: int = 9,
        style: Style = "mod",
        style_linear: bool = True,
        attention: bool = True,
        norm: Norm = "batch",
        dropout: float = 0.2,
        lowres: bool = True,
        levels: int = 4,
        inputs: int = 3,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(encoder_blocks + 1)]
        middle = widths[-1]
        halvings = int(math.log2(full_size / 2**encoder_blocks)) - 3
        assert halvings >= 0, f"full_size {full_size} is too small for {encoder_blocks} encoder blocks"
        self.inconv = ConvNormAct(inputs, width, 7, padding=3, norm=norm)
        self.encoder1 = nn.Sequential(*(ConvNormAct(a, b, 3, stride=2, norm=norm) for a, b in pairwise(widths)))
        self.encoder2 = nn.Sequential(*(ConvNormAct(middle, middle, 3, stride=2, norm=norm) for _ in range(halvings)))
        self.classify_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(middle, levels)) if levels else None
        self.decoder1 = nn.ModuleList(
            style_block(style, middle, norm=norm, attention=attention, linear=style_linear) for _ in range(style_blocks)
        )
        self.lowres_outconv = picture_head(middle, outputs, 3, nn.Tanh()) if lowres else None
        self.decoder2 = up_path(widths, norm)
        self.highres_outconv = picture_head(width, outputs, 7, nn.Tanh())

    def encode(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Features at 1 / 2**encoder_blocks of the side."""
        return self.encoder1(self.inconv(x))

    def style(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """The style of encoded tiles."""
        return self.encoder2(features).mean((2, 3))

    def middle(self, features: Float[Tensor, "b c h w"], style: Float[Tensor, "b c"]) -> Float[Tensor, "b c h w"]:
        """Encoded tiles after the styled blocks."""
        for block in self.decoder1:
            features = block(features, style)
        return features

    def paint(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """The picture of what the middle gives."""
        return self.highres_outconv(self.decoder2(features))

    def outputs(self, features: Float[Tensor, "b c h w"], style: Float[Tensor, "b c"]) -> Stained:
        """All outputs of what the middle gives and its style."""
        return Stained(
            self.paint(features),
            None if self.lowres_outconv is None else self.lowres_outconv(features),
            None if self.classify_head is None else self.classify_head(style),
        )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Stained:
        encoded = self.encode(x)
        style = self.style(encoded)
        return self.outputs(self.middle(encoded, style), style)
