"""Records of one case as JSON: what `check_slides` found, and the stains of its two slides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from hepipe.errors import StoreError
from hepipe.geometry import GivenMpp, MppFrom
from hepipe.sheet import Score
from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split
from hepipe.stores.provenance import Provenance

Record = TypeVar("Record", bound=Spec)


class SlideFacts(Spec):
    """Properties of one slide that may leave: no name, path, vendor text or date."""

    slide_id: str
    reader: Literal["direct", "openslide", "tiffslide", "picture"]
    format: str
    mpp: float
    mpp_from: MppFrom
    size_px0: tuple[int, int]
    origin_px0: tuple[int, int]
    downsamples: tuple[float, ...]
    tissue_mm2: float
    content_sha256: str
    content_of: Literal["tiles", "pixels"] = "tiles"
    file_sha256: str = ""
    icc_sha256: str | None = None
    not_direct: str = ""
    color: str = "as_scanned"

    @property
    def decoded_by(self) -> str:
        """The reader, and why it is not the direct one."""
        return f"{self.reader}: {self.not_direct}" if self.not_direct else self.reader


class CheckedCase(Spec):
    """One pair by ids."""

    case_id: str
    patient_id: str
    marker: str
    her2_score: Score | None
    section: Literal["restained", "consecutive"]
    split: Split | None = None
    batch: str | None = None
    start: Literal["landmarks"] | None = None
    accepted: Literal["yes", "no"] | None = None
    pieces: str | None = None
    he: SlideFacts | None = None
    ihc: SlideFacts | None = None
    provenance: Provenance

    @property
    def mpp_unknown(self) -> bool:
        """Whether nobody knows what a px of one slide measures: then every length of the pair is in px of level 0."""
        return any(facts is not None and facts.mpp_from == "unknown" for facts in (self.he, self.ihc))

    def mpp_to_open(self, facts: SlideFacts) -> GivenMpp:
        """What a slide of this pair is opened with; one unknown pixel size leaves none of the two to go by."""
        return "unknown" if self.mpp_unknown else facts.mpp


class SlideStains(Spec):
    """How the two stains of one slide are separated; vectors are unit optical densities (red, green, blue)."""

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    white: tuple[float, float, float]
    white_from: Literal["slide", "batch", "fixed"] = "slide"
    method: Literal["fixed", "macenko", "vahadane", "batch"]
    notes: tuple[str, ...] = ()
    n_pixels: int
    dab_frac: float | None = None


class CaseStains(Spec):
    """Stains of a pair: haematoxylin and eosin, haematoxylin and DAB. None for a failed case."""

    case_id: str
    batch: str | None = None
    he: SlideStains | None = None
    ihc: SlideStains | None = None
    provenance: Provenance


def write_stains(path: Path, stains: CaseStains) -> None:
    """Store the record whole."""
    write_record(path, stains)


def read_stains(path: Path) -> CaseStains:
    """The stains of a case.

    Raises:
        StoreError: Missing or of another version.
    """
    return _read(path, CaseStains, "estimate_stains")


def write_checked(path: Path, case: CheckedCase) -> None:
    """Store the record whole."""
    write_record(path, case)


def read_checked(path: Path) -> CheckedCase:
    """The record of a case.

    Raises:
        StoreError: Missing or of another version.
    """
    return _read(path, CheckedCase, "check_slides")


def write_record(path: Path, record: Spec) -> None:
    """Store any record whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def _read(path: Path, kind: type[Record], rule: str) -> Record:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        raise StoreError(f"{path}: not a readable record ({type(error).__name__}); run {rule} again") from None
