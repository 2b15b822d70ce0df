"""The section `stains`: stain vectors and DAB masks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hepipe.specs.base import Spec


class StainsSpec(Spec):
    """How stain vectors and DAB masks are made."""

    revision: Literal[1] = 1
    vectors: Literal["fixed", "macenko", "vahadane"] = Field("macenko", description="How a slide's vectors are found.")
    sample_tiles: int = Field(48, ge=4, description="Windows of tissue that a slide's vectors are estimated from.")
    white: Literal["auto", "fixed"] = Field("auto", description="auto: measured on empty glass; fixed: 255.")
    min_dab_frac: float = Field(0.02, ge=0, description="Less DAB than this share of tissue: the fixed vectors.")
    dab_sigma_um: float = Field(0.75, ge=0, description="Gaussian before Otsu, µm.")
    dab_open_um: float = Field(0.0, ge=0, description="Radius of the erosion and dilation after Otsu, µm.")
    dab_close_um: float = Field(1.0, ge=0, description="Radius of the mask's closing, µm.")
    dab_floor_od: float = Field(0.15, ge=0, description="A tile's threshold is never below this optical density.")
