"""Four drawn pairs that a model must be able to learn by heart, and how close it came; as a program, pictures of it.

    python tests/unit/training/overfit_case.py --out GRID.png [--preset small] [--steps 300] [MODEL ...]

A row a pair: H&E, real IHC, then what each model makes of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hepipe.dataset.batch import Batch
from hepipe.dataset.tiles import rgb_from_tensor
from hepipe.models.catalog import catalog
from hepipe.models.method import Method, Progress
from hepipe.models.resolved import zoo_module
from hepipe.training.loop import iterate, make_players, step_seed

CPU = torch.device("cpu")
N_PAIRS, SIDE = 4, 64
N_EPOCHS = 20
"""That the run counts as, for rates that fall by epoch: those of a small preset on some hundred tiles."""

# Of H&E and IHC in turn: glass and stroma, epithelium, nuclei; and the rings around large nuclei, which the H&E does
# not show, so that no map of colours finds them.
STROMA = (232, 190, 214), (226, 226, 232)
EPITHELIUM = (214, 150, 190), (214, 210, 222)
NUCLEUS = (104, 62, 140), (120, 130, 176)
RING = (136, 84, 44)


def draw_pairs(n: int = N_PAIRS, side: int = SIDE, seed: int = 3) -> Batch:
    """Pairs of the same tissue: large nuclei, and only they, have a brown membrane in the IHC."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    he, ihc = np.empty((n, side, side, 3)), np.empty((n, side, side, 3))
    for i in range(n):
        angle, offset = random.uniform(0, 2 * np.pi), random.uniform(-0.2, 0.2) * side
        wave = 0.06 * side * np.sin(2 * np.pi * (x + y) / side * random.uniform(1, 2))
        inside = np.cos(angle) * (x - side / 2) + np.sin(angle) * (y - side / 2) + wave > offset
        for pictures, kind in ((he, 0), (ihc, 1)):
            pictures[i] = np.where(inside[..., None], EPITHELIUM[kind], STROMA[kind])
        placed: list[tuple[float, float, float]] = []
        for _ in range(400):
            radius = float(random.choice([0.035, 0.07])) * side
            cy, cx = random.uniform(radius, side - radius, 2)
            if any(np.hypot(cy - py, cx - px) < 1.5 * (radius + pr) for py, px, pr in placed) or len(placed) > 14:
                continue
            placed.append((cy, cx, radius))
            distance = np.hypot(y - cy, x - cx)
            he[i][distance < radius], ihc[i][distance < radius] = NUCLEUS
            if radius > 0.05 * side:
                ihc[i][(distance >= radius) & (distance < 1.35 * radius)] = RING
    he += random.normal(0, 6, he.shape)

    def tensor(pictures: np.ndarray) -> Tensor:
        return torch.from_numpy(pictures.clip(0, 255) / 127.5 - 1).float().permute(0, 3, 1, 2).contiguous()

    extras = {"dab_mask": torch.from_numpy((ihc == RING).all(3)).float()[:, None], "score": torch.arange(n) % 4}
    real = tensor(ihc)
    return Batch(tuple(f"c/{i}-0" for i in range(n)), tensor(he), real, ("HER2",) * n, {**extras, "loose_ihc": real})


@dataclass
class Learned:
    """How a model did.

    Attributes:
        virtual: What it makes of the H&E at the end.
        mae: Mean absolute difference from the IHC, 8-bit levels, before and after training.
        losses: Every player's terms at each of its steps.
        seconds: Of training.
    """

    virtual: Tensor
    mae: tuple[float, float]
    losses: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0


def mean_difference(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference in 8-bit levels."""
    return float((a - b).abs().mean()) * 127.5


def best_colour_map(batch: Batch) -> Tensor:
    """The IHC as well as any map of colours can guess it: its median for each coarse colour of the H&E."""
    levels = ((batch.he + 1) * 4).long().clamp(0, 7)
    key = (levels[:, 0] * 64 + levels[:, 1] * 8 + levels[:, 2]).flatten()
    flat = batch.ihc.permute(0, 2, 3, 1).reshape(-1, 3)
    mapped = torch.empty_like(flat)
    for value in key.unique():
        mapped[key == value] = flat[key == value].median(0).values
    return mapped.view(*batch.he.shape[:1], *batch.he.shape[2:], 3).permute(0, 3, 1, 2)


def stained(method: Method, batch: Batch) -> Tensor:
    """The H&E as the model stains it, in eval mode."""
    method.train(False)
    virtual = method.stain(batch.he, seeds=torch.arange(len(batch)))
    method.train(True)
    return virtual


def learn(model: str, batch: Batch, *, preset: str = "small", steps: int = 300, seed: int = 0) -> Learned:
    """Train a model on one batch again and again."""
    torch.manual_seed(seed)
    module = zoo_module(model)
    config = module.PRESETS[preset]
    if "full_size" in type(config).model_fields:
        config = config.model_copy(update={"full_size": batch.he.shape[-1]})
    method: Method = module.build(config, {})
    assert isinstance(method, nn.Module)
    entry = catalog()[model]
    needed = {need: batch[need] for need in entry.needs_of(preset)}
    own = Batch(batch.tile_ids, batch.he, batch.ihc, batch.markers, needed)
    players = make_players(method, precision="fp32", device=CPU)
    before = mean_difference(stained(method, own), own.ihc)
    losses: dict[str, list[float]] = {}
    start = time.monotonic()
    for step in range(steps):
        torch.manual_seed(step_seed(seed, step, 0))
        at = Progress(step, steps, max(steps // N_EPOCHS, 1), seed=step_seed(seed, step))
        for player, terms in iterate(method, own, at, players):
            for term, value in terms.items():
                losses.setdefault(f"{player}.{term}", []).append(float(value))
    seconds = time.monotonic() - start
    virtual = stained(method, own)
    return Learned(virtual, (before, mean_difference(virtual, own.ihc)), losses, seconds)


def grid(batch: Batch, virtual: dict[str, Tensor], *, zoom: int = 2) -> np.ndarray:
    """A row a pair: H&E, IHC, then every model's."""
    columns = [batch.he, batch.ihc, *virtual.values()]
    rows = [np.hstack([np.pad(rgb_from_tensor(c[i]), ((1, 1), (1, 1), (0, 0))) for c in columns]) for i in range(4)]
    return np.vstack(rows).repeat(zoom, 0).repeat(zoom, 1)


def main() -> None:
    """Train the models named, or all that train, and save the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch = draw_pairs()
    copied = mean_difference(batch.he, batch.ihc)
    sys.stderr.write(f"H&E as it is: mae {copied:.1f}\n")
    made = {}
    for model in options.models or trained_models():
        learned = learn(model, batch, preset=options.preset, steps=options.steps)
        made[model] = learned.virtual
        ends = {
            name: f"{np.mean(values[:10]):.3g}>{np.mean(values[-10:]):.3g}" for name, values in learned.losses.items()
        }
        before, after = learned.mae
        sys.stderr.write(f"{model}: mae {before:.1f} > {after:.1f}, {learned.seconds:.0f} s, {ends}\n")
        Image.fromarray(grid(batch, made)).save(options.out)


def trained_models() -> list[str]:
    """Every model of the zoo that takes turns."""
    return [name for name in sorted(catalog()) if make_tiny(name).players()]


def make_tiny(model: str) -> Method:
    """A model as small as it comes."""
    module = zoo_module(model)
    method: Method = module.build(module.PRESETS["tiny"], {})
    return method


if __name__ == "__main__":
    main()
