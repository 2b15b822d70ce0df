"""BCIstainer: a generator conditioned on a style that a HER2-level classifier shapes, judged at two scales.

Second place in Zhu et al., Breast Cancer Immunohistochemical Image Generation: a Benchmark Dataset and Challenge
Review, 2023. Presets `mod`, `ada`, `mod_attention` (= `paper`, the submission) and `ada_attention` are the four
released configurations; `without_levels` is for data without scores.
Differs from the authors' code: the comparator's gradients are zeroed between its steps, which preset `released` leaves
out, as it cuts the output to whole levels downwards; tiles are cropped, flipped and turned as for every model, without
resized crops and distortions; the protocol chooses the checkpoint; label smoothing is drawn tile by tile. The 150
published epochs, of which 50 warm up and train the comparator, are kept as a share of the run's own.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from hepipe.dataset.batch import Batch
from hepipe.errors import ConfigError
from hepipe.losses.adversarial import smoothed_lsgan
from hepipe.losses.levels import focal
from hepipe.losses.pixel import PIXEL, Pixel, shrunk
from hepipe.losses.similarity import ssim
from hepipe.models.draws import draw_uniform, tile_generators
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.models.recompute import Forward
from hepipe.models.schedules import warmup_cosine
from hepipe.models.staining import in_mode, mean_of_versions, whole_levels_down
from hepipe.networks.blocks import init_normal
from hepipe.networks.multiscale import Comparator, MultiScaleDiscriminator
from hepipe.networks.released import check_tensors, without_prefix
from hepipe.networks.styled import EqualizedLinear, ModulatedConv, Stained, Style, StyledGenerator
from hepipe.specs.base import Spec
from hepipe.specs.training import TrainingSpec

PAIRING = "paired"
NEEDS = {
    "*": (),
    "paper": ("score",),
    "released": ("score",),
    "mod": ("score",),
    "ada": ("score",),
    "mod_attention": ("score",),
    "ada_attention": ("score",),
    "small": ("score",),
    "tiny": ("score",),
}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 8}}
STREAMS: dict[str, tuple[str, int]] = {}
# 3,396 pairs of BCI in the challenge's division, 150 epochs of 424 whole batches of 8.
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": 150, "batch_size": 8, "steps": 63_600}}

LEVELS = 4
"""0, 1+, 2+, 3+."""


class Config(Spec):
    """Hyperparameters of BCIstainer."""

    full_size: int = Field(
        1024, ge=32, description="Side of the training crop that the networks are built for, px; a power of two."
    )
    width: int = Field(32, gt=0, description="Channels of the generator's first layer.")
    encoder_blocks: int = Field(3, ge=1, le=3)
    style_blocks: int = Field(9, gt=0)
    style: Style = Field("mod", description="Modulated convolutions, AdaIN, or blocks that see no style.")
    attention: bool = Field(True, description="SimAM in every style block.")
    norm: Literal["batch", "instance", "none"] = Field("batch", description="Of all networks.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Before both classifiers' last layer.")
    judge_width: int = Field(32, gt=0, description="Channels of each discriminator's first layer.")
    judge_layers: int = Field(3, gt=0)
    judge_scales: int = Field(2, gt=0, description="Discriminators, each at half the side of the one before.")
    levels: bool = Field(True, description="Classify the HER2 score, and train and use the comparator.")
    level_weight: float = Field(5.0, ge=0)
    class_weights: tuple[float, float, float, float] = Field((0.5, 0.2, 0.2, 0.1), description="Of 0, 1+, 2+, 3+.")
    focal_gamma: float = Field(2.0, ge=0)
    pixel: Pixel = Field("mae", description="Difference of pictures.")
    pixel_weight: float = Field(10.0, ge=0)
    lowres_weight: float = Field(1.0, ge=0, description="Of the low-resolution output in the pixel term; 0 without it.")
    ssim_weight: float = Field(1.0, ge=0)
    smoothing: float = Field(0.1, ge=0, lt=1, description="Largest distance of an adversarial target from 0 or 1.")
    comparator_width: int = Field(32, gt=0)
    comparator_max_width: int = Field(256, gt=0)
    comparator_weight: float = Field(1.0, ge=0)
    comparator_epochs: int = Field(50, gt=0, description="It trains, then it compares; a share of `epochs`.")
    accumulate_comparator_grad: bool = Field(False, description="As released: each step adds all gradients so far.")
    lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = Field(0.05, ge=0)
    comparator_lr: float = Field(1e-4, gt=0)
    comparator_betas: tuple[float, float] = (0.9, 0.99)
    comparator_weight_decay: float = Field(0.01, ge=0)
    warmup_epochs: int = Field(50, ge=0, description="Linear from 0; a share of `epochs`.")
    epochs: int = Field(150, gt=0, description="What the shares are of.")
    average_decay: float = Field(0.99, ge=0, lt=1)
    average_after: int = Field(100, ge=0, description="Steps after which averaging sets in; until then it copies.")
    tta: bool = Field(False, description="Stain seven flips and turns and average; blurs, raises PSNR and SSIM.")
    recompute: bool = Field(
        False, description="Run the generator again in its turn, not keep its graph over the others': less memory."
    )
    truncate: bool = Field(False, description="As released: output cut to whole 8-bit levels downwards, not rounded.")

    @model_validator(mode="after")
    def _networks_fit(self) -> Config:
        if self.full_size & (self.full_size - 1) or self.full_size < 8 * 2**self.encoder_blocks:
            raise ValueError(
                f"full_size {self.full_size} must be a power of two from {8 * 2**self.encoder_blocks} px on, "
                f"which {self.encoder_blocks} encoder blocks halve to 8 px or more"
            )
        if self.full_size // 2 ** (self.judge_scales - 1 + self.judge_layers) < 4:
            raise ValueError(
                f"{self.judge_layers} judge_layers at {self.judge_scales} judge_scales leave less than 4 px of "
                f"full_size {self.full_size}, where a norm has nothing to measure; take fewer"
            )
        if max(self.warmup_epochs, self.comparator_epochs) >= self.epochs:
            raise ValueError(f"warmup_epochs and comparator_epochs must be less than epochs, {self.epochs}")
        return self


# Halved twice and not three times: at 1 µm a pixel, 8 px are a cell, and drawn sections came out blurred after 1,500
# steps (stand-in Fréchet distance 780, the H&E's own 573). Nor can so short a run warm up for a third of its length.
_SMALL = Config(
    full_size=128,
    width=6,
    encoder_blocks=2,
    style_blocks=2,
    judge_width=4,
    comparator_width=4,
    comparator_max_width=32,
    lr=3e-3,
    warmup_epochs=15,
)

PRESETS = {
    "paper": Config(),
    "released": Config(accumulate_comparator_grad=True, truncate=True),
    "mod": Config(attention=False),
    "ada": Config(style="ada", attention=False),
    "mod_attention": Config(),
    "ada_attention": Config(style="ada"),
    "without_levels": Config(levels=False),
    "small": _SMALL,
    "tiny": Config(
        full_size=64,
        width=4,
        encoder_blocks=2,
        style_blocks=2,
        judge_width=4,
        judge_layers=2,
        comparator_width=4,
        comparator_max_width=16,
    ),
}


class AccumulatedAdamW(AdamW):
    """AdamW that takes the sum of all gradients since the first step, as when nobody ever zeroes them."""

    def step(self, closure: Any = None) -> Any:
        """Add what was summed up so far, then step."""
        stepping = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for parameter in stepping:
            if "sum" in self.state[parameter]:
                parameter.grad += self.state[parameter]["sum"]
        result = super().step(closure)
        for parameter in stepping:
            self.state[parameter]["sum"] = parameter.grad.clone()
        return result


class Bcistainer(nn.Module):
    """Generator, its average, discriminators of the IHC alone, and a comparator that first trains, then compares."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = StyledGenerator(
            full_size=config.full_size,
            width=config.width,
            encoder_blocks=config.encoder_blocks,
            style_blocks=config.style_blocks,
            style=config.style,
            attention=config.attention,
            norm=config.norm,
            dropout=config.dropout,
            lowres=config.lowres_weight > 0,
            levels=LEVELS if config.levels else 0,
        )
        self.discriminator = MultiScaleDiscriminator(
            width=config.judge_width, n_layers=config.judge_layers, scales=config.judge_scales, norm=config.norm
        )
        self.comparator = (
            Comparator(
                full_size=config.full_size,
                width=config.comparator_width,
                max_width=config.comparator_max_width,
                levels=LEVELS,
                norm=config.norm,
                dropout=config.dropout,
            )
            if config.levels
            else None
        )
        init_normal(self)
        for module in self.modules():
            # As the authors' rule, which their equalised weights fall under too: demodulation hides the scale, but the
            # weights move faster for it.
            if isinstance(module, ModulatedConv | EqualizedLinear):
                nn.init.normal_(module.weight, 0.0, 0.02)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    def players(self) -> Mapping[str, nn.Module]:
        judges = {"discriminator": self.discriminator, "generator": self.generator}
        return judges if self.comparator is None else {"comparator": self.comparator, **judges}

    def optimizer(self, player: str) -> Optimizer:
        config, parameters = self.config, self.players()[player].parameters()
        if player == "comparator":
            kind = AccumulatedAdamW if config.accumulate_comparator_grad else AdamW
            return kind(
                parameters,
                lr=config.comparator_lr,
                betas=config.comparator_betas,
                weight_decay=config.comparator_weight_decay,
            )
        return AdamW(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)

    def rate(self, player: str, at: Progress) -> float:
        if player == "comparator":
            return 1.0
        return warmup_cosine(self._epoch(at), warmup=self.config.warmup_epochs, epochs=self.config.epochs)

    def averages(self) -> Mapping[str, Average]:
        return {"generator": Average("generator", self.generator, self.average, self._decay)}

    def _decay(self, at: Progress) -> float:
        return average_decay(at.step + 1, after=self.config.average_after, largest=self.config.average_decay)

    def _epoch(self, at: Progress) -> float:
        """The fractional epoch of the published run at this share of the run."""
        return at.step / at.n_steps * self.config.epochs

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        self._check(batch)
        forward = Forward(self.generator, batch.he, again=self.config.recompute)
        learning = self._epoch(at) < self.config.comparator_epochs
        if self.comparator is not None and learning:
            yield self.comparator_turn(batch)
        yield self.discriminator_turn(batch, forward.values.ihc, at)
        yield self.generator_turn(batch, forward.with_graph(), at, compare=not learning)

    def comparator_turn(self, batch: Batch) -> Turn:
        """The level of real IHC."""
        assert self.comparator is not None
        return Turn("comparator", self._level_loss(self.comparator(batch.ihc).logits, batch))

    def discriminator_turn(self, batch: Batch, virtual: Float[Tensor, "b 3 h w"], at: Progress) -> Turn:
        """Virtual against real IHC."""
        caught = self._judged(virtual.detach(), batch, at, real=False, use="fake")
        trusted = self._judged(batch.ihc, batch, at, real=True, use="real")
        return Turn("discriminator", (caught + trusted) / 2, logs={"fake": caught, "real": trusted})

    def generator_turn(self, batch: Batch, outputs: Stained, at: Progress, *, compare: bool) -> Turn:
        """All terms of the generator; with `compare`, the comparator's latents too."""
        config = self.config
        logs = {
            "adversarial": self._judged(outputs.ihc, batch, at, real=True, use="fooled"),
            "pixel": self.pixel_loss(outputs, batch.ihc),
            "ssim": config.ssim_weight * (1 - ssim((outputs.ihc + 1) / 2, (batch.ihc + 1) / 2).mean()),
        }
        if outputs.logits is not None:
            logs["level"] = config.level_weight * self._level_loss(outputs.logits, batch)
        if self.comparator is not None and compare:
            with in_mode(self.comparator, train=False):
                with torch.no_grad():
                    real = self.comparator(batch.ihc).latent
                virtual = self.comparator(outputs.ihc).latent
            logs["comparator"] = config.comparator_weight * unlikeness(virtual, real)
        return Turn("generator", torch.stack(list(logs.values())).sum(), logs=logs)

    def pixel_loss(self, outputs: Stained, ihc: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Difference of the picture, and of the low-resolution one from the shrunk IHC, weighted."""
        difference = PIXEL[self.config.pixel]
        loss = difference(outputs.ihc, ihc)
        if outputs.lowres is not None:
            low = shrunk(ihc, side=outputs.lowres.shape[2:])
            loss = loss + self.config.lowres_weight * difference(outputs.lowres, low)
        return self.config.pixel_weight * loss

    def _judged(
        self, pictures: Float[Tensor, "b 3 h w"], batch: Batch, at: Progress, *, real: bool, use: str
    ) -> Float[Tensor, ""]:
        maps = self.discriminator(pictures)
        generators = tile_generators(batch.tile_ids, at, use=use)
        return smoothed_lsgan(
            maps, [draw_uniform(generators, like=one, below=self.config.smoothing) for one in maps], real=real
        )

    def _level_loss(self, logits: Float[Tensor, "b 4"], batch: Batch) -> Float[Tensor, ""]:
        config = self.config
        return focal(logits, batch["score"], weights=config.class_weights, gamma=config.focal_gamma).mean()

    def _check(self, batch: Batch) -> None:
        """Whether the batch is what the networks are built for.

        Raises:
            ConfigError: Another side, or no scores.
        """
        if problem := _crop_problem(self.config, batch.he.shape[2]):
            raise ConfigError(f"bcistainer: {problem}")
        if self.config.levels and "score" not in batch.extras:
            raise ConfigError("bcistainer: options.levels is on in a preset without scores; take preset paper for it")

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; bcistainer stains H&E as ihc only")
        with in_mode(self.average, train=False):
            pictures = mean_of_versions(self._stained, tiles) if self.config.tta else self._stained(tiles)
        return whole_levels_down(pictures) if self.config.truncate else pictures

    def _stained(self, tiles: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.average(tiles).ihc.float()


def average_decay(
    update: int, *, after: int, largest: float, inv_gamma: float = 1.0, power: float = 1.0, every: int = 1
) -> float:
    """Share that the average keeps at an update, counted from 1: 0 at first, then 2/3, 3/4 and on to the largest.

    Exponential average with warm-up as released, whose first two updates behind `after` copy as well. Of `every`
    updates, only the first moves the average.
    """
    if (update - 1) % every:
        return 1.0
    age = update - after - 1
    return 0.0 if age <= every else min(1 - (1 + age / inv_gamma) ** -power, largest)


def unlikeness(virtual: Float[Tensor, "b c"], real: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """1 less the mean cosine of latents."""
    return 1 - torch.cosine_similarity(virtual.float(), real.float(), dim=1, eps=1e-6).mean()


def misfit(config: Config, training: TrainingSpec) -> str:
    """Why the networks cannot train under a protocol; empty when they can."""
    return _crop_problem(config, training.crop_px)


def _crop_problem(config: Config, side_px: int) -> str:
    if side_px == config.full_size:
        return ""
    usable = math.log2(side_px).is_integer() and side_px >= 8 * 2**config.encoder_blocks
    remedy = f"set options.full_size: {side_px}, or " if usable else ""
    return (
        f"options.full_size: {config.full_size} px, but training crops are {side_px} px, and the networks are built "
        f"for one side; {remedy}set training.crop_px: {config.full_size}"
    )


def from_released(
    state: Mapping[str, Tensor], *, network: Literal["generator", "discriminator", "comparator"], config: Config
) -> dict[str, Tensor]:
    """A network of the authors' checkpoint under our names, for its state dict; the average takes a generator's.

    Raises:
        WeightsError: Lists missing, unexpected and differently shaped tensors.
    """
    with torch.device("meta"):
        expected = getattr(Bcistainer(config), network).state_dict()
    ours = {our_name(name): tensor for name, tensor in without_prefix(state, "module.").items()}
    check_tensors(ours, expected, source=f"bcistainer {network}")
    return ours


def our_name(released: str) -> str:
    """Our name of a tensor: a modulated convolution is no sequence here, an equalised weight no module.

    Theirs counts the layers before a classifier without dropout as none; here dropout is always a layer.
    """
    plain = re.sub(r"(conv[12])\.0\.(weight\.data|bias)$", r"\1.\2", released).replace("weight.data", "weight")
    return plain.replace("classify_head.0.", "classify_head.1.")


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh BCIstainer."""
    return Bcistainer(config)
