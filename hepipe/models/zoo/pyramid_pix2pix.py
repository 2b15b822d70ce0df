"""Pyramid pix2pix: a conditional GAN with an L1 loss at four octaves of a Gaussian scale space.

Liu et al., BCI: Breast Cancer Immunohistochemical Image Generation through Pyramid Pix2pix, CVPR workshops 2022.
Differs from the authors' code: the learning rate steps at the end of an epoch, so the last one still learns; staining
uses running statistics without dropout, and rounds to 8 bits; preset `released` restores all three. Tiles are cropped,
flipped and turned as for every model, theirs whole and mirrored left to right alone. Their 100 + 100 epochs are kept as
a share of the run's own.
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
from hepipe.losses.pyramid import octave_l1
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.models.recompute import Forward
from hepipe.models.schedules import stepped_decay
from hepipe.models.staining import stain_by_own_statistics, stain_in_eval_mode, whole_levels_down
from hepipe.networks.blocks import init_normal
from hepipe.networks.patchgan import PatchDiscriminator
from hepipe.networks.released import check_tensors, without_prefix
from hepipe.networks.resnet import ResnetGenerator
from hepipe.specs.base import Spec

PAIRING = "paired"
NEEDS = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 4}}
STREAMS: dict[str, tuple[str, int]] = {}
# 3,896 pairs of BCI, 200 epochs, batch 2.
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": 200, "batch_size": 2, "steps": 389_600}}


class Config(Spec):
    """Hyperparameters of Pyramid pix2pix."""

    width: int = Field(64, gt=0, description="Channels of the generator's first layer.")
    blocks: int = Field(9, gt=0, description="Residual blocks of the generator.")
    dropout: float = Field(0.5, ge=0, lt=1, description="In every residual block.")
    judge_width: int = Field(64, gt=0, description="Channels of the discriminator's first layer.")
    judge_layers: int = Field(3, gt=0)
    norm: Literal["batch", "instance"] = Field("batch", description="Of both networks.")
    gan: Gan = Field("vanilla", description="wgangp comes without its gradient penalty.")
    octave_weights: tuple[float, ...] = Field(
        (25.0, 25.0, 25.0, 25.0), min_length=1, description="Of L1 at each octave, the picture itself first."
    )
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
    "small": Config(width=8, blocks=3, judge_width=8, lr=1e-3),
    "tiny": Config(width=4, blocks=1, judge_width=4, judge_layers=2),
}


class PyramidPix2pix(nn.Module):
    """Generator against a discriminator that sees the H&E beside the IHC."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = ResnetGenerator(
            width=config.width, n_blocks=config.blocks, norm=config.norm, dropout=config.dropout
        )
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
        terms = octave_l1(virtual, batch.ihc, len(self.config.octave_weights))
        octaves = [weight * term for weight, term in zip(self.config.octave_weights, terms, strict=True)]
        logs = {"adversarial": adversarial} | {f"octave{i + 1}": term for i, term in enumerate(octaves)}
        yield Turn("generator", adversarial + torch.stack(octaves).sum(), logs=logs)

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; pyramid_pix2pix stains H&E as ihc only")
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
        expected = getattr(PyramidPix2pix(config), network).state_dict()
    ours = without_prefix(state, "module.")
    check_tensors(ours, expected, source=f"pyramid_pix2pix {network}")
    return ours


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh Pyramid pix2pix."""
    return PyramidPix2pix(config)
