"""Records of one case as JSON: what `check_slides` found, and the stains of its two slides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from hepipe.config import Spec, Split
from hepipe.errors import StoreError
from hepipe.sheet import Score
from hepipe.stores.provenance import Provenance

Record = TypeVar("Record", bound=Spec)


class SlideFacts(Spec):
    """Properties of one slide that may leave: no name, path, vendor text or date."""

    slide_id: str
    reader: Literal["openslide", "tiffslide", "picture"]
    format: str
    mpp: float
    mpp_from: Literal["file", "sheet"]
    size_px0: tuple[int, int]
    origin_px0: tuple[int, int]
    downsamples: tuple[float, ...]
    tissue_mm2: float
    content_sha256: str
    icc_sha256: str | None = None


class CheckedCase(Spec):
    """One pair by ids."""

    case_id: str
    patient_id: str
    marker: str
    her2_score: Score | None
    section: Literal["restained", "consecutive"]
    split: Split | None = None
    batch: str | None = None
    accepted: Literal["yes", "no"] | None = None
    he: SlideFacts | None = None
    ihc: SlideFacts | None = None
    provenance: Provenance


def write_checked(path: Path, case: CheckedCase) -> None:
    """Store the record whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(case.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_checked(path: Path) -> CheckedCase:
    """The record of a case.

    Raises:
        StoreError: Missing or of another version.
    """
    try:
        return CheckedCase.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        raise StoreError(f"{path}: not a readable record ({type(error).__name__}); run check_slides again") from None
