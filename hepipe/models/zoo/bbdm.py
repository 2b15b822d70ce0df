"""BBDM: a Brownian bridge whose chain ends in the H&E tile instead of noise, in pixel space.

Li et al., BBDM: Image-to-Image Translation with Brownian Bridge Diffusion Models, CVPR 2023.
Differs from the authors' code: a U-Net with attention for tiles of 512 px, zero-initialised ends, a cosine rate,
gradients clipped to norm 1 and an average of every step; sampling below eta 1 keeps the noise level of training. Preset
`released` restores theirs: no attention but in the middle, Gaussian weights, a rate that falls with the noisy loss of
single steps, a plain copy as the average at first, no clipping, no clamping. It also stands for their 8 tiles twice a
step: their steps are batches, ours updates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.optim import Adam, AdamW, Optimizer

from hepipe.dataset.batch import Batch
from hepipe.diffusion.bridge import (
    Course,
    EtaMode,
    Objective,
    bridge_state,
    bridge_target,
    make_bridge,
    sample_of,
    visited_times,
    walk_bridge,
)
from hepipe.models.draws import draw_normal, draw_whole, tile_generators
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.models.misfits import multiple_misfit
from hepipe.models.plateau import Plateau
from hepipe.models.ranks import mean_over_ranks
from hepipe.networks.adm import AdmUnet, adm_state, check_levels, init_as_released
from hepipe.networks.released import without_prefix
from hepipe.specs.base import Spec
from hepipe.specs.training import TrainingSpec

PAIRING = "paired"
NEEDS: dict[str, tuple[str, ...]] = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 32}, "released": {"multiple": 4}, "small": {"multiple": 16}, "tiny": {"multiple": 2}}
STREAMS: dict[str, tuple[str, int]] = {}
PUBLISHED: dict[str, dict[str, int | None]] = {
    "*": {"epochs": 500, "batch_size": 8, "steps": None},
    "released": {"epochs": 200, "batch_size": 16, "steps": 200_000},
}


class Config(Spec):
    """Hyperparameters of BBDM."""

    n_times: int = Field(1000, ge=4, description="Of the bridge.")
    course: Course = Field("linear", description="Of the H&E's share along the bridge; sin: exponential.")
    max_variance: float = Field(1.0, gt=0, description="s of the paper; the noise's variance is s / 2 at most.")
    objective: Objective = "grad"
    loss: Literal["l1", "l2"] = "l1"
    condition: Literal["concat", "nocond"] = Field(
        "concat", description="concat: the network sees the H&E too; nocond: by way of the bridge only."
    )

    steps: int = Field(200, ge=3, description="Times visited when staining.")
    spacing: Literal["linear", "cosine"] = Field("linear", description="Of these times; cosine: denser at both ends.")
    eta: float = Field(1.0, ge=0, le=1, description="Share of fresh noise in staining.")
    eta_mode: EtaMode = Field("marginal", description="reference: eta multiplies the noise alone, as released.")
    boot: bool | None = Field(
        None, description="Start from a noisy H&E. Empty: where eta is below 1 and its mode marginal."
    )
    clip: bool = Field(True, description="Clamp the predicted IHC on the way; the stain is in [-1, 1] anyway.")

    patch_px: int = Field(
        1, gt=0, description="Side of the squares that the network sees as one place; above 1 cheaper and coarser."
    )
    width: int = Field(128, gt=0, description="Channels that the multipliers multiply.")
    multipliers: tuple[float, ...] = Field(
        (1.0, 1.0, 2.0, 2.0, 4.0, 4.0), description="A level each, the first at full side."
    )
    blocks: int = Field(2, gt=0, description="Residual blocks a level.")
    attention_factors: tuple[int, ...] = Field((16, 32), description="Down-sampling factors with attention.")
    head_channels: int = Field(64, gt=0, description="Of an attention head.")
    groups: int = Field(32, gt=0, description="Of the norms.")
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["zero_ends", "normal"] = Field(
        "zero_ends", description="normal: Gaussian 0.02 in every convolution and linear layer, as released."
    )
    recompute_levels: int = Field(
        0, ge=0, description="First levels that the backward pass computes again: less memory, more time, same numbers."
    )

    optimizer: Literal["adamw", "adam"] = Field("adamw", description="Without decay both times.")
    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "plateau"] = Field(
        "cosine", description="plateau: halved when the loss of single steps does not fall, as released."
    )
    warmup: int = Field(1000, ge=0, description="Steps up to the full rate, a tenth of the run at most; for cosine.")
    lr_floor: float = Field(1e-6, ge=0, description="Lowest rate.")
    plateau_patience: int = Field(3000, gt=0, description="Steps; also those of rest after a fall.")
    clip_norm: float | None = Field(1.0, gt=0, description="Largest norm of a step's gradient.")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="Of the averaged network, which stains.")
    ema_warmup: bool = Field(True, description="Decay (1 + k) / (10 + k) at step k as long as that is less.")
    ema_every: int = Field(1, gt=0, description="Steps between two moves of the average.")
    ema_start: int = Field(0, ge=0, description="Before this step the average is a copy.")

    @model_validator(mode="after")
    def _can_work(self) -> Config:
        visited_times(self.n_times, self.steps, spacing=self.spacing)
        if self.objective == "noise" and not self.clip:
            raise ValueError("objective noise is divided by as little as 0.001, so it needs clip: true")
        check_levels(self.width, self.multipliers, self.attention_factors)
        return self


PRESETS = {
    "paper": Config(),
    "fast": Config(steps=20, eta=0.0),
    "released": Config(
        multipliers=(1, 4, 8),
        attention_factors=(),
        init="normal",
        clip=False,
        eta_mode="reference",
        optimizer="adam",
        schedule="plateau",
        lr_floor=5e-7,
        clip_norm=None,
        ema_decay=0.995,
        ema_warmup=False,
        ema_every=8,
        ema_start=15_000,
    ),
    "half": Config(width=64, multipliers=(1, 2, 2, 4, 4, 4), attention_factors=(32,)),
    "nocond": Config(condition="nocond"),
    "small": Config(
        objective="ysubx",
        loss="l2",
        steps=10,
        eta=0.0,
        patch_px=2,
        width=24,
        multipliers=(1, 1, 2, 2),
        blocks=1,
        attention_factors=(),
        head_channels=24,
        groups=8,
        lr=2e-3,
        warmup=100,
        ema_decay=0.995,
    ),
    "tiny": Config(
        n_times=40,
        steps=4,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention_factors=(2,),
        head_channels=8,
        groups=4,
    ),
}


class Bbdm(nn.Module):
    """A network that walks the bridge, and its average, which stains."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.network = AdmUnet(
            inputs=(6 if config.condition == "concat" else 3) * config.patch_px**2,
            outputs=3 * config.patch_px**2,
            width=config.width,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention_factors=config.attention_factors,
            head_channels=config.head_channels,
            groups=config.groups,
            dropout=config.dropout,
            recompute_levels=config.recompute_levels,
        )
        if config.init == "normal":
            init_as_released(self.network)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.bridge = make_bridge(config.n_times, scale=config.max_variance, course=config.course)
        self.plateau = None
        if config.schedule == "plateau":
            patience, floor = config.plateau_patience, config.lr_floor / config.lr
            self.plateau = Plateau(factor=0.5, patience=patience, cooldown=patience, floor=floor)

    def train(self, mode: bool = True) -> Any:
        """The average stays as it stains."""
        super().train(mode)
        self.average.eval()
        return self

    def players(self) -> Mapping[str, nn.Module]:
        return {"network": self.network}

    def optimizer(self, player: str) -> Optimizer:
        kind = AdamW if self.config.optimizer == "adamw" else Adam
        return kind(self.network.parameters(), lr=self.config.lr, betas=self.config.betas, weight_decay=0.0)

    def rate(self, player: str, at: Progress) -> float:
        if self.plateau is not None:
            return self.plateau.factor
        warmup = min(self.config.warmup, at.n_steps // 10)
        if at.step < warmup:
            return (at.step + 1) / warmup
        floor = self.config.lr_floor / self.config.lr
        return floor + (1 - floor) * (1 + math.cos(math.pi * (at.step - warmup) / (at.n_steps - warmup))) / 2

    def averages(self) -> Mapping[str, Average]:
        return {"average": Average("network", of=self.network, into=self.average, decay=self.decay)}

    def decay(self, at: Progress) -> float:
        """How much of the average stays at a step: 1 between two moves, 0 where it is a copy."""
        done = at.step + 1
        if done % self.config.ema_every:
            return 1.0
        if done < self.config.ema_start:
            return 0.0
        warm = (1 + at.step) / (10 + at.step) if self.config.ema_warmup else 1.0
        return min(self.config.ema_decay, warm)

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        times = tile_generators(batch.tile_ids, at, use="time")
        t = draw_whole(times, below=self.config.n_times, device=batch.he.device)
        noise = draw_normal(tile_generators(batch.tile_ids, at, use="noise"), like=batch.he)

        loss = self.loss(batch.he, batch.ihc, t, noise)
        yield Turn("network", loss, clip=self.config.clip_norm)

        if self.plateau is not None:
            self.plateau.watch(float(mean_over_ranks(loss.detach(), len(batch))), at)

    def loss(
        self, he: Float[Tensor, "b 3 h w"], ihc: Float[Tensor, "b 3 h w"], t: Int[Tensor, " b"], noise: Tensor
    ) -> Float[Tensor, ""]:
        """How far the network is from the objective, a mean over everything."""
        state = bridge_state(self.bridge.to(he.device), ihc, he, t, noise)
        wanted = bridge_target(self.config.objective, state, ihc, he, noise)
        missed = wanted - self._ask(self.network, he, state, t)
        return missed.abs().mean() if self.config.loss == "l1" else (missed**2).mean()

    def _ask(self, network: nn.Module, he: Tensor, state: Tensor, t: Tensor) -> Tensor:
        seen = torch.cat([state, he], 1) if self.config.condition == "concat" else state
        side = self.config.patch_px
        return pixel_shuffle(network(pixel_unshuffle(seen, side), t), side)

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; bbdm stains H&E as ihc only")
        config = self.config
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        marginal = config.eta < 1 and config.eta_mode == "marginal"
        walk = walk_bridge(
            lambda state, t: self._ask(self.average, tiles, state, t),
            tiles,
            bridge=self.bridge.to(tiles.device),
            times=visited_times(config.n_times, config.steps, spacing=config.spacing),
            noise=lambda like: draw_normal(generators, like=like),
            objective=config.objective,
            eta=config.eta,
            eta_mode=config.eta_mode,
            clip=config.clip,
            boot=marginal if config.boot is None else config.boot,
        )
        return sample_of(walk).clamp(-1, 1)


def from_released(state: Mapping[str, Tensor], *, network: Literal["network"], config: Config) -> dict[str, Tensor]:
    """The U-Net of the authors' pixel-space checkpoint under our names, for `network` and for `average`.

    Args:
        state: `model` or, better for staining, `ema` of their file; the bridge's tables in it are left out.
        network: The only one.
        config: Of the same settings; preset `released` for their template.

    Raises:
        WeightsError: Lists missing, unexpected and differently shaped tensors.
    """
    with torch.device("meta"):
        expected = Bbdm(config).network
    tensors = {name: tensor for name, tensor in state.items() if name.removeprefix("module.") not in _TABLES}
    return adm_state(without_prefix(tensors, "module.", "denoise_fn."), expected, source="bbdm network")


_TABLES = {"m_t", "m_tminus", "variance_t", "variance_tminus", "variance_t_tminus", "posterior_variance_t"}


def multiple(config: Config) -> int:
    """What divides the sides that the network takes, px."""
    return int(config.patch_px * 2 ** (len(config.multipliers) - 1))


def misfit(config: Config, training: TrainingSpec) -> str:
    """Why the network cannot halve the crops of a protocol as often as its options say; empty when it can."""
    of = f"{len(config.multipliers)} multipliers and options.patch_px: {config.patch_px}"
    return multiple_misfit(training.crop_px, multiple(config), of=of)


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh BBDM; mypy checks here that it keeps the contract."""
    return Bbdm(config)
