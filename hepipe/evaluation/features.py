"""Metrics that need a feature network, and why one is not computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hepipe.errors import WeightsError
from hepipe.metrics.backbones import EfficientNetLite0, hash_distance, perceptual_distance
from hepipe.metrics.catalog import METRICS
from hepipe.metrics.lpips import ROLES, Lpips
from hepipe.weights.store import find, load, state

Tiles = Sequence[UInt8[np.ndarray, "h w 3"]]


@dataclass(frozen=True)
class TileFeatures:
    """What a network says of a few pairs."""

    perceptual: list[float]
    hashed: list[float]
    fake: Float[np.ndarray, "n d"]
    real: Float[np.ndarray, "n d"]


class StandIn:
    """EfficientNet-Lite0, whose weights come with a Python package: comparable within this project only."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """Load.

        Args:
            state: Of the published file.

        Raises:
            WeightsError: Other tensors than those of EfficientNet-Lite0.
        """
        self.network = EfficientNetLite0().eval()
        try:
            self.network.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(
                f"standin: not the tensors of EfficientNet-Lite0 ({str(error).splitlines()[0]})"
            ) from None

    @torch.inference_mode()
    def __call__(self, fake: Tiles, real: Tiles) -> TileFeatures:
        """Distances of each pair and pooled features of both sides, at the tiles' own size."""
        fake_taps, fake_pooled = self.network(_stacked(fake))
        real_taps, real_pooled = self.network(_stacked(real))
        return TileFeatures(
            perceptual=perceptual_distance(fake_taps, real_taps).tolist(),
            hashed=hash_distance(fake_taps, real_taps).mean(dim=1).tolist(),
            fake=fake_pooled.numpy(),
            real=real_pooled.numpy(),
        )


@dataclass(frozen=True)
class Networks:
    """The feature networks at hand.

    Attributes:
        stand_in: None when its weights are missing.
        missing: Weights role to the status of the metrics that need it, for every role without a network.
        hashes: Weights role to the SHA-256 of the file that was used.
        lpips: Metric to its network, as far as backbone and heads are there.
    """

    stand_in: StandIn | None
    missing: Mapping[str, str]
    hashes: Mapping[str, str]
    lpips: Mapping[str, Lpips] = field(default_factory=dict)

    @torch.inference_mode()
    def perceptual(self, fake: Tiles, real: Tiles) -> dict[str, list[float]]:
        """LPIPS of each pair, by metric."""
        return {name: one.of_pictures(_stacked(fake), _stacked(real)).tolist() for name, one in self.lpips.items()}


def networks(folder: Path | None = None) -> Networks:
    """What the weights folder allows. A missing file is no error; a wrong one is.

    Args:
        folder: Of the weights; None takes HEPIPE_WEIGHTS or `weights`.

    Raises:
        WeightsError: A file has the wrong hash or the wrong tensors.
    """
    missing, hashes = {}, {}
    stand_in = None
    lpips: dict[str, Lpips] = {}
    heads = {features: (backbone, role) for backbone, (features, role) in ROLES.items()}
    for role in sorted({metric.weights for metric in METRICS.values() if metric.weights is not None}):
        found = state(role, folder=folder)
        if found.state == "missing":
            missing[role] = f"not computed: weights missing ({role})"
        elif role == "standin":
            stand_in = StandIn(load(role, folder=folder))
            hashes[role] = found.sha256
        elif role in heads:
            backbone, head = heads[role]
            with_heads = state(head, folder=folder)
            if with_heads.state == "missing":
                missing[role] = f"not computed: weights missing ({head})"
                continue
            loaded = (load(one, folder=folder) for one in (role, head))
            lpips[f"lpips_{backbone}"] = Lpips(backbone, features=next(loaded), heads=next(loaded))
            hashes |= {role: found.sha256, head: with_heads.sha256}
        else:
            find(role, folder=folder)
            missing[role] = f"not computed: no network for these weights yet ({role})"
    return Networks(stand_in, missing, hashes, lpips)


def _stacked(tiles: Tiles) -> UInt8[Tensor, "b 3 h w"]:
    return torch.from_numpy(np.stack([tile.transpose(2, 0, 1) for tile in tiles]))
