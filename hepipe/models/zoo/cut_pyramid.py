"""CUT with a Gaussian-pyramid loss: the paired baseline of the ASP paper.

Li et al., Adaptive Supervised PatchNCE Loss, MICCAI 2023, table 1 (“CUT + L_GP”): CUT, trained on pairs, plus the L1 of
a binomial pyramid. The paper does not list its settings: weights of contrast and pyramid, no identity term, epochs and
batch are those of ASP, networks those of CUT.
"""

from __future__ import annotations

from collections.abc import Mapping

from hepipe.models.method import Method, Part
from hepipe.models.misfits import pyramid_misfit
from hepipe.models.zoo import cut
from hepipe.models.zoo.cut import Config as Config
from hepipe.models.zoo.cut import from_released as from_released
from hepipe.specs.training import TrainingSpec

PAIRING = "paired"
NEEDS = {"*": ()}
PARTS: dict[str, dict[str, str]] = {"*": {}}
SIZE = {"*": {"multiple": 32}}
STREAMS: dict[str, tuple[str, int]] = {}
# ASP's epochs; its table 1 has several sets, so there is no one number of steps.
PUBLISHED: dict[str, dict[str, int | None]] = {"*": {"epochs": 40, "batch_size": 1, "steps": None}}

_PYRAMID = {
    "pyramid_weight": 10.0,
    "nce_weight": 10.0,
    "identity_nce": False,
    "constant_epochs": 30,
    "decay_epochs": 10,
}

PRESETS = {
    "paper": Config.model_validate(_PYRAMID),
    # A tenth of the contrast, which narrow heads bring down slowly: with all of it no DAB was worth its price. And the
    # rate falls for half of so short a run.
    "small": cut.PRESETS["small"].model_copy(
        update={**_PYRAMID, "nce_weight": 1.0, "constant_epochs": 20, "decay_epochs": 20}
    ),
    "tiny": cut.PRESETS["tiny"].model_copy(update=_PYRAMID),
}


def misfit(config: Config, training: TrainingSpec) -> str:
    """Why the loss cannot be computed under a protocol; empty when it can."""
    return pyramid_misfit(training.crop_px) if config.pyramid_weight else ""


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh CUT with a pyramid loss."""
    return cut.Cut(config)
