"""ALIKED: keypoints and descriptors from deformable samples of a small network; the step `search` matches them.

Zhao et al., ALIKED: A lighter keypoint and descriptor extraction network via deformable transformation, IEEE
Transactions on Instrumentation and Measurement 2023. The module names are those of the authors' state dictionaries
(aliked-n16rot, trained with rotations), which load strictly; the deformable convolution is written with `grid_sample`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional

from hepipe.weights.store import load

ROLE = "aliked"
CHANNELS = (16, 32, 64, 128)
"""Of the four blocks; the last is also the descriptor's length."""
SAMPLES = 16
"""Places that one descriptor looks at."""
STRIDE = 32
"""Px of the picture per px of the coarsest map: sides are padded to multiples."""
PEAK_RADIUS = 2
"""A keypoint's score is the highest within this many px."""
MOST_KEYPOINTS = 2000


class _Deformable(nn.Module):
    """A 3 x 3 convolution whose taps are moved, each px its own way."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(inputs, 18, 3, padding=1)
        self.regular_conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        reach = max(height, width) / 4
        offset = self.offset_conv(x).clamp(-reach, reach)[0]
        rows = torch.arange(height, device=x.device)[:, None]
        columns = torch.arange(width, device=x.device)[None]
        total = x.new_zeros(())
        for tap in range(9):
            y = rows + tap // 3 - 1 + offset[2 * tap]
            across = columns + tap % 3 - 1 + offset[2 * tap + 1]
            seen = _sampled(x, torch.stack([across, y], dim=-1))
            total = total + functional.conv2d(seen, self.regular_conv.weight[:, :, tap // 3, tap % 3, None, None])
        return total


class _Block(nn.Module):
    """Two convolutions with batch norm; with `shortcut` the input is added through a 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int, *, shortcut: bool = True, deformable: bool = False) -> None:
        super().__init__()

        def convolution(n: int) -> nn.Module:
            return _Deformable(n, outputs) if deformable else nn.Conv2d(n, outputs, 3, padding=1, bias=False)

        self.conv1, self.bn1 = convolution(inputs), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs), nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(functional.selu(self.bn1(self.conv1(x)))))
        return functional.selu(inner if self.downsample is None else inner + self.downsample(x))


class _Descriptors(nn.Module):
    """A descriptor per keypoint from samples whose places its neighbourhood chooses."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.agg_weights = nn.Parameter(torch.rand(SAMPLES, channels, channels))
        self.offset_conv = nn.Sequential(
            nn.Conv2d(channels, 2 * SAMPLES, 3), nn.SELU(), nn.Conv2d(2 * SAMPLES, 2 * SAMPLES, 1)
        )
        self.sf_conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Tensor, x: Tensor, y: Tensor) -> Tensor:
        height, width = features.shape[2:]
        reach = max(height, width) / 4
        padded = functional.pad(features, (1, 1, 1, 1))[0]
        patches = torch.stack([padded[:, y + dy, x + dx] for dy in range(3) for dx in range(3)], dim=-1)
        patches = patches.permute(1, 0, 2).reshape(len(x), -1, 3, 3)
        offset = self.offset_conv(patches).clamp(-reach, reach).reshape(len(x), 2, SAMPLES).transpose(1, 2)
        places = torch.stack([x, y], dim=-1)[:, None] + offset
        seen = _sampled(features, places)
        seen = functional.selu(self.sf_conv(seen))[0]
        return functional.normalize(torch.einsum("cnp,pcd->nd", seen, self.agg_weights), dim=1)


class Aliked(nn.Module):
    """Dense features and keypoint scores at full resolution from four scales, and descriptors at the peaks."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, last = CHANNELS
        self.block1 = _Block(3, first, shortcut=False)
        self.block2 = _Block(first, second)
        self.block3 = _Block(second, third, deformable=True)
        self.block4 = _Block(third, last, deformable=True)
        for number, channels in enumerate(CHANNELS, start=1):
            setattr(self, f"conv{number}", nn.Conv2d(channels, last // 4, 1, bias=False))
        self.score_head = nn.Sequential(
            nn.Conv2d(last, 8, 1, bias=False),
            nn.SELU(),
            nn.Conv2d(8, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 1, 3, padding=1, bias=False),
        )
        self.desc_head = _Descriptors(last)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Places (n, 2) in px centres as whole numbers, and descriptors (n, 128), of one picture (1, 3, h, w)."""
        height, width = picture.shape[2:]
        features, scores = self._maps(functional.pad(picture, (0, -width % STRIDE, 0, -height % STRIDE)))
        features, scores = features[..., :height, :width], scores[0, 0, :height, :width]
        y, x = _peaks(scores)
        return torch.stack([x, y], dim=1), self.desc_head(features, x, y)

    def _maps(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        maps = [self.block1(picture)]
        for block, shrink in ((self.block2, 2), (self.block3, 4), (self.block4, 4)):
            maps.append(block(functional.avg_pool2d(maps[-1], shrink)))
        size = picture.shape[2:]
        whole = [
            functional.interpolate(
                functional.selu(getattr(self, f"conv{number}")(one)), size, mode="bilinear", align_corners=True
            )
            for number, one in enumerate(maps, start=1)
        ]
        joined = torch.cat(whole, dim=1)
        return functional.normalize(joined, dim=1), torch.sigmoid(self.score_head(joined))


def load_aliked() -> Aliked:
    """The network with the weights of the role `aliked`.

    Raises:
        WeightsError: They are missing or others.
    """
    network = Aliked()
    network.load_state_dict(load(ROLE), strict=True)
    return network.eval()


def describe(
    network: Aliked, density: Float32[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n d"]]:
    """Places (continuous px) and descriptors of the keypoints of a density picture, dark tissue on white."""
    grey = torch.from_numpy(np.ascontiguousarray(1 - np.clip(density, 0, 1), dtype=np.float32))
    with torch.inference_mode():
        places, descriptors = network(grey.expand(1, 3, *grey.shape))
    return places.numpy().astype(float) + 0.5, descriptors.numpy()


def _sampled(maps: Tensor, places: Tensor) -> Tensor:
    """Maps (1, c, h, w) at places (a, b, 2) in px centres as whole numbers, bilinear, 0 beyond: (1, c, a, b)."""
    size = maps.new_tensor([maps.shape[3] - 1, maps.shape[2] - 1])
    grid = (2 * places / size - 1)[None].to(maps.dtype)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _peaks(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the highest scores among their neighbours, the edge left out."""
    side = 2 * PEAK_RADIUS + 1
    highest = functional.max_pool2d(scores[None, None], side, stride=1, padding=PEAK_RADIUS)[0, 0]
    is_peak = scores == highest
    inner = torch.zeros_like(is_peak)
    inner[PEAK_RADIUS:-PEAK_RADIUS, PEAK_RADIUS:-PEAK_RADIUS] = True
    y, x = torch.nonzero(is_peak & inner, as_tuple=True)
    order = torch.argsort(scores[y, x], descending=True, stable=True)[:MOST_KEYPOINTS]
    return y[order], x[order]
