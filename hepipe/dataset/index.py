"""From the tiles and verdicts of all cases to one index with splits, and the card that describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hepipe.dataset.audit import LeakAudit, Pixels, audit, refuse
from hepipe.dataset.card import DatasetCard, card_case, card_split, imported_cases, profile_warnings
from hepipe.dataset.cases import IMPORTED, INSIDE, CaseTiles
from hepipe.dataset.curation import Curated
from hepipe.dataset.fingerprint import fingerprint, mixed_versions
from hepipe.dataset.splits import SPLITS, Patient, assign
from hepipe.dataset.strata import batch_warnings, by_batch, by_split
from hepipe.dataset.terms import merged_terms, told_terms
from hepipe.errors import ConfigError
from hepipe.specs.dataset import SplitsSpec
from hepipe.specs.imports import DIVIDED_HERE
from hepipe.status import CaseStatus, review
from hepipe.stores.provenance import Provenance


def assemble(
    name: str,
    cases: Sequence[CaseTiles],
    spec: SplitsSpec,
    *,
    curated: Curated | None = None,
    pixels: Pixels | None = None,
) -> tuple[list[dict[str, Any]], DatasetCard]:
    """The rows of the index (kept tiles by tile id) and the card.

    Patients are divided by `spec`; an imported set keeps the splits it came with. Tiles of a pair in review are left
    out until a person accepts it; a warning counts them.

    Args:
        name: Of the data set.
        cases: With what people decided in their `keep`, as `curate` gives them.
        spec: How patients are divided.
        curated: What those decisions did; told in the card, and part of the fingerprint.
        pixels: Reads the H&E tile of a row, to look at near-duplicates; None goes by their hashes alone.

    Raises:
        ConfigError: Fixed splits that contradict each other, or splits of our own that leak.
    """
    curated = curated or Curated()
    passed = {case.case_id: [tile for tile in case.tiles if case.keep[tile["tile_id"]]] for case in cases}
    held = {case.case_id: len(passed[case.case_id]) for case in cases if case.held}
    kept = {case.case_id: [] if case.held else passed[case.case_id] for case in cases}
    used = {case_id: [tile for tile in tiles if tile["place"] == INSIDE] for case_id, tiles in kept.items()}
    patients = _patients([case for case in cases if case.case_id != IMPORTED], used)
    division = assign(patients, spec)
    chosen, warnings = division.splits, list(division.warnings)
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
                    "fold": None if case.case_id == IMPORTED else division.folds.get(str(case.patient_id)),
                    "alignment": case.alignment[tile["tile_id"]],
                    "he_reader": case.readers.get("he"),
                    "ihc_reader": case.readers.get("ihc"),
                }
            )
    rows.sort(key=lambda row: str(row["tile_id"]))
    described = [
        card_case(case, kept[case.case_id], held.get(case.case_id, 0), chosen)
        for case in cases
        if case.case_id != IMPORTED
    ]
    imported: dict[str, Any] | None = None
    for case in cases:
        if case.case_id == IMPORTED:
            described += imported_cases(case)
            warnings += _import_warnings(case)
            imported = {key: value for key, value in case.told.items() if key not in ("terms", "warnings")}
    warnings += curated.warnings
    warnings += _held_back(held)
    leaks = _audited(rows, cases, spec, pixels)
    refuse(leaks, near_duplicates=spec.near_duplicates)
    strata = by_split(rows, division.proof.wanted if division.proof is not None else ())
    batches = by_batch(rows)
    warnings += [f"leak: {line}" for line in leaks.lines()]
    warnings += leaks.notes
    warnings += batch_warnings(batches)
    warnings += profile_warnings({case.case_id: case.icc for case in cases if used[case.case_id]})
    told = curated.card
    made = fingerprint(
        rows,
        cases,
        splits=spec.model_dump(mode="json"),
        curation={} if told is None else told.model_dump(mode="json", include={"rule", "keep_overrides", "digest"}),
    )
    warnings += mixed_versions(made)
    card = DatasetCard(
        name=name,
        fingerprint=made.digest,
        made_of=made,
        n_tiles=sum(len(case.tiles) for case in cases),
        n_kept=sum(row["place"] == INSIDE for row in rows),
        n_outside=sum(row["place"] != INSIDE for row in rows),
        cases=tuple(sorted(described, key=lambda case: case.case_id)),
        splits={split: card_split([row for row in rows if row["split"] == split]) for split in SPLITS},
        strata=strata,
        batches=batches,
        proof=division.proof,
        leaks=leaks,
        curation=curated.card,
        imported=imported,
        terms=merged_terms(*(told_terms(case.told) for case in cases)),
        warnings=tuple(warnings if rows else ["no tile is kept in any case", *warnings]),
        provenance=Provenance(
            artefact="dataset",
            subject=name,
            spec=spec.model_dump(mode="json"),
            inputs={} if curated.card is None else {"curation": curated.card.digest},
            status=_status(cases),
        ),
    )
    return rows, card


def _patients(cases: Sequence[CaseTiles], kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Patient]:
    """Patients with at least one kept tile; the others need no split."""
    found: dict[str, list[CaseTiles]] = {}
    for case in cases:
        if kept[case.case_id]:
            found.setdefault(str(case.patient_id), []).append(case)
    patients = []
    for patient_id, own in found.items():
        tiles = [tile for case in own for tile in kept[case.case_id]]
        dab = [tile.get("measurements", {}).get("dab_frac") for tile in tiles]
        known = [value for value in dab if value is not None and math.isfinite(value)]
        fixed = sorted({case.fixed for case in own if case.fixed is not None})
        if len(fixed) > 1:
            raise ConfigError(
                f"patient {patient_id} is fixed to {' and to '.join(fixed)} by column split of the sheet; one patient "
                "is in one split: give all its rows the same word, or none"
            )
        scores = frozenset(case.her2_score for case in own if case.her2_score is not None)
        mean = math.fsum(known) / len(known) if known else None
        patients.append(Patient(patient_id, len(tiles), scores, fixed[0] if fixed else None, mean))
    return patients


def _held_back(held: Mapping[str, int]) -> list[str]:
    return [
        f"case {case_id} is in review: {count} tiles held back; look at its overlay and write yes or no into column "
        "accepted of the slide sheet"
        for case_id, count in sorted(held.items())
        if count
    ]


def _import_warnings(imported: CaseTiles) -> list[str]:
    warnings = list(imported.told.get("warnings", ()))
    unknown = sum(tile["case_id"] is None for tile in imported.tiles)
    if unknown:
        warnings.append(f"cases unknown for {unknown} imported tiles: interval not computed, no new split")
    splits: dict[str, set[str]] = {}
    for tile in imported.tiles:
        if tile["case_id"] is not None:
            splits.setdefault(tile["case_id"], set()).add(tile["source_split"])
    shared = sorted(case_id for case_id, seen in splits.items() if len(seen) > 1)
    if shared:
        warnings.append(f"cases in more than one split of the imported set: {', '.join(shared)}")
    return warnings


def _audited(
    rows: Sequence[Mapping[str, Any]], cases: Sequence[CaseTiles], spec: SplitsSpec, pixels: Pixels | None
) -> LeakAudit:
    return audit(
        rows,
        slides={case.case_id: case.slides for case in cases if case.slides},
        sides_px0={case.case_id: case.side_px0 for case in cases},
        near_bits=spec.near_bits,
        official=any(case.case_id == IMPORTED and case.told.get("preset") not in DIVIDED_HERE for case in cases),
        pixels=pixels,
    )


def _status(cases: Sequence[CaseTiles]) -> CaseStatus:
    worst = CaseStatus()
    for case in cases:
        # One failed case leaves a data set that can be used; the card names it.
        own = case.status
        worst = worst.then(review("dataset", f"case {case.case_id} failed: {own.reason}") if own.failed else own)
    return worst
