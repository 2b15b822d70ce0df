"""The sections `slides` and `tissue`: how slide files are opened, and what of them is tissue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from hepipe.specs.base import Spec


class SlidesSpec(Spec):
    """How slide files are opened and checked."""

    revision: Literal[3] = 3
    readers: tuple[Literal["direct", "openslide", "tiffslide", "picture"], ...] = Field(
        ("direct", "openslide", "tiffslide", "picture"),
        min_length=1,
        description="Tried in this order; the one that opened a slide stands in its artefacts. direct: tiles decoded "
        "here, where their pixels are openslide's.",
    )
    icc: Literal["as_scanned", "srgb"] = Field(
        "as_scanned", description="srgb: pixels are converted as they are read, where a slide carries a profile."
    )
    mpp_tolerance: float = Field(0.01, ge=0, lt=0.2, description="How much finer than level 0 a read may ask.")
    min_tissue_mm2: float = Field(0.05, ge=0, description="A slide with less tissue than this is empty, mm².")
    max_dark_frac: float = Field(0.6, gt=0, le=1, description="More than this share dark: not a brightfield slide.")


Region = Literal["tumour", "invasive", "in_situ", "normal", "necrosis", "control", "exclude"]
"""What a person has outlined on the H&E slide; `tumour` does not say which."""


RegionName = Region | Literal["ignore"]


class TissueSpec(Spec):
    """How tissue is found on both slides."""

    revision: Literal[3] = 3
    mpp: float = Field(8.0, gt=0, description="Resolution of the masks, µm per px; coarser slides use their own.")
    channel: Literal["saturation", "od"] = Field("od", description="What Otsu's threshold is taken of.")
    close_um: float = Field(24.0, ge=0, description="Radius of the closing, µm.")
    min_hole_um2: float = Field(10_000.0, ge=0, description="Holes smaller than this are filled, µm².")
    min_piece_um2: float = Field(20_000.0, ge=0, description="Pieces smaller than this are dropped, µm².")
    region_names: Mapping[str, RegionName] = Field(
        {}, description="Names of QuPath's classes beside the known ones, in small letters, to ours or to `ignore`."
    )
