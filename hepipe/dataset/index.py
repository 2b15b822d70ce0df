"""From the tiles and verdicts of all cases to one index with splits, and the card that describes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from hepipe.config import Spec, Split, SplitsSpec
from hepipe.dataset.fingerprint import fingerprint
from hepipe.dataset.splits import SPLITS, Patient, assign
from hepipe.errors import StoreError
from hepipe.sheet import SCORES, Score
from hepipe.status import CaseStatus, review
from hepipe.stores.arrays import Registered, open_group, read_registered
from hepipe.stores.cases import read_checked, read_stains, write_record
from hepipe.stores.provenance import Provenance, digest
from hepipe.stores.tables import TILES, VERDICTS, read_provenance, read_table

IMPORTED = "imported"
SHOWN = 10
"""Names that a warning lists."""
INSIDE = "inside"
"""`place` of the tiles that are trained and tested on."""


class CardCase(Spec):
    """What became of one case."""

    case_id: str
    patient_id: str | None
    her2_score: Score | None
    split: Split | None = Field(description="None where no tile is left.")
    n_tiles: int
    n_kept: int
    n_outside: int = Field(0, description="Kept for tests alone, as they lie beside the tumour regions.")
    n_held: int = Field(0, description="Tiles that pass but wait for a person's word on a pair in review.")
    status: CaseStatus


class CardSplit(Spec):
    """What a split holds, in kept tiles and those they come from."""

    tiles: int
    outside: int = Field(0, description="Further tiles from beside the tumour regions, never trained on.")
    patients: int
    cases: int
    by_score: Mapping[str, int] = Field(description="Score to patients; to tiles where patients are unknown.")


class DatasetCard(Spec):
    """What a data set is."""

    name: str
    fingerprint: str
    n_tiles: int
    n_kept: int
    n_outside: int = Field(0, description="Further rows of the index, from beside the tumour regions.")
    cases: tuple[CardCase, ...]
    splits: Mapping[Split, CardSplit]
    warnings: tuple[str, ...]
    provenance: Provenance


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
        readers: Stain to who decodes its slide.
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
        raise StoreError(f"{verdict_path}: verdicts on other tiles than {tiles_path.name} has; run grade_case again")
    of_tiles, of_verdict = read_provenance(tiles_path), read_provenance(verdict_path)
    of_stains = read_stains(folder / "stains" / f"{case_id}.json").provenance
    specs = {made.artefact: made.spec for made in (of_stains, of_tiles, of_verdict)}
    if case_id == IMPORTED:
        return CaseTiles(case_id, None, None, None, tiles, keep, of_verdict.status, specs, "", alignment=alignment)
    checked = read_checked(folder / "checked" / f"{case_id}.json")
    registered = read_registered(folder / "registered" / f"{case_id}.zarr")
    _, of_tissue = open_group(folder / "tissue" / f"{case_id}.zarr", "tissue")
    specs |= {made.artefact: made.spec for made in (registered.provenance, of_tissue)}
    slides = {stain: facts for stain, facts in (("he", checked.he), ("ihc", checked.ihc)) if facts}
    return CaseTiles(
        case_id,
        checked.patient_id,
        checked.her2_score,
        checked.split,
        tiles,
        keep,
        of_verdict.status,
        specs,
        registered.digest,
        held=checked.accepted != "yes" and _in_review(registered),
        alignment=alignment,
        icc={stain: facts.icc_sha256 for stain, facts in slides.items()},
        readers={stain: facts.decoded_by for stain, facts in slides.items()},
    )


def _in_review(registered: Registered) -> bool:
    """Whether a person should look at the registration; the case's own state may name an earlier stage's doubt."""
    status = registered.provenance.status
    return registered.summary.get("verdict") == "review" or (status.state, status.stage) == ("review", "registration")


def assemble(name: str, cases: Sequence[CaseTiles], spec: SplitsSpec) -> tuple[list[dict[str, Any]], DatasetCard]:
    """The rows of the index (kept tiles by tile id) and the card.

    Patients are divided by `spec`; an imported set keeps the splits it came with. Tiles of a pair in review are left
    out until a person accepts it; a warning counts them.
    """
    passed = {case.case_id: [tile for tile in case.tiles if case.keep[tile["tile_id"]]] for case in cases}
    held = {case.case_id: len(passed[case.case_id]) for case in cases if case.held}
    kept = {case.case_id: [] if case.held else passed[case.case_id] for case in cases}
    used = {case_id: [tile for tile in tiles if tile["place"] == INSIDE] for case_id, tiles in kept.items()}
    patients = _patients([case for case in cases if case.case_id != IMPORTED], used)
    chosen, warnings = assign(patients, spec)
    rows = []
    for case in cases:
        # Without a tile to train or test on a patient has no split, and tiles from beside the tumour none to lie in.
        for tile in kept[case.case_id] if used[case.case_id] else ():
            split = tile["source_split"] if case.case_id == IMPORTED else chosen[str(case.patient_id)]
            rows.append(
                {
                    **tile,
                    "store": f"tiles/{case.case_id}.zarr",
                    "split": split,
                    "alignment": case.alignment[tile["tile_id"]],
                    "he_reader": case.readers.get("he"),
                    "ihc_reader": case.readers.get("ihc"),
                }
            )
    rows.sort(key=lambda row: str(row["tile_id"]))
    described = [
        _card_case(case, kept[case.case_id], held.get(case.case_id, 0), chosen)
        for case in cases
        if case.case_id != IMPORTED
    ]
    for case in cases:
        if case.case_id == IMPORTED:
            described += _imported_cases(case)
            warnings += _import_warnings(case)
    warnings += _held_back(held)
    warnings += _pixels_shared(rows)
    warnings += profile_warnings({case.case_id: case.icc for case in cases if used[case.case_id]})
    specs = {**_specs_used(cases), "splits": spec.model_dump(mode="json")}
    transforms = {case.case_id: case.transform for case in cases if kept[case.case_id] and case.transform}
    card = DatasetCard(
        name=name,
        fingerprint=fingerprint(rows, specs=specs, transforms=transforms),
        n_tiles=sum(len(case.tiles) for case in cases),
        n_kept=sum(row["place"] == INSIDE for row in rows),
        n_outside=sum(row["place"] != INSIDE for row in rows),
        cases=tuple(sorted(described, key=lambda case: case.case_id)),
        splits={split: _card_split([row for row in rows if row["split"] == split]) for split in SPLITS},
        warnings=tuple(warnings if rows else ["no tile is kept in any case", *warnings]),
        provenance=Provenance(
            artefact="dataset", subject=name, spec=spec.model_dump(mode="json"), status=_status(cases)
        ),
    )
    return rows, card


def write_card(path: Path, card: DatasetCard) -> None:
    """Store the card whole."""
    write_record(path, card)


def read_card(path: Path) -> DatasetCard:
    """A stored card.

    Raises:
        StoreError: Missing or of another version.
    """
    try:
        return DatasetCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        raise StoreError(f"{path}: not a readable card ({type(error).__name__}); run assemble again") from None


def _patients(cases: Sequence[CaseTiles], kept: Mapping[str, Sequence[object]]) -> list[Patient]:
    """Patients with at least one kept tile; the others need no split."""
    found: dict[str, Patient] = {}
    for case in cases:
        if not kept[case.case_id]:
            continue
        own = frozenset[Score]() if case.her2_score is None else frozenset({case.her2_score})
        patient_id = str(case.patient_id)
        before = found.get(patient_id, Patient(patient_id, 0, frozenset(), None))
        found[patient_id] = Patient(
            patient_id,
            before.tiles + len(kept[case.case_id]),
            before.scores | own,
            before.fixed or case.fixed,
        )
    return list(found.values())


def _card_case(
    case: CaseTiles, kept: Sequence[Mapping[str, Any]], n_held: int, chosen: Mapping[str, Split]
) -> CardCase:
    n_kept = sum(tile["place"] == INSIDE for tile in kept)
    return CardCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        her2_score=case.her2_score,
        split=chosen[str(case.patient_id)] if n_kept else None,
        n_tiles=len(case.tiles),
        n_kept=n_kept,
        n_outside=len(kept) - n_kept if n_kept else 0,
        n_held=n_held,
        status=case.status,
    )


def _held_back(held: Mapping[str, int]) -> list[str]:
    return [
        f"case {case_id} is in review: {count} tiles held back; look at its overlay and write yes or no into column "
        "accepted of the slide sheet"
        for case_id, count in sorted(held.items())
        if count
    ]


def _imported_cases(imported: CaseTiles) -> list[CardCase]:
    """The cases that an imported set names; one case in two splits is listed in the split of its first tile."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for tile in imported.tiles:
        if tile["case_id"] is not None:
            groups.setdefault(tile["case_id"], []).append(tile)
    described = []
    for case_id, tiles in groups.items():
        scores = {tile["her2_score"] for tile in tiles}
        splits = [tile["source_split"] for tile in tiles if imported.keep[tile["tile_id"]]]
        described.append(
            CardCase(
                case_id=case_id,
                patient_id=tiles[0]["patient_id"],
                her2_score=scores.pop() if len(scores) == 1 else None,
                split=splits[0] if splits else None,
                n_tiles=len(tiles),
                n_kept=len(splits),
                status=imported.status,
            )
        )
    return described


def _import_warnings(imported: CaseTiles) -> list[str]:
    warnings = []
    unknown = sum(tile["case_id"] is None for tile in imported.tiles)
    if unknown:
        warnings.append(f"cases unknown for {unknown} imported tiles: no interval over cases, no new split")
    splits: dict[str, set[str]] = {}
    for tile in imported.tiles:
        if tile["case_id"] is not None:
            splits.setdefault(tile["case_id"], set()).add(tile["source_split"])
    shared = sorted(case_id for case_id, seen in splits.items() if len(seen) > 1)
    if shared:
        warnings.append(f"cases in more than one split of the imported set: {', '.join(shared)}")
    return warnings


def profile_warnings(icc: Mapping[str, Mapping[str, str | None]]) -> list[str]:
    """Pairs and stains whose slides carry different colour profiles: tiles keep the pixels as scanned.

    Args:
        icc: Case to stain to the profile's hash.
    """
    unlike = sorted(case_id for case_id, pair in icc.items() if len(set(pair.values())) > 1)
    warnings = []
    if unlike:
        more = f" and {len(unlike) - SHOWN} more" if len(unlike) > SHOWN else ""
        warnings.append(f"H&E and IHC carry different colour profiles in {', '.join(unlike[:SHOWN])}{more}")
    for stain, name in (("he", "H&E"), ("ihc", "IHC")):
        counts = Counter(pair[stain] for pair in icc.values() if stain in pair)
        if len(counts) > 1:
            shares = ", ".join(
                f"{'none' if profile is None else profile[:8]} in {count}" for profile, count in counts.most_common()
            )
            warnings.append(f"{name} slides carry {len(counts)} colour profiles: {shares} of {counts.total()} cases")
    return warnings


def _pixels_shared(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tiles of two splits with the same H&E pixels: a leak, whatever the ids say."""
    first: dict[str, Mapping[str, Any]] = {}
    warnings = []
    for row in rows:
        other = first.setdefault(row["he_sha256"], row)
        if other["split"] != row["split"]:
            warnings.append(
                f"tile {row['tile_id']} ({row['split']}) has the pixels of {other['tile_id']} ({other['split']})"
            )
    return warnings[:20]


def _card_split(rows: Sequence[Mapping[str, Any]]) -> CardSplit:
    outside = sum(row["place"] != INSIDE for row in rows)
    patients = {row["patient_id"] for row in rows} - {None}
    cases = {row["case_id"] for row in rows} - {None}
    key = "patient_id" if patients else "tile_id"
    by_score = {
        score: len({row[key] for row in rows if row["her2_score"] == score})
        for score in [*SCORES, None]
        if any(row["her2_score"] == score for row in rows)
    }
    return CardSplit(
        tiles=len(rows) - outside,
        outside=outside,
        patients=len(patients),
        cases=len(cases),
        by_score={"unknown" if score is None else score: count for score, count in by_score.items()},
    )


def _specs_used(cases: Sequence[CaseTiles]) -> dict[str, Any]:
    """Each stage's distinct settings; several only when cases were made with different ones."""
    used: dict[str, dict[str, Any]] = {}
    for case in cases:
        for stage, section in case.specs.items():
            used.setdefault(stage, {})[digest(section)] = section
    return {stage: [found[key] for key in sorted(found)] for stage, found in sorted(used.items())}


def _status(cases: Sequence[CaseTiles]) -> CaseStatus:
    worst = CaseStatus()
    for case in cases:
        # One failed case leaves a data set that can be used; the card names it.
        own = case.status
        worst = worst.then(review("dataset", f"case {case.case_id} failed: {own.reason}") if own.failed else own)
    return worst
