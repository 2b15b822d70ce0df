"""ASP: contrast with the H&E, and with a real IHC that may lie beside it, weighted by how much it can be trusted.

Li et al., Adaptive Supervised PatchNCE Loss for Learning H&E-to-IHC Stain Translation with Inconsistent Groundtruth
Image Pairs, MICCAI 2023. Preset `supervised` trusts every patch alike (the paper's SP).
Differs from the authors' code: an epoch is a permutation of the tiles and not so many random draws (the protocol's key
`sample_with_replacement` restores those), patches are counted by the batch at hand, terms are logged apart, heads are
built with the model, staining does not move the spectral norm. The published epochs are kept as a share of the run's
own.
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
from hepipe.losses.patchnce import Lookup, Schedule, adaptive_weights, patch_nce, trust_in_all, unit_rows
from hepipe.losses.pyramid import binomial_l1
from hepipe.models.draws import shared_generator
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.models.misfits import pyramid_misfit
from hepipe.models.ranks import mean_over_ranks
from hepipe.models.recompute import Forward
from hepipe.models.schedules import linear_decay, share_epochs
from hepipe.models.staining import stain_in_eval_mode
from hepipe.networks.blocks import init_xavier
from hepipe.networks.heads import PatchHeads, draw_places, head_name
from hepipe.networks.patchgan import PatchDiscriminator
from hepipe.networks.released import check_tensors, judge_name, without_filters, without_prefix
from hepipe.networks.resnet import ResnetGenerator
from hepipe.specs.base import Spec
from hepipe.specs.training import TrainingSpec

PAIRING = "paired"
NEEDS = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 32}}
STREAMS: dict[str, tuple[str, int]] = {}
# 4,642 pairs of MIST HER2, 40 epochs, batch 1.
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": 40, "batch_size": 1, "steps": 185_680}}

TAPS = (0, 4, 8, 12, 16)
"""As in CUT; the last is the fifth residual block."""


class Config(Spec):
    """Hyperparameters of ASP."""

    width: int = Field(64, gt=0, description="Channels of the generator's first layer.")
    blocks: int = Field(6, ge=5, description="Residual blocks; the fifth is the last that is contrasted.")
    judge_width: int = Field(32, gt=0, description="Channels of the discriminator's first layer.")
    judge_layers: int = Field(5, gt=0)
    head_width: int = Field(256, gt=0, description="Of the projections.")
    places: int = Field(256, gt=0, description="Patches contrasted per image and layer.")
    temperature: float = Field(0.07, gt=0)
    gan: Gan = Field("lsgan", description="wgangp comes without its gradient penalty.")
    gan_weight: float = Field(1.0, ge=0)
    nce_weight: float = Field(10.0, ge=0, description="Of the contrast with the H&E.")
    asp_weight: float = Field(10.0, ge=0, description="Of the contrast with the real IHC.")
    pyramid_weight: float = Field(10.0, ge=0)
    identity_nce: bool = Field(False, description="Also contrast G(ihc) with ihc; both contrasts then count half.")
    schedule: Schedule | None = Field("lambda", description="How trust in all patches falls; empty: it never does.")
    lookup: Lookup = Field("linear", description="Weight of a patch by its similarity to the real one.")
    init_gain: float = Field(0.02, gt=0, description="Of Xavier's normal distribution, which all weights start from.")
    lr: float = Field(2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    constant_epochs: int = Field(30, gt=0, description="At the full rate; a share, with `decay_epochs`, of the run.")
    decay_epochs: int = Field(10, ge=0)
    recompute: bool = Field(
        False, description="Run the generator again in its turn, not keep its graph over the other's: less memory."
    )


_SMALL = {
    "width": 8,
    "blocks": 5,
    "judge_width": 16,
    "judge_layers": 3,
    "head_width": 32,
    "places": 64,
    # See CUT and CUT with a pyramid loss: with a gain of 0.02 the discriminator does not begin to judge, and beside all
    # of both contrasts no DAB was worth its price.
    "init_gain": 0.3,
    "nce_weight": 1.0,
    "asp_weight": 1.0,
    "constant_epochs": 20,
    "decay_epochs": 20,
}
_TINY = {"width": 4, "blocks": 5, "judge_width": 4, "judge_layers": 3, "head_width": 16, "places": 16}

PRESETS = {
    "paper": Config(),
    "supervised": Config(schedule=None),
    "unsupervised": Config(asp_weight=0.0),
    "without_pyramid": Config(pyramid_weight=0.0),
    "lambda_uniform": Config(lookup="uniform"),
    "lambda_top": Config(lookup="top"),
    "lambda_bell": Config(lookup="bell"),
    "linear_linear": Config(schedule="linear"),
    "sigmoid_linear": Config(schedule="sigmoid"),
    "small": Config.model_validate(_SMALL),
    "tiny": Config.model_validate(_TINY),
}


class Asp(nn.Module):
    """Generator and projection heads against one discriminator; spectral norm on every convolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = ResnetGenerator(
            width=config.width, n_blocks=config.blocks, norm="instance", antialias=True, spectral=True
        )
        self.heads = PatchHeads((3, 2 * config.width, *(4 * config.width,) * 3), width=config.head_width)
        self.discriminator = PatchDiscriminator(
            width=config.judge_width, n_layers=config.judge_layers, norm="instance", antialias=True, spectral=True
        )
        init_xavier(self, gain=config.init_gain)

    def players(self) -> Mapping[str, nn.Module]:
        # Generator and heads step together, with equal settings: one Adam is theirs.
        return {"discriminator": self.discriminator, "generator": nn.ModuleList([self.generator, self.heads])}

    def optimizer(self, player: str) -> Optimizer:
        return Adam(self.players()[player].parameters(), lr=self.config.lr, betas=self.config.betas)

    def rate(self, player: str, at: Progress) -> float:
        constant, decay = self._epochs(at)
        return linear_decay(int(at.epoch), constant=constant, decay=decay)

    def averages(self) -> Mapping[str, Average]:
        return {}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        virtual = Forward(self.generator, batch.he, again=self.config.recompute)
        yield self.discriminator_turn(virtual.values, batch.ihc)

        output = virtual.with_graph()
        identity = self.generator(batch.ihc) if self.config.identity_nce else None
        # Shared, so that the pieces of a batch and its processes contrast the same places.
        draws = shared_generator(at, use="places")
        yield self.generator_turn(batch, output, identity, trust=self.trust(at), draws=draws)

    def trust(self, at: Progress) -> float:
        """The share of equal weight at this epoch."""
        if self.config.schedule is None:
            return 1.0
        constant, decay = self._epochs(at)
        return trust_in_all(self.config.schedule, epoch=int(at.epoch) + 1, constant=constant, decay=decay)

    def discriminator_turn(self, virtual: Float[Tensor, "b 3 h w"], ihc: Float[Tensor, "b 3 h w"]) -> Turn:
        """Virtual against real IHC."""
        real, fake = ADVERSARIAL[self.config.gan]
        caught, trusted = fake(self.discriminator(virtual.detach())), real(self.discriminator(ihc))
        return Turn("discriminator", (caught + trusted) / 2, logs={"fake": caught, "real": trusted})

    def generator_turn(
        self,
        batch: Batch,
        virtual: Float[Tensor, "b 3 h w"],
        identity: Float[Tensor, "b 3 h w"] | None = None,
        *,
        trust: float,
        places: Sequence[Sequence[Int[Tensor, " _"]] | None] = (None, None),
        draws: torch.Generator | None = None,
    ) -> Turn:
        """All terms; `places` fixes those of the contrasts with H&E and IHC, else they come from `draws`."""
        config = self.config
        logs = {"adversarial": ADVERSARIAL[config.gan].real(self.discriminator(virtual))}
        queries = self.generator.features(virtual, TAPS)
        contrast = config.nce_weight * self._contrast(batch.he, queries, places=places[0], draws=draws)
        logs["contrast"] = contrast
        if identity is not None:
            features = self.generator.features(identity, TAPS)
            logs["identity"] = config.nce_weight * self._contrast(batch.ihc, features, draws=draws)
            contrast = (contrast + logs["identity"]) / 2
        loss = config.gan_weight * logs["adversarial"] + contrast
        if config.asp_weight:
            supervised = self._contrast(batch.ihc, queries, trust=trust, places=places[1], draws=draws)
            logs["asp"] = config.asp_weight * supervised
            loss = loss + logs["asp"]
        if config.pyramid_weight:
            logs["pyramid"] = config.pyramid_weight * binomial_l1(virtual, batch.ihc)
            loss = loss + logs["pyramid"]
        return Turn("generator", loss, logs=logs)

    def _contrast(
        self,
        source: Float[Tensor, "b 3 h w"],
        queries: Sequence[Tensor],
        *,
        trust: float = 1.0,
        places: Sequence[Int[Tensor, " _"]] | None = None,
        draws: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """PatchNCE of an output's features with a source, weighted by similarity as far as `trust` is below 1."""
        with torch.no_grad():
            keys = self.generator.features(source, TAPS)
            places = draw_places(keys, self.config.places, draws) if places is None else places
            projected = [unit_rows(rows, shift="inside") for rows in self.heads(keys, places)]
        losses = []
        for rows, key in zip(self.heads(queries, places), projected, strict=True):
            query = unit_rows(rows, shift="inside")
            loss = patch_nce(query, key, temperature=self.config.temperature)
            if trust < 1:
                similarity = (query.detach() * key).sum(2)
                loss = loss * adaptive_weights(
                    similarity,
                    lookup=self.config.lookup,
                    trust=trust,
                    over_all=lambda mean: mean_over_ranks(mean, len(source)),
                )
            losses.append(loss.mean())
        return torch.stack(losses).mean()

    def _epochs(self, at: Progress) -> tuple[int, int]:
        return share_epochs(at, constant=self.config.constant_epochs, decay=self.config.decay_epochs)

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; asp stains H&E as ihc only")
        # One by one: these norms magnify the rounding by which a convolution of a batch differs from one of a tile.
        return torch.cat([stain_in_eval_mode(self.generator, tile[None]) for tile in tiles])


def from_released(
    state: Mapping[str, Tensor], *, network: Literal["generator", "discriminator", "heads"], config: Config
) -> dict[str, Tensor]:
    """A network of the authors' checkpoint (`latest_net_G`, `_D`, `_F`) under our names, for its state dict.

    Raises:
        WeightsError: Lists missing, unexpected and differently shaped tensors.
    """
    with torch.device("meta"):
        expected = getattr(Asp(config), network).state_dict()
    given = without_filters(without_prefix(state, "module."))
    last = 4 * config.judge_layers + 2
    ours = {head_name(judge_name(name, last=last)): tensor for name, tensor in given.items()}
    check_tensors(ours, expected, source=f"asp {network}")
    return ours


def misfit(config: Config, training: TrainingSpec) -> str:
    """Why the loss cannot be computed under a protocol; empty when it can."""
    return pyramid_misfit(training.crop_px) if config.pyramid_weight else ""


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh ASP."""
    return Asp(config)
