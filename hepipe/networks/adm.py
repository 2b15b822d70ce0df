"""The U-Net of all diffusion models here (ADM; Dhariwal & Nichol, NeurIPS 2021), for any side its levels can halve.

Differs from the authors' code: attention is asked for by down-sampling factor, never by resolution, so no side is built
in; it is fused and its channels are ordered [q|k|v][head][d]; the last convolution runs in float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hepipe.networks.released import check_tensors

Resample = Literal["none", "down", "up"]


def embed_times(times: Float[Tensor, " b"], size: int) -> Float[Tensor, "b {size}"]:
    """Cosines, then sines, of the times at frequencies from 1 to almost 1/10000; an odd last place is 0."""
    half = size // 2
    places = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = times.float()[:, None] * torch.exp(-math.log(10_000.0) * places / half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], 1), (0, size % 2))


class GroupNorm(nn.GroupNorm):
    """Group norm evaluated in float32, whatever comes in; what goes out has the input's type.

    Args:
        groups: At most; fewer where they do not divide the channels.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(math.gcd(groups, channels), channels)

    def forward(self, input: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        return super().forward(input.float()).to(input.dtype)


class Change(nn.Module):
    """Halves the sides by a strided convolution, or doubles them and convolves."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(_resampled(x, "up") if self.up else x)


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip, told the time between them.

    Args:
        embedded: Channels of the time embedding.
        scale_shift: The time scales and shifts the second norm's output; else it is added before that norm.
        resample: Of the sides, in both paths, after the first norm.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        embedded: int,
        groups: int,
        scale_shift: bool,
        dropout: float,
        resample: Resample = "none",
    ) -> None:
        super().__init__()
        self.scale_shift, self.dropout, self.resample = scale_shift, dropout, resample
        self.norm1 = GroupNorm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(embedded, 2 * outputs if scale_shift else outputs)
        self.norm2 = GroupNorm(outputs, groups)
        self.conv2 = _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "b i h w"], time: Float[Tensor, "b e"]) -> Float[Tensor, "b o h2 w2"]:
        y = self.conv1(_resampled(F.silu(self.norm1(x)), self.resample))
        told = self.time(F.silu(time))[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            y = self.norm2(y) * (1 + scale) + shift
        else:
            y = self.norm2(y + told)
        y = self.conv2(F.dropout(F.silu(y), self.dropout, self.training))
        return self.skip(_resampled(x, self.resample)) + y


class Attention(nn.Module):
    """Every place looks at all others; added to the input."""

    def __init__(self, channels: int, *, heads: int, groups: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} heads do not divide {channels} channels")
        self.heads = heads
        self.norm = GroupNorm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = _zeroed(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        places = self.norm(x).flatten(2).mT
        q, k, v = self.qkv(places).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Written out, the score matrices of a 512 px tile at factor 4 are 8.6 GB.
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(seen.transpose(1, 2).flatten(2)).mT.reshape(x.shape)


class Stage(nn.ModuleList):
    """Modules in a row; residual blocks are told the time."""

    def forward(self, x: Float[Tensor, "b i h w"], time: Float[Tensor, "b e"]) -> Float[Tensor, "b o h2 w2"]:
        for module in self:
            x = module(x, time) if isinstance(module, ResidualBlock) else module(x)
        return x


class AdmUnet(nn.Module):
    """Picture and time to picture; sides must be multiples of 2^(levels - 1).

    Args:
        inputs: Channels of the noisy picture and of its condition, stacked.
        outputs: Channels.
        width: Channels that the multipliers multiply.
        multipliers: A level each, the first at full side; the product with `width` must be whole.
        blocks: Residual blocks a level on the way down; one more on the way up.
        attention_factors: Down-sampling factors (1, 2, 4, …) with attention; the middle always has it.
        head_channels: Channels of an attention head; None: `heads` heads everywhere.
        heads: Used without `head_channels`.
        scale_shift: See `ResidualBlock`.
        residual_resampling: Sides change in a residual block; else in a convolution.
        groups: Of the norms, where they divide the channels.
        n_classes: For a class embedding; None for none.
        time_scale: Factor on the times.
        recompute_levels: The first levels, whose features are largest, are computed again in the backward pass.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        width: int,
        multipliers: Sequence[int | float],
        blocks: int = 2,
        attention_factors: Sequence[int] = (),
        head_channels: int | None = 64,
        heads: int = 1,
        scale_shift: bool = True,
        residual_resampling: bool = True,
        dropout: float = 0.0,
        groups: int = 32,
        n_classes: int | None = None,
        time_scale: float = 1.0,
        recompute_levels: int = 0,
    ) -> None:
        super().__init__()
        check_levels(width, multipliers, attention_factors)
        widths = [int(width * multiplier) for multiplier in multipliers]
        embedded, deepest = 4 * width, len(widths) - 1
        self.width, self.time_scale, self.recompute_levels = width, time_scale, recompute_levels
        self.time = nn.Sequential(nn.Linear(width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.label = None if n_classes is None else nn.Embedding(n_classes, embedded)

        def residual(i: int, o: int, resample: Resample = "none") -> ResidualBlock:
            return ResidualBlock(
                i, o, embedded=embedded, groups=groups, scale_shift=scale_shift, dropout=dropout, resample=resample
            )

        def attention(channels: int) -> Attention:
            own = heads if head_channels is None else max(1, channels // head_channels)
            return Attention(channels, heads=own, groups=groups)

        def looking(channels: int, level: int) -> list[nn.Module]:
            return [attention(channels)] if 2**level in attention_factors else []

        def change(channels: int, resample: Resample) -> nn.Module:
            if residual_resampling:
                return residual(channels, channels, resample)
            return Change(channels, up=resample == "up")

        down = [Stage([nn.Conv2d(inputs, widths[0], 3, padding=1)])]
        kept = [(widths[0], 0)]
        for level, (i, o) in enumerate(pairwise([widths[0], *widths])):
            for block in range(blocks):
                down.append(Stage([residual(i if block == 0 else o, o), *looking(o, level)]))
                kept.append((o, level))
            if level < deepest:
                down.append(Stage([change(o, "down")]))
                kept.append((o, level))
        self.down = nn.ModuleList(down)
        self.down_levels = tuple(level for _, level in kept)

        self.middle = Stage([residual(widths[-1], widths[-1]), attention(widths[-1]), residual(widths[-1], widths[-1])])

        up, up_levels, channels = [], [], widths[-1]
        for level, o in reversed(list(enumerate(widths))):
            for block in range(blocks + 1):
                doubled = [change(o, "up")] if block == blocks and level > 0 else []
                up.append(Stage([residual(channels + kept.pop()[0], o), *looking(o, level), *doubled]))
                up_levels.append(level)
                channels = o
        self.up, self.up_levels = nn.ModuleList(up), tuple(up_levels)

        self.head = nn.Sequential(
            GroupNorm(channels, groups), nn.SiLU(), _zeroed(nn.Conv2d(channels, outputs, 3, padding=1))
        )

    def forward(
        self, x: Float[Tensor, "b i h w"], times: Tensor, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b o h w"]:
        """Float32, also under autocast.

        Args:
            x: The noisy picture, and the condition behind it.
            times: (b), whole or not, on the scale of the full schedule.
            labels: Classes, for a network that has them.
        """
        time = self.time(embed_times(times * self.time_scale, self.width))
        if self.label is not None:
            time = time + self.label(labels)
        skips = []
        for stage, level in zip(self.down, self.down_levels, strict=True):
            x = self._run(stage, level, x, time)
            skips.append(x)
        x = self.middle(x, time)
        for stage, level in zip(self.up, self.up_levels, strict=True):
            x = self._run(stage, level, torch.cat([x, skips.pop()], 1), time)
        # The output steers a sampler whose terms differ by less than bfloat16 can tell.
        exact = torch.autocast(x.device.type, enabled=False) if x.device.type != "meta" else nullcontext()
        with exact:
            return self.head(x.float())

    def _run(self, stage: nn.Module, level: int, x: Tensor, time: Tensor) -> Tensor:
        if level < self.recompute_levels and torch.is_grad_enabled():
            output: Tensor = checkpoint(stage, x, time, use_reentrant=False)
            return output
        return stage(x, time)


def check_levels(width: int, multipliers: Sequence[int | float], attention_factors: Sequence[int]) -> None:
    """Whether a network can have these levels.

    Raises:
        ValueError: Broken channels, or attention at a factor without a level.
    """
    if not multipliers or any(width * multiplier < 1 or width * multiplier % 1 for multiplier in multipliers):
        raise ValueError(f"multipliers {tuple(multipliers)} do not give whole channels at width {width}")
    factors = {2**level for level in range(len(multipliers))}
    if not factors >= {*attention_factors}:
        raise ValueError(f"attention_factors {tuple(attention_factors)}: the levels have {sorted(factors)}")


@torch.no_grad()
def init_as_released(network: AdmUnet, *, std: float = 0.02) -> None:
    """Normal weights in every convolution and linear layer, as BBDM's code draws them after the network is built.

    It thereby undoes the zeros at the end of residual blocks and network; its attention has one-dimensional
    convolutions, which that rule does not reach, nor does it reach biases.
    """
    attended = {
        id(layer) for module in network.modules() if isinstance(module, Attention) for layer in module.children()
    }
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and id(module) not in attended:
            nn.init.normal_(module.weight, 0.0, std)


def adm_state(
    state: Mapping[str, Tensor],
    network: AdmUnet,
    *,
    qkv_order: Literal["head_first", "qkv_first"] = "head_first",
    source: str = "ADM U-Net",
) -> dict[str, Tensor]:
    """Tensors of guided-diffusion's or BBDM's U-Net under our names, for the state dict of `network`.

    Args:
        state: Theirs, without a wrapper's prefix.
        network: Ours, of the same settings; may lie on the meta device.
        qkv_order: Theirs, of attention's channels: [head][q|k|v][d], as in BBDM and by default in guided-diffusion, or
            [q|k|v][head][d], as ours, in its new order and in the consistency models.
        source: For messages.

    Raises:
        WeightsError: Lists missing, unexpected and differently shaped tensors.
    """
    heads = {name: module.heads for name, module in network.named_modules() if isinstance(module, Attention)}
    ours = {}
    for released, tensor in state.items():
        name = adm_name(released)
        owner, _, leaf = name.rpartition(".")
        place, _, layer = owner.rpartition(".")
        if place in heads and layer in ("qkv", "out"):
            tensor = tensor.squeeze(-1) if leaf == "weight" and tensor.ndim == 3 else tensor
            if layer == "qkv" and qkv_order == "head_first" and tensor.shape[0] % (3 * heads[place]) == 0:
                tensor = tensor.unflatten(0, (heads[place], 3, -1)).transpose(0, 1).flatten(0, 2)
        ours[name] = tensor
    check_tensors(ours, network.state_dict(), source=source)
    return ours


def adm_name(released: str) -> str:
    """Our name of a tensor of guided-diffusion's U-Net."""
    for pattern, name in _RENAMED:
        released = re.sub(pattern, name, released)
    return released


_RENAMED = [
    (r"^input_blocks\.", "down."),
    (r"^middle_block\.", "middle."),
    (r"^output_blocks\.", "up."),
    (r"^time_embed\.", "time."),
    (r"^label_emb\.", "label."),
    (r"^out\.", "head."),
    (r"\.in_layers\.0\.", ".norm1."),
    (r"\.in_layers\.2\.", ".conv1."),
    (r"\.emb_layers\.1\.", ".time."),
    (r"\.out_layers\.0\.", ".norm2."),
    (r"\.out_layers\.3\.", ".conv2."),
    (r"\.skip_connection\.", ".skip."),
    (r"\.proj_out\.", ".out."),
    (r"\.op\.", ".conv."),
]


def _resampled(x: Tensor, way: Resample) -> Tensor:
    """Means of 2 x 2 px, each px four times, or the same."""
    if way == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if way == "up" else x


def _zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The layer, silent at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
