"""The section `quality.learned`: a segmentation network of the user's that measures tiles beside the classical ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hepipe.specs.base import Spec

MAX_PX = 4096
"""Side of what the network is given at once."""

Share = Annotated[float, Field(ge=0, le=1)]
PerChannel = tuple[float, float, float]


class LearnedInput(Spec):
    """What the network wants to be given; mean and std stand in the order of its channels."""

    order: Literal["rgb", "bgr"] = Field("rgb", description="Of the channels.")
    range: tuple[float, float] = Field((0.0, 1.0), description="What 0 and 255 become.")
    mean: PerChannel = Field((0.0, 0.0, 0.0), description="Then subtracted.")
    std: PerChannel = Field((1.0, 1.0, 1.0), description="Then divided by.")
    px: int | None = Field(
        None, ge=8, le=MAX_PX, description="Fixed side of a square input; empty: the network takes any side."
    )
    multiple: int = Field(32, ge=1, le=512, description="Without `px`: sides are padded up to a multiple of this.")

    @model_validator(mode="after")
    def _can_be_divided(self) -> LearnedInput:
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, found {self.std}")
        if self.range[0] == self.range[1]:
            raise ValueError(f"range must have two different ends, found {self.range}")
        return self


class LearnedSpec(Spec):
    """An ONNX file in the weights folder that says of each px which class it is; it runs beside the other filters."""

    revision: Literal[1] = 1
    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.onnx$", description="Its name inside the weights folder."
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file; another file is refused.")
    mpp: float = Field(gt=0, le=20, description="µm per px that the network was trained at.")
    stains: tuple[Literal["he", "ihc"], ...] = Field(
        ("he", "ihc"), min_length=1, max_length=2, description="Which tiles it looks at."
    )
    input: LearnedInput = LearnedInput()
    classes: tuple[str, ...] = Field(
        min_length=2, max_length=64, description="Name of each channel of its output, in order."
    )
    drop: Mapping[str, Share] = Field(
        default_factory=dict, description="Class to the largest share of a tile that it may have."
    )

    @field_validator("classes")
    @classmethod
    def _are_names(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        odd = [name for name in classes if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name)]
        if odd:
            raise ValueError(f"small letters, digits and '_' expected, found {', '.join(map(repr, odd))}")
        if len(set(classes)) < len(classes):
            raise ValueError(f"each name once, found {', '.join(classes)}")
        return classes

    @model_validator(mode="after")
    def _drops_its_classes(self) -> LearnedSpec:
        odd = [name for name in self.drop if name not in self.classes]
        if odd:
            raise ValueError(f"drop: no class {', '.join(odd)}; there are {', '.join(self.classes)}")
        if len(set(self.stains)) < len(self.stains):
            raise ValueError(f"stains: each once, found {', '.join(self.stains)}")
        return self

    def measurement(self, name: str, stain: str) -> str:
        """What the share of a class is called in the tile table."""
        return f"learned_{name}_{stain}"
