"""What the stages left of one case, or of an imported set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hepipe.errors import StoreError
from hepipe.sheet import Score
from hepipe.specs.dataset import Split
from hepipe.status import CaseStatus
from hepipe.stores.arrays import Registered, open_group, read_registered
from hepipe.stores.cases import read_checked, read_stains
from hepipe.stores.provenance import Provenance, digest
from hepipe.stores.tables import TILES, VERDICTS, read_provenance, read_table

IMPORTED = "imported"
INSIDE = "inside"
"""`place` of the tiles that are trained and tested on."""


@dataclass(frozen=True)
class CaseTiles:
    """The tables of one case, or of a whole imported set.

    Attributes:
        case_id: Or `imported`.
        patient_id: None for an import.
        her2_score: None for an import, or where the sheet says nothing.
        fixed: Split that the sheet asks for.
        tiles: Rows of the tile table.
        keep: Tile id to whether it passed.
        alignment: Tile id to its class of alignment.
        status: The case's verdict after grading.
        specs: Stage to the config section it ran with.
        transform: Digest of the registration.
        held: The pair's registration is in review and no person has accepted it: its tiles stay out of the index.
        icc: Stain to the SHA-256 of its slide's colour profile, None for a slide that carries none.
        readers: Stain to who decodes its slide, and why not directly.
        slides: Stain to the content digest of its slide.
        decoded: Stain to who decodes its slide, and into which colours.
        decoders: Stain to the library that decoded its tiles, with version.
        stains: Digest of the stain vectors and white points.
        versions: Stage to the version of hepipe that it ran with.
        side_px0: Side of its tiles, px of level 0 of the H&E; 0 where unknown.
        told: What an import said of its set: counts, division, warnings, terms; empty for a case of slides.
    """

    case_id: str
    patient_id: str | None
    her2_score: Score | None
    fixed: Split | None
    tiles: Sequence[Mapping[str, Any]]
    keep: Mapping[str, bool]
    status: CaseStatus
    specs: Mapping[str, Any]
    transform: str
    held: bool = False
    alignment: Mapping[str, str] = field(default_factory=dict)
    icc: Mapping[str, str | None] = field(default_factory=dict)
    readers: Mapping[str, str] = field(default_factory=dict)
    slides: Mapping[str, str] = field(default_factory=dict)
    decoded: Mapping[str, str] = field(default_factory=dict)
    decoders: Mapping[str, str] = field(default_factory=dict)
    stains: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    side_px0: float = 0.0
    told: Mapping[str, Any] = field(default_factory=dict)


def read_case(folder: Path, case_id: str) -> CaseTiles:
    """What the stages left of one case in a data set's results folder.

    Raises:
        StoreError: An artefact is missing, or tiles and verdicts are not of the same run.
    """
    tiles_path = folder / "tiles" / f"{case_id}.parquet"
    verdict_path = folder / "verdict" / f"{case_id}.parquet"
    tiles = read_table(tiles_path, TILES)
    verdicts = read_table(verdict_path, VERDICTS)
    keep = {row["tile_id"]: bool(row["keep"]) for row in verdicts}
    alignment = {row["tile_id"]: str(row["alignment"]) for row in verdicts}
    if {row["tile_id"] for row in tiles} != keep.keys():
        raise StoreError(f"{verdict_path}: verdicts on other tiles than {tiles_path.name} has; run grade_tiles again")
    of_tiles, of_verdict = read_provenance(tiles_path), read_provenance(verdict_path)
    record = read_stains(folder / "stains" / f"{case_id}.json")
    stages = [record.provenance, of_tiles, of_verdict]
    vectors = digest([None if one is None else one.model_dump(mode="json") for one in (record.he, record.ihc)])
    if case_id == IMPORTED:
        return CaseTiles(
            case_id,
            None,
            None,
            None,
            tiles,
            keep,
            of_verdict.status,
            _specs(stages),
            "",
            alignment=alignment,
            decoders=dict(of_tiles.told.get("decoders", {})),
            stains=vectors,
            versions=_versions(stages),
            side_px0=float(of_tiles.told.get("side_px0", 0)),
            told=of_tiles.told,
        )
    checked = read_checked(folder / "checked" / f"{case_id}.json")
    registered = read_registered(folder / "registered" / f"{case_id}.zarr")
    _, of_tissue = open_group(folder / "tissue" / f"{case_id}.zarr", "tissue")
    stages += [checked.provenance, registered.provenance, of_tissue]
    slides = {stain: facts for stain, facts in (("he", checked.he), ("ihc", checked.ihc)) if facts}
    return CaseTiles(
        case_id,
        checked.patient_id,
        checked.her2_score,
        checked.split,
        tiles,
        keep,
        of_verdict.status,
        _specs(stages),
        registered.digest,
        held=checked.accepted != "yes" and _in_review(registered),
        alignment=alignment,
        icc={stain: facts.icc_sha256 for stain, facts in slides.items()},
        readers={stain: facts.decoded_by for stain, facts in slides.items()},
        slides={stain: facts.content_sha256 for stain, facts in slides.items()},
        decoders=dict(of_tiles.told.get("decoders", {})),
        decoded={stain: f"{facts.reader}, {facts.color}" for stain, facts in slides.items()},
        stains=vectors,
        versions=_versions(stages),
        side_px0=_side_px0(of_tiles.spec, checked.he.mpp) if checked.he else 0.0,
    )


def _side_px0(tiling: Mapping[str, Any], mpp: float) -> float:
    return float(tiling.get("tile_px", 0) * tiling.get("mpp", 0) / mpp)


def _specs(stages: Sequence[Provenance]) -> dict[str, Any]:
    return {made.artefact: made.spec for made in stages}


def _versions(stages: Sequence[Provenance]) -> dict[str, str]:
    return {made.artefact: made.version for made in stages}


def _in_review(registered: Registered) -> bool:
    """Whether a person should look at the registration; the case's own state may name an earlier stage's doubt."""
    status = registered.provenance.status
    return registered.summary.get("verdict") == "review" or (status.state, status.stage) == ("review", "registration")
