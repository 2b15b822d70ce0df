"""ResNet generator of the pix2pix lineage (Johnson et al., ECCV 2016; anti-aliased in Park et al., ECCV 2020)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import BlurDown, BlurUp, Norm, has_bias, norm_layer


class ResidualBlock(nn.Module):
    """Two reflected 3x3 convolutions beside the identity; nothing after the sum."""

    def __init__(self, channels: int, *, norm: Norm, dropout: float) -> None:
        super().__init__()
        bias = has_bias(norm)
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_layer(norm, channels)]
        layers.append(nn.ReLU(True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_layer(norm, channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """Picture to picture in [-1, 1]; sides must be multiples of 4.

    The layers are numbered flat as `model.<i>`, as in the authors' checkpoints.

    Args:
        width: Channels of the first layer.
        n_blocks: Residual blocks at a quarter of the side.
        dropout: Share of features dropped in every residual block.
        antialias: Blur before halving and while doubling, in place of strided convolutions.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        n_blocks: int = 9,
        norm: Norm = "batch",
        dropout: float = 0.0,
        antialias: bool = False,
        inputs: int = 3,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        bias = has_bias(norm)

        def settled(convolution: nn.Module, channels: int) -> list[nn.Module]:
            return [convolution, norm_layer(norm, channels), nn.ReLU(True)]

        layers = [nn.ReflectionPad2d(3), *settled(nn.Conv2d(inputs, width, 7, bias=bias), width)]
        for channels in (width, 2 * width):
            stride = 1 if antialias else 2
            down = nn.Conv2d(channels, 2 * channels, 3, stride=stride, padding=1, bias=bias)
            layers += settled(down, 2 * channels)
            if antialias:
                layers.append(BlurDown())
        layers += [ResidualBlock(4 * width, norm=norm, dropout=dropout) for _ in range(n_blocks)]
        for channels in (4 * width, 2 * width):
            up: nn.Module
            if antialias:
                layers.append(BlurUp())
                up = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=bias)
            else:
                up = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
            layers += settled(up, channels // 2)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        return self.model(x)
