"""What several networks share: norms, spectral norm, blurred resampling, first weights.

Sources: Isola et al., CVPR 2017 (norms, initialisation); Miyato et al., ICLR 2018 (spectral norm);
Zhang, ICML 2019 (blurred resampling).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["batch", "instance", "none"]


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm without affine or statistics, whose gradient is right whatever the layout of what comes back.

    For a batch of one, torch 2.13 on a CPU answers a gradient that is laid out channels last, such as indexing leaves
    it, with a wrong one.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        output: Tensor = super().forward(input)
        if output.requires_grad:
            output.register_hook(Tensor.contiguous)
        return output


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Batch norm with affine and running statistics, instance norm with neither, or nothing."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return InstanceNorm(channels) if kind == "instance" else nn.Identity()


def has_bias(norm: Norm) -> bool:
    """Whether a convolution before this norm carries a bias; batch norm has its own."""
    return norm != "batch"


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight is divided by its largest singular value.

    One power iteration a training forward. Written out, and not torch's hook, because under autocast the hook's
    products run in half precision; here `u`, `v` and the norm stay float32.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self, inputs: int, outputs: int, side: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, side, stride=stride, padding=padding, bias=bias)
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(inputs * side * side), dim=0))
        # As torch's parametrization does, so that a fresh network is near norm 1 in eval mode as well.
        for _ in range(0 if self.weight.is_meta else 15):
            self._iterate()

    @torch.no_grad()
    def _iterate(self) -> None:
        matrix = self.weight.flatten(1)
        self.v = F.normalize(matrix.t() @ self.u, dim=0, eps=1e-12)
        self.u = F.normalize(matrix @ self.v, dim=0, eps=1e-12)

    def normalized_weight(self) -> Float[Tensor, "o i k k"]:
        """The weight that the convolution uses."""
        return self.weight / (self.u @ (self.weight.flatten(1) @ self.v))

    def forward(self, input: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        # Shapes alone, on the meta device, have no autocast.
        with nullcontext() if input.is_meta else torch.autocast(input.device.type, enabled=False):
            if self.training:
                self._iterate()
            weight = self.normalized_weight()
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


def conv_layer(
    inputs: int,
    outputs: int,
    side: int,
    *,
    stride: int = 1,
    padding: int = 0,
    bias: bool = True,
    spectral: bool = False,
) -> nn.Conv2d:
    """A square convolution, with spectral norm if asked for."""
    if spectral:
        return SpectralConv2d(inputs, outputs, side, stride=stride, padding=padding, bias=bias)
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=padding, bias=bias)


class BlurDown(nn.Module):
    """Halves the sides after a 3x3 binomial blur, reflected at the border; side n becomes ceil(n / 2).

    Args:
        gain: Factor on the kernel, which sums to 1 without it.
    """

    kernel: Tensor

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", gain * torch.outer(line, line) / 16, persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        kernel = self.kernel.expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel.to(x.dtype), stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """Doubles the sides exactly: borders repeated, transposed 4x4 binomial kernel, cut back to 2n."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(line, line) * 4 / 64, persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        kernel = self.kernel.expand(x.shape[1], 1, 4, 4).to(x.dtype)
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, kernel, stride=2, padding=2, groups=x.shape[1])[:, :, 1:-1, 1:-1]


@torch.no_grad()
def init_normal(network: nn.Module, *, std: float = 0.02) -> None:
    """Weights from normal(0, std), biases 0, batch norm around 1 (pix2pix); spectral norm sees the raw weight."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, std)
        _init_rest(module, std)


@torch.no_grad()
def init_xavier(network: nn.Module, *, gain: float = 0.02) -> None:
    """Weights from Xavier's normal distribution with this gain, the rest as `init_normal` (CUT, ASP)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_normal_(module.weight, gain)
        _init_rest(module, 0.02)


def _init_rest(module: nn.Module, std: float) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, std)
        nn.init.zeros_(module.bias)
