"""ResNet generator of the pix2pix lineage (Johnson et al., ECCV 2016; anti-aliased in Park et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import BlurDown, BlurUp, Norm, conv_layer, has_bias, norm_layer


class ResidualBlock(nn.Module):
    """Two reflected 3x3 convolutions beside the identity; nothing after the sum."""

    def __init__(self, channels: int, *, norm: Norm, dropout: float, spectral: bool = False) -> None:
        super().__init__()

        def convolved() -> list[nn.Module]:
            convolution = conv_layer(channels, channels, 3, bias=has_bias(norm), spectral=spectral)
            return [nn.ReflectionPad2d(1), convolution, norm_layer(norm, channels)]

        layers = [*convolved(), nn.ReLU(True)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        self.conv_block = nn.Sequential(*layers, *convolved())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """Picture to picture in [-1, 1]; sides must be multiples of 4.

    The layers are numbered flat as `model.<i>`, as in the authors' checkpoints.

    Attributes:
        entries: Methods that are called beside the forward pass, for those who compile a network.

    Args:
        width: Channels of the first layer.
        n_blocks: Residual blocks at a quarter of the side.
        dropout: Share of features dropped in every residual block.
        antialias: Blur before halving and while doubling, in place of strided convolutions.
        antialias_up: Blur while doubling; None: as `antialias`.
        spectral: Spectral norm on every convolution; the plain form has transposed ones, which have none.
    """

    entries = ("features",)

    def __init__(
        self,
        *,
        width: int = 64,
        n_blocks: int = 9,
        norm: Norm = "batch",
        dropout: float = 0.0,
        antialias: bool = False,
        antialias_up: bool | None = None,
        spectral: bool = False,
        inputs: int = 3,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        antialias_up = antialias if antialias_up is None else antialias_up
        assert antialias_up or not spectral, "spectral norm is for the anti-aliased form"
        bias = has_bias(norm)

        def settled(convolution: nn.Module, channels: int) -> list[nn.Module]:
            return [convolution, norm_layer(norm, channels), nn.ReLU(True)]

        layers = [nn.ReflectionPad2d(3), *settled(conv_layer(inputs, width, 7, bias=bias, spectral=spectral), width)]
        for channels in (width, 2 * width):
            stride = 1 if antialias else 2
            down = conv_layer(channels, 2 * channels, 3, stride=stride, padding=1, bias=bias, spectral=spectral)
            layers += settled(down, 2 * channels)
            if antialias:
                layers.append(BlurDown())
        layers += [ResidualBlock(4 * width, norm=norm, dropout=dropout, spectral=spectral) for _ in range(n_blocks)]
        for channels in (4 * width, 2 * width):
            up: nn.Module
            if antialias_up:
                layers.append(BlurUp())
                up = conv_layer(channels, channels // 2, 3, padding=1, bias=bias, spectral=spectral)
            else:
                up = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
            layers += settled(up, channels // 2)
        layers += [nn.ReflectionPad2d(3), conv_layer(width, outputs, 7, spectral=spectral), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        return self.model(x)

    def features(self, x: Float[Tensor, "b i h w"], taps: Sequence[int]) -> list[Tensor]:
        """The output of each layer named by its flat number, rising; layers beyond the last one are not computed."""
        found = []
        for number, layer in enumerate(self.model):
            x = layer(x)
            if number in taps:
                found.append(x)
            if number == taps[-1]:
                break
        return found
