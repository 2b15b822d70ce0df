"""The configuration's sections `tiling` and `store`: where tiles are cut, and how they are kept.

Light like `config.py`, which the Snakefile imports.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hepipe.specs.base import Spec


class TilingSpec(Spec):
    """How registered pairs are cut into tiles."""

    revision: Literal[5] = 5
    mpp: float = Field(0.5, gt=0, description="Resolution of the stored tiles, µm per px.")
    tile_px: int = Field(512, gt=0, description="Side of a square tile, px at `mpp`.")
    overlap_px: int = Field(0, ge=0, description="Margin shared by neighbours, px at `mpp`.")
    min_tissue_frac: float = Field(0.6, ge=0, le=1, description="Keep a tile when at least this share is tissue.")
    origin: Literal["canvas", "tissue"] = Field(
        "canvas", description="Where the grid starts: the corner of all that the scanner could see, or of the tissue."
    )
    kernel: Literal["area", "area_level0"] = Field(
        "area", description="A px is the mean of the area it covers, of the nearest finer level or always of level 0."
    )
    inside: tuple[Literal["tumour", "invasive", "in_situ", "normal", "necrosis"], ...] = Field(
        ("tumour", "invasive", "in_situ"),
        min_length=1,
        description="Where regions of these are outlined, tiles come from them.",
    )
    outside_frac: float = Field(
        0.02, ge=0, le=1, description="Share of the tissue tiles beside them that is kept for tests, never trained on."
    )

    @model_validator(mode="after")
    def _tiles_advance(self) -> TilingSpec:
        if self.overlap_px >= self.tile_px:
            raise ValueError(
                f"overlap_px ({self.overlap_px}) must be smaller than tile_px ({self.tile_px}), "
                "or neighbouring tiles never advance"
            )
        return self


class StoreSpec(Spec):
    """How tiles are kept; docs/tile-store.md compares the codecs."""

    revision: Literal[1] = 1
    codec: Literal["greendelta", "jxl", "zstd", "jpeg", "raw", "passthrough"] = Field(
        "greendelta",
        description="greendelta: for training; jxl: for archives; zstd, raw: for readers without hepipe; jpeg: with "
        "loss; passthrough: the scanner's own JPEGs, where the grid falls on them.",
    )
    level: int | None = Field(
        None, ge=1, le=22, description="Of zstd, or effort of jxl up to 10; empty: the codec's own, 1 (zstd alone: 3)."
    )
    quality: int = Field(90, ge=1, le=100, description="Of jpeg.")
    subsampling: Literal["444", "422", "420"] = Field("420", description="Of the chroma of jpeg.")
    otherwise: Literal["greendelta", "jxl", "zstd", "jpeg", "raw"] = Field(
        "greendelta", description="With passthrough: what tiles are kept in that are warped or fall between JPEGs."
    )
    tiles_per_shard: int | None = Field(
        None, ge=1, le=4096, description="Tiles in a file; empty: 64 to 512, about 50 MB of encoded tiles."
    )

    @model_validator(mode="after")
    def _level_is_an_effort(self) -> StoreSpec:
        if self.level is not None and self.level > 10 and "jxl" in (self.codec, self.otherwise):
            raise ValueError(f"level {self.level}: jxl takes an effort of 1 to 10")
        return self
