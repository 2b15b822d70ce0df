"""What a data set says of itself: cases, splits, warnings, fingerprint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from hepipe.dataset.audit import LeakAudit
from hepipe.dataset.cases import INSIDE, CaseTiles
from hepipe.dataset.curation import CardCuration
from hepipe.dataset.fingerprint import Fingerprint
from hepipe.dataset.splits import SplitProof, recommendation
from hepipe.dataset.strata import Stratum
from hepipe.dataset.terms import Terms
from hepipe.errors import StoreError
from hepipe.sheet import SCORES, Score
from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split
from hepipe.status import CaseStatus
from hepipe.stores.cases import write_record
from hepipe.stores.provenance import Provenance

SHOWN = 10
"""Names that a warning lists."""


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
    made_of: Fingerprint | None = Field(None, description="What the fingerprint is of, part by part and by case.")
    n_tiles: int
    n_kept: int
    n_outside: int = Field(0, description="Further rows of the index, from beside the tumour regions.")
    cases: tuple[CardCase, ...]
    splits: Mapping[Split, CardSplit]
    strata: tuple[Stratum, ...] = Field((), description="Kept tiles by score and split, or fold.")
    batches: tuple[Stratum, ...] = Field((), description="By score and staining batch; empty without batches.")
    proof: SplitProof | None = Field(None, description="How good the division is; None where none was made here.")
    leaks: LeakAudit | None = Field(None, description="What splits share; None in a card of an earlier version.")
    curation: CardCuration | None = Field(None, description="None where no person has decided anything.")
    imported: Mapping[str, Any] | None = Field(
        None, description="What an import said: counts found and expected, how it is divided, how files are kept."
    )
    terms: tuple[Terms, ...] = Field(
        (), description="Of the imported sets; whatever is made of the tiles inherits all."
    )
    warnings: tuple[str, ...]
    provenance: Provenance


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


def card_case(case: CaseTiles, kept: Sequence[Mapping[str, Any]], n_held: int, chosen: Mapping[str, Split]) -> CardCase:
    """What became of one case, whose tiles `kept` are in the index."""
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


def imported_cases(imported: CaseTiles) -> list[CardCase]:
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


def advice_of(card: DatasetCard) -> str | None:
    """Advice to take folds, where patients are divided here and are few."""
    if card.proof is None:
        return None
    return recommendation(sum(case.split is not None for case in card.cases), card.provenance.spec.get("folds"))


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


def card_split(rows: Sequence[Mapping[str, Any]]) -> CardSplit:
    """What the rows of one split hold."""
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
