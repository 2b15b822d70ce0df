"""CUT and FastCUT: unpaired translation held to its input by contrast between patches.

Park et al., Contrastive Learning for Unpaired Image-to-Image Translation, ECCV 2020.
Differs from the authors' code: the projection heads are built with the model and not at a first batch that is thrown
away; patches are counted by the batch at hand; tiles are cropped and flipped as for every model, not enlarged to
286 px. The published epochs are kept as a share of the run's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from hepipe.dataset.batch import Batch
from hepipe.losses.adversarial import ADVERSARIAL, Gan
from hepipe.losses.patchnce import patch_nce, unit_rows
from hepipe.losses.pyramid import binomial_l1
from hepipe.models.draws import shared_generator
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.models.recompute import Forward
from hepipe.models.schedules import linear_decay, share_epochs
from hepipe.models.staining import stain_in_eval_mode
from hepipe.networks.blocks import init_xavier
from hepipe.networks.heads import PatchHeads, draw_places, head_name
from hepipe.networks.patchgan import PatchDiscriminator
from hepipe.networks.released import check_tensors, without_filters, without_prefix
from hepipe.networks.resnet import ResnetGenerator
from hepipe.specs.base import Spec
from hepipe.specs.training import TrainingSpec

PAIRING = "unpaired"
NEEDS = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 4}}
STREAMS: dict[str, tuple[str, int]] = {}
PUBLISHED: dict[str, dict[str, int | None]] = {
    "*": {"epochs": 400, "batch_size": 1, "steps": None},
    "fastcut": {"epochs": 200, "batch_size": 1, "steps": None},
}

TAPS = (0, 4, 8, 12, 16)
"""Layers whose patches are contrasted: the padded picture, both halvings before their norm, two residual blocks."""


class Config(Spec):
    """Hyperparameters of CUT and FastCUT."""

    width: int = Field(64, gt=0, description="Channels of the generator's first layer.")
    blocks: int = Field(9, ge=5, description="Residual blocks; the fifth is the last that is contrasted.")
    judge_width: int = Field(64, gt=0, description="Channels of the discriminator's first layer.")
    judge_layers: int = Field(3, gt=0)
    head_width: int = Field(256, gt=0, description="Of the projections.")
    places: int = Field(256, gt=0, description="Patches contrasted per image and layer.")
    temperature: float = Field(0.07, gt=0)
    across_batch: bool = Field(False, description="The patches of all images of a batch are negatives.")
    gan: Gan = Field("lsgan", description="wgangp comes without its gradient penalty.")
    nce_weight: float = Field(1.0, ge=0)
    identity_nce: bool = Field(True, description="Also contrast G(ihc) with ihc; both terms then count half.")
    flip_equivariance: bool = Field(False, description="Half of the batches are stained mirrored, as in FastCUT.")
    init_gain: float = Field(0.02, gt=0, description="Of Xavier's normal distribution, which all weights start from.")
    lr: float = Field(2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    constant_epochs: int = Field(200, gt=0, description="At the full rate; a share, with `decay_epochs`, of the run.")
    decay_epochs: int = Field(200, ge=0)
    pyramid_weight: float = Field(0.0, ge=0, description="Of ASP's L1 over a binomial pyramid; needs paired tiles.")
    recompute: bool = Field(
        False, description="Run the generator again in its turn, not keep its graph over the other's: less memory."
    )


PRESETS = {
    "paper": Config(),
    "fastcut": Config(
        nce_weight=10.0, identity_nce=False, flip_equivariance=True, constant_epochs=150, decay_epochs=50
    ),
    # A gain of 0.02 leaves weights of few channels as small as one step of Adam: the discriminator stayed at chance for
    # 1,500 steps, even beside blurred pictures.
    "small": Config(width=8, blocks=5, judge_width=16, head_width=32, places=64, init_gain=0.3),
    "tiny": Config(width=4, blocks=5, judge_width=4, judge_layers=2, head_width=16, places=16),
}


class Cut(nn.Module):
    """Generator and projection heads against one discriminator, which sees the IHC alone."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = ResnetGenerator(width=config.width, n_blocks=config.blocks, norm="instance", antialias=True)
        self.heads = PatchHeads((3, 2 * config.width, *(4 * config.width,) * 3), width=config.head_width)
        self.discriminator = PatchDiscriminator(
            width=config.judge_width, n_layers=config.judge_layers, norm="instance", antialias=True
        )
        init_xavier(self, gain=config.init_gain)

    def players(self) -> Mapping[str, nn.Module]:
        # Generator and heads step together, with equal settings: one Adam is theirs.
        return {"discriminator": self.discriminator, "generator": nn.ModuleList([self.generator, self.heads])}

    def optimizer(self, player: str) -> Optimizer:
        return Adam(self.players()[player].parameters(), lr=self.config.lr, betas=self.config.betas)

    def rate(self, player: str, at: Progress) -> float:
        constant, decay = share_epochs(at, constant=self.config.constant_epochs, decay=self.config.decay_epochs)
        return linear_decay(int(at.epoch), constant=constant, decay=decay)

    def averages(self) -> Mapping[str, Average]:
        return {}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        # Shared, so that the pieces of a batch and its processes flip together and contrast the same places.
        flips, draws = (shared_generator(at, use=use) for use in ("flip", "places"))
        flipped = self.config.flip_equivariance and bool(torch.rand((), generator=flips) < 0.5)
        he, ihc = (tiles.flip(3) if flipped else tiles for tiles in (batch.he, batch.ihc))
        virtual = Forward(self.generator, he, again=self.config.recompute)
        yield self.discriminator_turn(virtual.values, batch.ihc)

        output = virtual.with_graph()
        identity = self.generator(ihc) if self.config.identity_nce else None
        yield self.generator_turn(batch, output, identity, flipped=flipped, draws=draws)

    def discriminator_turn(self, virtual: Float[Tensor, "b 3 h w"], ihc: Float[Tensor, "b 3 h w"]) -> Turn:
        """Virtual against real IHC."""
        real, fake = ADVERSARIAL[self.config.gan]
        caught, trusted = fake(self.discriminator(virtual.detach())), real(self.discriminator(ihc))
        return Turn("discriminator", (caught + trusted) / 2, logs={"fake": caught, "real": trusted})

    def generator_turn(
        self,
        batch: Batch,
        virtual: Float[Tensor, "b 3 h w"],
        identity: Float[Tensor, "b 3 h w"] | None,
        *,
        flipped: bool = False,
        places: Sequence[Sequence[Int[Tensor, " _"]] | None] = (None, None),
        draws: torch.Generator | None = None,
    ) -> Turn:
        """Adversarial term and contrast; `places` fixes those of both contrasts, else they come from `draws`."""
        adversarial = ADVERSARIAL[self.config.gan].real(self.discriminator(virtual))
        contrast = self.contrast(batch.he, virtual, flipped=flipped, places=places[0], draws=draws)
        logs = {"adversarial": adversarial, "contrast": contrast}
        if identity is not None:
            logs["identity"] = self.contrast(batch.ihc, identity, flipped=flipped, places=places[1], draws=draws)
            contrast = (contrast + logs["identity"]) / 2
        loss = adversarial + contrast
        if self.config.pyramid_weight:
            upright = virtual.flip(3) if flipped else virtual
            logs["pyramid"] = self.config.pyramid_weight * binomial_l1(upright, batch.ihc)
            loss = loss + logs["pyramid"]
        return Turn("generator", loss, logs=logs)

    def contrast(
        self,
        source: Float[Tensor, "b 3 h w"],
        output: Float[Tensor, "b 3 h w"],
        *,
        flipped: bool = False,
        places: Sequence[Int[Tensor, " _"]] | None = None,
        draws: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """PatchNCE of an output with its source, mean over patches and layers, times its weight.

        Args:
            source: Gives the keys, without gradient.
            output: Gives the queries.
            flipped: The output was made of the mirrored source: its features are mirrored back.
            places: Of each layer; drawn when not given.
            draws: Where they are drawn from; torch's global generator when not given.
        """
        queries = self.generator.features(output, TAPS)
        if flipped:
            queries = [features.flip(3) for features in queries]
        with torch.no_grad():
            keys = self.generator.features(source, TAPS)
            places = draw_places(keys, self.config.places, draws) if places is None else places
            projected = self.heads(keys, places)
        losses = [
            patch_nce(
                unit_rows(query),
                unit_rows(key),
                temperature=self.config.temperature,
                across_batch=self.config.across_batch,
            ).mean()
            for query, key in zip(self.heads(queries, places), projected, strict=True)
        ]
        return self.config.nce_weight * torch.stack(losses).mean()

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; cut stains H&E as ihc only")
        return stain_in_eval_mode(self.generator, tiles)


def from_released(
    state: Mapping[str, Tensor], *, network: Literal["generator", "discriminator", "heads"], config: Config
) -> dict[str, Tensor]:
    """A network of the authors' checkpoint (`latest_net_G`, `_D`, `_F`) under our names, for its state dict.

    Raises:
        WeightsError: Lists missing, unexpected and differently shaped tensors.
    """
    with torch.device("meta"):
        expected = getattr(Cut(config), network).state_dict()
    ours = {head_name(name): tensor for name, tensor in without_filters(without_prefix(state, "module.")).items()}
    check_tensors(ours, expected, source=f"cut {network}")
    return ours


def misfit(config: Config, training: TrainingSpec) -> str:
    """Why the loss means nothing on the tiles of this model; empty when it does."""
    if not config.pyramid_weight:
        return ""
    return (
        f"options.pyramid_weight: {config.pyramid_weight:g} compares a tile with its own IHC, but cut is trained on "
        "unpaired tiles; take model cut_pyramid, or set options.pyramid_weight: 0"
    )


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh CUT."""
    return Cut(config)
