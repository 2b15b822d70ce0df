"""The section `synth` of a data set that is drawn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hepipe.specs.base import Spec

SYNTH_MPP = 0.5


class SynthSpec(Spec):
    """A synthetic cohort: its case ids follow from these values."""

    revision: Literal[1] = 1
    patients: int = Field(12, ge=1, le=10_000)
    seed: int = Field(1, ge=0)
    side_um: float = Field(1200.0, ge=400, le=3000, description="Side of a slide, µm; drawn in memory: 1.5 GB at 1200.")
    section: Literal["restained", "consecutive"] = "restained"
    artifacts: bool = Field(True, description="Plant pen, fold, blur, bubble and so on.")
    pairs: int = Field(12, ge=0, description="Aligned tile pairs written beside the slides, for imports.")
    pair_px: int = Field(256, ge=32, description="Side of those pairs, px.")
