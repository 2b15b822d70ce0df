"""CSSP2P GAN and its ablations BCE, cBCE and P2P: pyramid L1 and structure similarity beside a conditional GAN.

Teixeira et al., CSSP2P GAN, DGM4MICCAI 2025. The presets `bce`, `cbce` and `p2p` are the paper's ablations.
Differs from the authors' code: the pyramid loss has a gradient at every scale, the blur of the discriminator keeps the
mean, and CSS compares pictures of one range; preset `released` restores all three (train it with precision bf16 and
export JPEG to match the published tables). Rates fall per epoch as published, whatever the length of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from hepipe.dataset.batch import Batch
from hepipe.losses.adversarial import vanilla_fake, vanilla_real
from hepipe.losses.css import css, css_loss, shared_range
from hepipe.losses.pyramid import pooled_l1, weighted_mean
from hepipe.models.method import Average, Method, Part, Progress, Turn
from hepipe.models.recompute import Forward
from hepipe.networks.patchgan import PatchDiscriminator
from hepipe.networks.released import check_tensors, judge_name, without_prefix
from hepipe.networks.resunet import Backbone, ResUnetGenerator
from hepipe.specs.base import Spec

PAIRING = "paired"
NEEDS = {"*": ()}
PARTS = {
    "*": {},
    "paper": {"encoder": "weights:resnet50?~"},
    "released": {"encoder": "weights:resnet50?~"},
    "bce": {"encoder": "weights:resnet50?~"},
    "cbce": {"encoder": "weights:resnet50?~"},
    "p2p": {"encoder": "weights:resnet50?~"},
}
SIZE = {"*": {"multiple": 16}}
STREAMS: dict[str, tuple[str, int]] = {}
# 11,610 tiles of HER2match make 1,452 steps an epoch, the last batch being a part.
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": 200, "batch_size": 8, "steps": 290_400}}

# Mean and spread of ImageNet, which the encoder's weights expect (Russakovsky et al., IJCV 2015; torchvision's values).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Config(Spec):
    """Hyperparameters of CSSP2P and its ablations."""

    objective: Literal["bce", "cbce", "p2p", "cssp2p"] = Field(
        "cssp2p", description="bce judges the IHC alone, cbce beside the H&E; p2p adds pyramid L1, cssp2p also CSS."
    )
    backbone: Backbone = "resnet50"
    width: int = Field(64, gt=0, description="Channels of the encoder's stem.")
    judge_width: int = Field(64, gt=0, description="Channels of the discriminator's first layer.")
    judge_layers: int = Field(4, gt=0)
    pretrained: bool = Field(True, description="Start the encoder from the part `encoder`; a run says if it is absent.")
    scale_weights: tuple[float, ...] = Field(
        (1.0, 1.0, 1.0, 1.0), min_length=1, description="Of L1 at each scale; a weighted mean."
    )
    pyramid_weight: float = Field(1.0, ge=0)
    css_weight: float = Field(1.0, ge=0)
    pyramid_grad: Literal["all", "octave0"] = Field("all", description="octave0: as released, only the full picture.")
    css_target: Literal["unit", "normalised"] = Field(
        "unit", description="normalised: as released, against the ImageNet-normalised H&E and the batch's own range."
    )
    blur_gain: float = Field(1.0, gt=0, description="Of the discriminator's blur; 1/16 as released.")
    lr: float = Field(5e-5, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(1e-5, ge=0)
    lr_gamma: float = Field(0.995, gt=0, le=1, description="Factor on the rate, per epoch.")
    recompute: bool = Field(
        False, description="Run the generator again in its turn, not keep its graph over the other's: less memory."
    )

    @model_validator(mode="after")
    def _pretrained_fits(self) -> Config:
        if self.pretrained and (self.backbone != "resnet50" or self.width != 64):
            raise ValueError(
                f"pretrained weights are those of resnet50 at width 64, not {self.backbone} at {self.width}; "
                "set pretrained: false"
            )
        return self


_SMALL = Config(backbone="resnet18", width=6, judge_width=4, judge_layers=3, pretrained=False)

PRESETS = {
    "paper": Config(),
    "released": Config(pyramid_grad="octave0", css_target="normalised", blur_gain=1 / 16),
    "bce": Config(objective="bce"),
    "cbce": Config(objective="cbce"),
    "p2p": Config(objective="p2p"),
    # An Adam step moves a weight by its rate whatever the gradient: a sum over a tenth of the channels needs ten times
    # the rate, and more in a run of minutes, where it must also fall within few epochs. At 5e-4 colours were still
    # false after 500 steps. With L1 weighted 1 the discriminator puts DAB in wrong places before right ones are known.
    "small": _SMALL.model_copy(update={"lr": 4e-3, "lr_gamma": 0.9, "pyramid_weight": 25.0}),
    "tiny": _SMALL.model_copy(update={"width": 4, "judge_width": 4, "judge_layers": 2}),
}


def unit_from_signed(picture: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """[-1, 1] to [0, 1]."""
    return (picture.float() + 1) / 2


def imagenet_from_unit(picture: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """[0, 1] to zero mean and unit spread over ImageNet."""
    mean, std = (torch.tensor(v, device=picture.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (picture - mean) / std


def unit_from_imagenet(picture: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The way back."""
    mean, std = (torch.tensor(v, device=picture.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return picture * std + mean


class Cssp2p(nn.Module):
    """Residual U-Net against a spectrally normed PatchGAN; IHC in [0, 1], H&E normalised for ImageNet."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = ResUnetGenerator(config.backbone, width=config.width)
        self.discriminator = PatchDiscriminator(
            inputs=3 if config.objective == "bce" else 6,
            width=config.judge_width,
            n_layers=config.judge_layers,
            norm="batch",
            antialias=True,
            spectral=True,
            blur_gain=config.blur_gain,
        )

    def players(self) -> Mapping[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}

    def optimizer(self, player: str) -> Optimizer:
        parameters = self.players()[player].parameters()
        return AdamW(parameters, lr=self.config.lr, betas=self.config.betas, weight_decay=self.config.weight_decay)

    def rate(self, player: str, at: Progress) -> float:
        return self.config.lr_gamma ** int(at.epoch)

    def averages(self) -> Mapping[str, Average]:
        return {}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        he, ihc = imagenet_from_unit(unit_from_signed(batch.he)), unit_from_signed(batch.ihc)
        virtual = Forward(self.generator, he, again=self.config.recompute)
        yield self.discriminator_turn(virtual.values, ihc, he)
        yield self.generator_turn(virtual.with_graph(), ihc, he)

    def discriminator_turn(
        self, virtual: Float[Tensor, "b 3 h w"], ihc: Float[Tensor, "b 3 h w"], he: Float[Tensor, "b 3 h w"]
    ) -> Turn:
        """Cross entropy on the fake and the real; IHC in [0, 1], H&E normalised."""
        caught = vanilla_fake(self._judge(virtual, he))
        trusted = vanilla_real(self._judge(ihc, he))
        return Turn("discriminator", (caught + trusted) / 2, logs={"fake": caught, "real": trusted})

    def generator_turn(
        self, virtual: Float[Tensor, "b 3 h w"], ihc: Float[Tensor, "b 3 h w"], he: Float[Tensor, "b 3 h w"]
    ) -> Turn:
        """The objective of the preset, its terms in the logs."""
        config = self.config
        loss = adversarial = vanilla_real(self._judge(virtual, he))
        logs = {"adversarial": adversarial}
        if config.objective in ("p2p", "cssp2p"):
            terms = pooled_l1(virtual, ihc, n=len(config.scale_weights), grad=config.pyramid_grad)
            logs["pyramid"] = weighted_mean(terms, config.scale_weights)
            loss = loss + config.pyramid_weight * logs["pyramid"]
        if config.objective == "cssp2p":
            logs["css"] = css_loss(self._similarity(virtual, he))
            loss = loss + config.css_weight * logs["css"]
        return Turn("generator", loss, logs=logs)

    def _judge(self, ihc: Tensor, he: Tensor) -> Tensor:
        return self.discriminator(ihc if self.config.objective == "bce" else torch.cat([ihc, he], 1))

    def _similarity(self, virtual: Tensor, he: Tensor) -> Tensor:
        if self.config.css_target == "normalised":
            return css(virtual, he, value_range=shared_range(virtual.float(), he))
        return css(virtual, unit_from_imagenet(he), value_range=1.0)

    @torch.no_grad()
    def stain(
        self, tiles: Float[Tensor, "b 3 h w"], *, seeds: Int[Tensor, " b"], to: str = "ihc"
    ) -> Float[Tensor, "b 3 h w"]:
        if to != "ihc":
            raise ValueError(f"to is {to!r}; cssp2p stains H&E as ihc only")
        return self.generator(imagenet_from_unit(unit_from_signed(tiles))) * 2 - 1


def from_released(
    state: Mapping[str, Tensor], *, network: Literal["generator", "discriminator"], config: Config
) -> dict[str, Tensor]:
    """A network of the authors' checkpoint under our names, for its state dict; the unused classifier is dropped.

    Raises:
        WeightsError: Lists missing, unexpected and differently shaped tensors.
    """
    with torch.device("meta"):
        expected = getattr(Cssp2p(config), network).state_dict()
    stripped = without_prefix(state, "module.", f"{network}.")
    if network == "generator":
        ours = {generator_name(name): tensor for name, tensor in stripped.items() if ".fc." not in name}
    else:
        last = max(int(name.split(".")[1]) for name in expected)
        ours = {judge_name(name, last=last): tensor for name, tensor in stripped.items()}
    check_tensors(ours, expected, source=f"cssp2p {network}")
    return ours


def generator_name(released: str) -> str:
    """Our name of a generator's tensor: `encoder.model.*` keeps ResNet's names, `decoder.layers.<i>` become levels."""
    if released.startswith("encoder.model."):
        return "encoder." + released.removeprefix("encoder.model.")
    return "decoder." + decoder_name(released.removeprefix("decoder.")) if released.startswith("decoder.") else released


def decoder_name(released: str) -> str:
    """Our name of a decoder's tensor: even layers project a skip, odd ones decode, the last is the head."""
    match = re.fullmatch(r"layers\.(\d+)\.(?:(.+)\.)?(weight|bias)", released)
    if match is None:
        return released
    index, inside, leaf = match.groups(default="")
    if inside == "conv":
        return f"head.{leaf}"
    return f"levels.{int(index) // 2}.{_DECODER_LAYERS[inside]}.{leaf}" if inside in _DECODER_LAYERS else released


_DECODER_LAYERS = {
    "": "project",
    "up.1": "shrink",
    "double_conv.double_conv.0": "conv1",
    "double_conv.double_conv.3": "conv2",
}


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh CSSP2P; the encoder starts from the part `encoder` when one is given."""
    method = Cssp2p(config)
    if "encoder" in parts and config.pretrained:
        method.generator.encoder.load_common(parts["encoder"].state, source="part encoder")
    return method
