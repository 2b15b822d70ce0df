"""The section `stains`: stain vectors and DAB masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from hepipe.specs.base import Spec

Triple = tuple[float, float, float]
DabMethod = Literal["otsu_od", "atst", "absolute"]

CLOSE_UM: Mapping[DabMethod, float] = {"otsu_od": 1.0, "absolute": 1.0, "atst": 14.0}
"""ATST-Net's 30 px on MIST, which are 14 µm, bridge nuclei that lie apart; ours only fills gaps within a membrane."""


LEAST_SHIFT_UM = 1.0
"""A closing by the tile's shift is no smaller, unless `dab_close_um` says so."""


class BatchStains(Spec):
    """What a slide of one staining batch takes when its own vectors cannot be found; `hepipe stains pool` proposes."""

    haematoxylin: Triple = Field(description="Optical density per channel (red, green, blue), any length.")
    dab: Triple = Field(description="Likewise.")
    white: Triple | None = Field(None, description="What empty glass shows, where the slide's own cannot be measured.")

    @model_validator(mode="after")
    def _can_be(self) -> BatchStains:
        for name, vector in (("haematoxylin", self.haematoxylin), ("dab", self.dab)):
            if not all(0 <= value <= 10 for value in vector) or sum(vector) < 0.01:
                raise ValueError(f"{name} {vector}: three optical densities of 0 or more expected, not all 0")
        across = [
            self.haematoxylin[(axis + 1) % 3] * self.dab[(axis + 2) % 3]
            - self.haematoxylin[(axis + 2) % 3] * self.dab[(axis + 1) % 3]
            for axis in range(3)
        ]
        lengths = sum(value**2 for value in self.haematoxylin) * sum(value**2 for value in self.dab)
        if sum(value**2 for value in across) < 0.04 * lengths:
            raise ValueError("haematoxylin and dab lie less than 12 degrees apart: they cannot be told from each other")
        if self.white is not None and not all(100 <= value <= 255 for value in self.white):
            raise ValueError(f"white {self.white}: three grey values from 100 to 255 expected")
        return self


class StainsSpec(Spec):
    """How stain vectors and DAB masks are made."""

    revision: Literal[3] = 3
    vectors: Literal["fixed", "macenko", "vahadane"] = Field("macenko", description="How a slide's vectors are found.")
    sample_tiles: int = Field(48, ge=4, description="Windows of tissue that a slide's vectors are estimated from.")
    white: Literal["auto", "fixed"] = Field("auto", description="auto: measured on empty glass; fixed: 255.")
    min_dab_frac: float = Field(
        0.02, ge=0, description="Less DAB than this share of tissue: the vectors of its batch, or the fixed ones."
    )
    batches: Mapping[str, BatchStains] = Field(
        default_factory=dict, description="By the sheet's `batch`: vectors of IHC slides whose own cannot be found."
    )
    dab_method: DabMethod = Field(
        "otsu_od",
        description="otsu_od: Otsu of the light DAB takes; atst: ATST-Net's recipe; absolute: a fixed threshold.",
    )
    dab_thresholds_od: Triple | None = Field(
        None, description="Weak, moderate and strong DAB, calibrated; absolute needs them. In place of dab_calibration."
    )
    dab_sigma_um: float = Field(0.75, ge=0, description="Gaussian before the threshold, µm; not for atst: it has 1 px.")
    dab_open_um: float = Field(
        0.0, ge=0, le=100, description="Radius of the erosion and dilation after it, µm; not for atst: twice 3x3 px."
    )
    dab_close: Literal["radius", "shift"] = Field(
        "radius", description="The closing's radius: dab_close_um, or the tile's shift_um between that and the most."
    )
    dab_close_um: float | None = Field(
        None, ge=0, le=100, description="Radius of the closing, µm; none: 14 for atst, 1 for the others."
    )
    dab_close_most_um: float = Field(14.0, ge=0, le=100, description="With shift: never more, µm.")
    dab_floor_od: float = Field(0.15, ge=0, description="otsu_od: a tile's threshold is never below this DAB index.")

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> StainsSpec:
        if self.dab_thresholds_od is not None:
            weak, moderate, strong = self.dab_thresholds_od
            if not 0 < weak < moderate < strong:
                raise ValueError(f"dab_thresholds_od {self.dab_thresholds_od}: three ascending values above 0 expected")
        elif self.dab_method == "absolute":
            raise ValueError(
                "dab_method absolute needs thresholds: `hepipe stains calibrate` finds them; name its file as "
                "dab_calibration, or give dab_thresholds_od"
            )
        if self.dab_close == "shift" and self.dab_close_most_um < self.least_close_um:
            raise ValueError(
                f"dab_close_most_um {self.dab_close_most_um:g} is below the least, {self.least_close_um:g}"
            )
        return self

    @property
    def least_close_um(self) -> float:
        """Radius of the closing, or the least of it where the tile's shift gives it, µm."""
        if self.dab_close_um is not None:
            return self.dab_close_um
        return CLOSE_UM[self.dab_method] if self.dab_close == "radius" else LEAST_SHIFT_UM

    def of_batch(self, batch: str | None) -> StainsSpec:
        """The same with no batch but this: vectors of another one are no business of its cases."""
        own = {name: stains for name, stains in self.batches.items() if name == batch}
        return self.model_copy(update={"batches": own})
