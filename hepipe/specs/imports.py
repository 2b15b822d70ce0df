"""The section `import` of a data set made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split

Kind = Literal["bci", "bci-clean", "mist", "her2match", "ihc4bc", "folder", "aligned"]
Preset = Literal["bci_paper", "bci_val", "official", "by_slide", "mist4000", "by_case"]

FILES = ("path", "cases", "scores", "names", "labels")
"""Options that are paths: they stay out of artefacts, which hold the digest of what such a file says."""

DEFAULTS: Mapping[Kind, Mapping[str, Any]] = {
    "bci": {"mpp": 0.46, "marker": "HER2", "section": "consecutive", "warped_stain": "he", "preset": "bci_val"},
    "bci-clean": {"mpp": 0.46, "marker": "HER2", "section": "consecutive", "warped_stain": "he", "preset": "bci_paper"},
    "mist": {"mpp": 0.4661, "marker": "HER2", "section": "consecutive", "preset": "official"},
    "her2match": {"marker": "HER2", "section": "restained", "warped_stain": "ihc", "preset": "official"},
    "ihc4bc": {"marker": "HER2", "section": "consecutive", "preset": "by_case"},
    "folder": {"marker": "HER2", "section": "consecutive", "preset": "official"},
    "aligned": {"marker": "HER2", "section": "consecutive", "preset": "official"},
}
"""What is known of each set, µm per px as its authors state it; a config may say otherwise."""

PRESETS: Mapping[Kind, tuple[Preset, ...]] = {
    "bci": ("bci_paper", "bci_val"),
    "bci-clean": ("bci_paper", "bci_val"),
    "mist": ("official", "by_slide", "mist4000"),
    "her2match": ("official",),
    "ihc4bc": ("by_case",),
    "folder": ("official",),
    "aligned": ("official",),
}

DIVIDED_HERE: tuple[Preset, ...] = ("by_slide", "by_case")
"""Presets whose splits are ours: a leak stops such a set, where a published division is flagged alone."""

_ONLY: Mapping[str, tuple[Kind, ...]] = {
    "he": ("folder", "bci", "bci-clean"),
    "ihc": ("folder", "bci", "bci-clean"),
    "score_pattern": ("folder", "aligned"),
    "case_pattern": ("folder", "aligned"),
    "names": ("bci-clean",),
    "scores": ("her2match",),
    "labels": ("ihc4bc",),
    "thin": ("ihc4bc",),
    "split": ("her2match", "folder", "aligned"),
}
_CARVED: tuple[Kind, ...] = ("bci", "bci-clean", "mist")
"""Kinds whose presets take validation out of train."""
_MARKERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("bci", "bci-clean", "her2match"), ("HER2",)),
    **dict.fromkeys(("mist", "ihc4bc"), ("HER2", "ER", "PR", "Ki67")),
}


class ImportSpec(Spec):
    """A tile set made elsewhere; docs/imports.md says what each kind is."""

    revision: Literal[4] = 4
    kind: Kind = Field(
        description="folder: two folders, paired by name; aligned: H&E left, IHC right in one picture; else a set."
    )
    path: str = Field("", description="Folder of the set, relative to `data`.")
    preset: Preset = Field("official", description="How the set is divided; docs/imports.md lists those of each kind.")
    seed: int = Field(1, ge=0, description="Of what a preset draws.")
    validation: int | None = Field(
        None, ge=0, description="Pairs that are taken out of train for validation; empty: the preset's own number."
    )
    he: str = Field("HE", description="Folder of H&E tiles inside `path`.")
    ihc: str = Field("IHC", description="Folder of IHC tiles inside `path`.")
    mpp: float | None = Field(None, gt=0, description="µm per px of the files, which carry none; empty: the set's own.")
    marker: str = "HER2"
    section: Literal["restained", "consecutive"] = "consecutive"
    warped_stain: Literal["he", "ihc", "both", "none", ""] = Field(
        "", description="Which stain was interpolated when the set was made; empty: not said."
    )
    score_pattern: str | None = Field(None, description="Regular expression with one group: the score in a file name.")
    case_pattern: str | None = Field(None, description="Regular expression with one group: the case in a file name.")
    split: Split = Field("test", description="Split of tiles that neither a folder nor a name puts into one.")
    allow_missing: bool = Field(False, description="Drop names that stand on one side only, instead of an error.")
    halve: bool = Field(False, description="Half the resolution: a px is the mean of 2 x 2.")
    quarter: bool = Field(False, description="Four tiles of each, of half its side.")
    thin: bool = Field(True, description="Test on every second row and column of tiles that overlap by half.")
    keep: Literal["original", "pixels"] = Field(
        "original", description="original: JPEG files as they are; pixels: everything in the codec of section store."
    )
    alias: Literal["auto", "always", "never"] = Field(
        "auto", description="Own names in place of slide and case ids; auto: where they look like laboratory numbers."
    )
    terms: str = Field("", description="What you know of the terms, in a sentence; stands beside what the set says.")
    cases: str | None = Field(None, description="CSV with columns name and case, for a set that names none.")
    scores: str | None = Field(None, description="CSV with columns slide and score.")
    names: str | None = Field(None, description="kind bci-clean: list of the names to keep, text or CSV.")
    labels: str | None = Field(None, description="kind ihc4bc: the set's label file.")

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("kind") not in DEFAULTS:
            return values
        kind: Kind = values["kind"]
        for name, kinds in _ONLY.items():
            if kind not in kinds and values.get(name, cls.model_fields[name].default) != cls.model_fields[name].default:
                raise ValueError(f"{name} is an option of kind {', '.join(kinds)}, not of {kind}")
        return {**DEFAULTS[kind], **{name: value for name, value in values.items() if value is not None}}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ImportSpec:
        if self.preset not in PRESETS[self.kind]:
            raise ValueError(f"preset {self.preset}: kind {self.kind} has {', '.join(PRESETS[self.kind])}")
        if self.mpp is None and self.kind != "her2match":
            raise ValueError(f"mpp is missing: kind {self.kind} does not say how many µm a px of its files measures")
        if self.marker not in _MARKERS.get(self.kind, (self.marker,)):
            raise ValueError(f"marker {self.marker}: kind {self.kind} has {', '.join(_MARKERS[self.kind])}")
        if self.validation is not None and (self.kind not in _CARVED or self.preset == "bci_paper"):
            raise ValueError(f"validation: preset {self.preset} of kind {self.kind} takes none out of train")
        if self.preset == "mist4000" and self.quarter:
            raise ValueError("quarter: preset mist4000 ranks and counts whole pairs; leave one of them out")
        return self
