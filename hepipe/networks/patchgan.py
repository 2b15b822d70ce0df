"""PatchGAN discriminators (Isola et al., CVPR 2017), plain or anti-aliased (Park et al., ECCV 2020)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from hepipe.networks.blocks import BlurDown, Norm, conv_layer, has_bias, norm_layer


class PatchDiscriminator(nn.Module):
    """A map of logits, one for each overlapping patch; numbered flat as `model.<i>`.

    Args:
        inputs: Channels of what is judged: 3, or 6 with its source beside it.
        width: Channels of the first layer; doubled per layer up to eight times.
        n_layers: Convolutions before the last two; 3 sees 70 px, 4 sees 142 px.
        antialias: Blur and halve after the activation, in place of strides.
        spectral: Spectral norm on every convolution.
        blur_gain: Factor on the blur kernel; the released CSSP2P code has 1/16.
    """

    def __init__(
        self,
        *,
        inputs: int = 3,
        width: int = 64,
        n_layers: int = 3,
        norm: Norm = "batch",
        antialias: bool = False,
        spectral: bool = False,
        blur_gain: float = 1.0,
    ) -> None:
        super().__init__()
        bias = has_bias(norm)
        stride = 1 if antialias else 2
        blur: list[nn.Module] = [BlurDown(blur_gain)] if antialias else []

        layers = [conv_layer(inputs, width, 4, stride=stride, padding=1, spectral=spectral), nn.LeakyReLU(0.2, True)]
        layers += blur
        channels = width
        for n in range(1, n_layers + 1):
            outputs = width * min(2**n, 8)
            strided = n < n_layers
            layers += [
                conv_layer(
                    channels, outputs, 4, stride=stride if strided else 1, padding=1, bias=bias, spectral=spectral
                ),
                norm_layer(norm, outputs),
                nn.LeakyReLU(0.2, True),
            ]
            if strided:
                layers += blur
            channels = outputs
        layers.append(conv_layer(channels, 1, 4, padding=1, spectral=spectral))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b 1 h2 w2"]:
        return self.model(x)


class PixelDiscriminator(nn.Module):
    """A logit for each pixel on its own: three 1x1 convolutions, numbered flat as `net.<i>`."""

    def __init__(self, *, inputs: int = 3, width: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        bias = has_bias(norm)
        self.net = nn.Sequential(
            nn.Conv2d(inputs, width, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, 2 * width, 1, bias=bias),
            norm_layer(norm, 2 * width),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.net(x)
