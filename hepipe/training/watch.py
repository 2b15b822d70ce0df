"""Validation tiles: the metric that chooses a checkpoint, and pictures to look at."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hepipe.dataset.tiles import SplitTiles, View, rgb_from_tensor, tensor_from_rgb, tile_seed
from hepipe.errors import ConfigError, HepipeError
from hepipe.metrics import pixel, ssim
from hepipe.metrics.backbones import EfficientNetLite0, perceptual_distance
from hepipe.metrics.lpips import MIN_SIDE as LPIPS_MIN_SIDE
from hepipe.metrics.lpips import ROLES, Backbone, Lpips
from hepipe.models.method import Method
from hepipe.specs.training import SelectSpec
from hepipe.weights.store import load, state, weights_folder

Tile = np.ndarray


@dataclass(frozen=True)
class Choice:
    """A metric that can choose a checkpoint.

    Attributes:
        measure: Of virtual, H&E and real tile.
        higher_is_better: Its direction.
        min_side_px: It is undefined on smaller crops.
        weights: Role to the SHA-256 of each weights file that it uses.
    """

    measure: Callable[[Tile, Tile, Tile], float]
    higher_is_better: bool
    min_side_px: int = 1
    weights: Mapping[str, str] = field(default_factory=dict)


CHOICES = {
    "mae": Choice(lambda virtual, he, real: pixel.mae(virtual, real), higher_is_better=False),
    "psnr": Choice(lambda virtual, he, real: pixel.psnr(virtual, real), higher_is_better=True),
    "ssim": Choice(lambda virtual, he, real: ssim.ssim(virtual, real), higher_is_better=True, min_side_px=11),
    "msssim": Choice(
        lambda virtual, he, real: ssim.msssim(virtual, real),
        higher_is_better=True,
        min_side_px=ssim.MSSSIM_MIN_SIDE,
    ),
    "css_ihc": Choice(lambda virtual, he, real: ssim.css(virtual, real), higher_is_better=True, min_side_px=11),
    "css_he": Choice(lambda virtual, he, real: ssim.css(virtual, he), higher_is_better=True, min_side_px=11),
}


def find_choice(select: SelectSpec, *, crop_px: int, where: str, device: torch.device | None = None) -> Choice | None:
    """The metric that chooses the checkpoint, or None for the last one.

    Args:
        select: The protocol's rule.
        crop_px: Side of the validation crops.
        where: Path of the key that names it.
        device: Where its network runs, if it has one; None for the CPU.

    Raises:
        ConfigError: It cannot be computed here, or needs larger crops.
        WeightsError: Its network's weights are missing.
    """
    if select.metric == "last":
        return None
    if select.metric == "pd_effnetlite0":
        choice = _stand_in()
    elif select.metric in ("lpips_alex", "lpips_vgg"):
        choice = _lpips("alex" if select.metric == "lpips_alex" else "vgg", where=where, device=device)
    else:
        choice = CHOICES[select.metric]
    if crop_px < choice.min_side_px:
        raise ConfigError(
            f"{where}.select.metric: {select.metric} needs crops of {choice.min_side_px} px, crop_px is {crop_px}"
        )
    return choice


def is_better(value: float, than: float | None, *, select: SelectSpec, choice: Choice) -> bool:
    """Whether a value beats the best so far; equal ones do not, so the earliest of equals stays."""
    if than is None:
        return True
    upwards = choice.higher_is_better if select.mode is None else select.mode == "max"
    return value > than if upwards else value < than


def _stand_in() -> Choice:
    """Perceptual distance in the stand-in network; lower is better."""
    network = EfficientNetLite0().eval()
    network.load_state_dict(load("standin"))

    def measure(virtual: Tile, he: Tile, real: Tile) -> float:
        both = torch.from_numpy(np.stack([virtual, real])).permute(0, 3, 1, 2)
        with torch.no_grad():
            taps, _ = network(both)
        return float(perceptual_distance([tap[:1] for tap in taps], [tap[1:] for tap in taps])[0])

    return Choice(measure, higher_is_better=False, min_side_px=32, weights={"standin": state("standin").sha256})


def _lpips(backbone: Backbone, *, where: str, device: torch.device | None) -> Choice:
    """LPIPS of its authors; lower is better."""
    states = [state(role) for role in ROLES[backbone]]
    if missing := [found.role for found in states if found.state == "missing"]:
        files = ", ".join(f"{role.files[0]} of {role.upstream}" for role in missing)
        raise ConfigError(
            f"{where}.select.metric: lpips_{backbone} needs weights that are missing: put {files} into "
            f"{weights_folder()}; its stand-in is pd_effnetlite0; without any weights: {', '.join(CHOICES)}"
        )
    features, heads = (load(role) for role in ROLES[backbone])
    network = Lpips(backbone, features=features, heads=heads).to(device or torch.device("cpu"))

    def measure(virtual: Tile, he: Tile, real: Tile) -> float:
        both = torch.from_numpy(np.stack([virtual, real])).permute(0, 3, 1, 2).to(device or torch.device("cpu"))
        with torch.no_grad():
            return float(network.of_pictures(both[:1], both[1:])[0])

    hashes = {found.role.name: found.sha256 for found in states}
    return Choice(measure, higher_is_better=False, min_side_px=LPIPS_MIN_SIDE, weights=hashes)


class Watch:
    """The same centred crops of a split, evenly spread over it."""

    def __init__(
        self, tiles: SplitTiles, *, crop_px: int, max_tiles: int, batch_size: int, device: torch.device
    ) -> None:
        n_tiles = min(max_tiles, len(tiles))
        self.places = [len(tiles) * i // n_tiles for i in range(n_tiles)]
        self.tiles = tiles
        self.batch_size = batch_size
        self.device = device
        corner = (tiles.side_px - crop_px) // 2
        self._view = View(corner, corner, crop_px, 0, False)

    def measure(self, method: Method, choice: Choice) -> float:
        """Mean of a metric over the crops; undefined and infinite ones left out.

        Raises:
            HepipeError: No crop gives a finite value.
        """
        values = []
        for start in range(0, len(self.places), self.batch_size):
            for virtual, he, real in self._stained(method, self.places[start : start + self.batch_size]):
                values.append(choice.measure(virtual, he, real))
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            raise HepipeError(f"the selection metric is undefined on all {len(values)} validation crops")
        return float(np.mean(finite))

    def picture(self, method: Method, path: Path, *, n_tiles: int = 4) -> None:
        """Save rows of H&E, real and virtual crops."""
        chosen = [self.places[len(self.places) * i // n_tiles] for i in range(min(n_tiles, len(self.places)))]
        rows = [np.hstack([he, real, virtual]) for virtual, he, real in self._stained(method, chosen)]
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        Image.fromarray(np.vstack(rows)).save(beside, format="png")
        os.replace(beside, path)

    def _stained(self, method: Method, places: list[int]) -> list[tuple[Tile, Tile, Tile]]:
        he = [np.ascontiguousarray(self._view.of(self.tiles.rgb("he", place))) for place in places]
        real = [np.ascontiguousarray(self._view.of(self.tiles.rgb("ihc", place))) for place in places]
        seeds = torch.tensor([tile_seed(self.tiles.rows[place].tile_id) for place in places], device=self.device)
        stack = torch.stack([tensor_from_rgb(tile) for tile in he]).to(self.device)
        method.train(False)
        with torch.no_grad():
            virtual = [rgb_from_tensor(tile) for tile in method.stain(stack, seeds=seeds)]
        method.train(True)
        return list(zip(virtual, he, real, strict=True))
