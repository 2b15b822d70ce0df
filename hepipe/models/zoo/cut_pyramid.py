"""CUT with a Gaussian-pyramid loss: the paired baseline of the ASP paper.

Li et al., Adaptive Supervised PatchNCE Loss, MICCAI 2023, table 1 (“CUT + L_GP”): CUT, trained on pairs, plus the L1 of
a binomial pyramid with the weight it has in ASP, for ASP's number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping

from hepipe.models.method import Method, Part
from hepipe.models.zoo import cut
from hepipe.models.zoo.cut import Config as Config
from hepipe.models.zoo.cut import from_released as from_released
from hepipe.models.zoo.cut import misfit as misfit

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
    # Ten times the pyramid: at its own weight, after 1,500 steps of two crops, the contrast had left no DAB.
    "small": cut.PRESETS["small"].model_copy(update={**_PYRAMID, "pyramid_weight": 100.0, "width": 6}),
    "tiny": cut.PRESETS["tiny"].model_copy(update=_PYRAMID),
}


def build(config: Config, parts: Mapping[str, Part]) -> Method:
    """A fresh CUT with a pyramid loss."""
    return cut.Cut(config)
