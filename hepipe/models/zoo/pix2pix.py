"""Pix2pix: a U-Net against a discriminator that sees the H&E beside the IHC, with an L1 loss.

Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017.
Differs from the authors' code: the learning rate steps at the end of an epoch, so the last one still learns; staining
uses running statistics without dropout, and rounds to 8 bits; preset `released` restores all three. Tiles are cropped,
flipped and turned as for every model, not enlarged to 286 px. The published 100 + 100 epochs are kept as a share of the
run's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from hepipe.dataset.batch import Batch
from hepipe.losses.adversarial import ADVERSARIAL, Gan
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.models.misfits import multiple_misfit
from hepipe.models.recompute import Forward
from hepipe.models.schedules import stepped_decay
from hepipe.models.staining import stain_by_own_statistics, stain_in_eval_mode, whole_levels_down
from hepipe.networks.blocks import init_normal
from hepipe.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from hepipe.networks.released import check_tensors, without_prefix
from hepipe.networks.unet import UnetGenerator, unet_name
from hepipe.specs.base import Spec
from hepipe.specs.training import TrainingSpec

PAIRING = "paired"
NEEDS = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 256}, "small": {"multiple": 64}, "tiny": {"multiple": 32}}
STREAMS: dict[str, tuple[str, int]] = {}
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": 200, "batch_size": 1, "steps": None}}


class Config(Spec):
    """Hyperparameters of pix2pix."""

    width: int = Field(64, gt=0, description="Channels of the generator's first level.")
    downs: int = Field(8, ge=5, le=12, description="Halvings of the side; tiles must be multiples of 2^downs px.")
    dropout: float = Field(0.5, ge=0, lt=1, description="In the inner levels of the way up.")
    judge: Literal["patch", "pixel"] = Field("patch", description="pixel: a logit for each px on its own.")
    judge_width: int = Field(64, gt=0, description="Channels of the discriminator's first layer.")
    judge_layers: int = Field(3, gt=0, description="Of the patch discriminator; 3 sees 70 px.")
    norm: Literal["batch", "instance"] = Field("batch", description="Of both networks.")
    gan: Gan = Field("vanilla", description="wgangp comes without its gradient penalty.")
    l1_weight: float = Field(100.0, ge=0)
    lr: float = Field(2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    constant_epochs: int = Field(100, gt=0, description="At the full rate; a share, with `decay_epochs`, of the run.")
    decay_epochs: int = Field(100, ge=0)
    lr_step: Literal["epoch_end", "epoch_start"] = Field(
        "epoch_end", description="epoch_start: as released, the rate of the last epoch is 0."
    )
    inference_mode: Literal["eval", "train_stats"] = Field(
        "eval", description="train_stats: as released, dropout and the statistics of the single tile."
    )
    truncate: bool = Field(False, description="As released: output cut to whole 8-bit levels downwards, not rounded.")
    recompute: bool = Field(
        False, description="Run the generator again in its turn, not keep its graph over the other's: less memory."
    )


PRESETS = {
    "paper": Config(),
    "released": Config(lr_step="epoch_start", inference_mode="train_stats", truncate=True),
    # At 2e-4, after 2,000 steps, two seeds of three were no nearer to the IHC than the H&E, by Fréchet distance.
    "small": Config(width=16, downs=6, judge_width=16, lr=5e-4),
    "tiny": Config(width=4, downs=5, judge_width=4, judge_layers=2),
}


class Pix2pix(nn.Module):
    """Generator against a discriminator that sees the H&E beside the IHC."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = UnetGenerator(
            n_downs=config.downs, width=config.width, norm=config.norm, dropout=config.dropout
        )
        self.discriminator: nn.Module
        if config.judge == "pixel":
            self.discriminator = PixelDiscriminator(inputs=6, width=config.judge_width, norm=config.norm)
        else:
            self.discriminator = PatchDiscriminator(
                inputs=6, width=config.judge_width, n_layers=config.judge_layers, norm=config.norm
            )
        init_normal(self)

    def players(self) -> Mapping[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}

    def optimizer(self, player: str) -> Optimizer:
        return Adam(self.players()[player].parameters(), lr=self.config.lr, betas=self.config.betas)

    def rate(self, player: str, at: Progress) -> float:
        config = self.config
        return stepped_decay(at, constant=config.constant_epochs, decay=config.decay_epochs, step=config.lr_step)

    def averages(self) -> Mapping[str, Average]:
        return {}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        real, fake = ADVERSARIAL[self.config.gan]
        forward = Forward(self.generator, batch.he, again=self.config.recompute)

        caught = fake(self.discriminator(torch.cat([batch.he, forward.values], 1)))
        trusted = real(self.discriminator(torch.cat([batch.he, batch.ihc], 1)))
        yield Turn("discriminator", (caught + trusted) / 2, logs={"fake": caught, "real": trusted})

        virtual = forward.with_graph()
        adversarial = real(self.discriminator(torch.cat([batch.he, virtual], 1)))
        l1 = self.config.l1_weight * (virtual.float() - batch.ihc).abs().mean()
        yield Turn("generator", adversarial + l1, logs={"adversarial": adversarial, "l1": l1})

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; pix2pix stains H&E as ihc only")
        if self.config.inference_mode == "eval":
            pictures = stain_in_eval_mode(self.generator, tiles)
        else:
            pictures = stain_by_own_statistics(self.generator, tiles, seeds)
        return whole_levels_down(pictures) if self.config.truncate else pictures


def from_released(
    state: Mapping[str, Tensor], *, network: Literal["generator", "discriminator"], config: Config
) -> dict[str, Tensor]:
    """A network of the authors' checkpoint (`latest_net_G`, `latest_net_D`) under our names, for its state dict.

    Raises:
        WeightsError: Lists missing, unexpected and differently shaped tensors.
    """
    with torch.device("meta"):
        expected = getattr(Pix2pix(config), network).state_dict()
    ours = without_prefix(state, "module.")
    if network == "generator":
        ours = {unet_name(name, n_downs=config.downs): tensor for name, tensor in ours.items()}
    check_tensors(ours, expected, source=f"pix2pix {network}")
    return ours


def multiple(config: Config) -> int:
    """What divides the sides that the generator takes, px."""
    return int(2**config.downs)


def misfit(config: Config, training: TrainingSpec) -> str:
    """Why the generator cannot halve the crops of a protocol as often as its options say; empty when it can."""
    return multiple_misfit(training.crop_px, multiple(config), of=f"options.downs: {config.downs}")


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh pix2pix."""
    return Pix2pix(config)
