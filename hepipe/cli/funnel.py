"""What the funnel counts, gathered from the tables of a data set as it is assembled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hepipe.dataset.card import DatasetCard
    from hepipe.dataset.cases import CaseTiles
    from hepipe.dataset.curation import Curated
    from hepipe.quality.funnel import Funnel, Graded
    from hepipe.specs.quality import QualitySpec


def with_funnel(
    folder: Path, parts: Sequence[CaseTiles], curated: Curated, rows: Iterable[Mapping[str, Any]], card: DatasetCard
) -> tuple[Funnel, DatasetCard]:
    """The funnel of a data set, and its card with a warning for each filter that drops one score more than others.

    Args:
        folder: Results of the data set; its tables of verdicts are read again, as cases keep no flags.
        parts: Of `curate`.
        curated: What people's decisions did.
        rows: Of the index.
        card: As assembled.
    """
    from hepipe.quality.funnel import data_set_funnel

    kept = frozenset(str(row["tile_id"]) for row in rows)
    decided = {one.tile_id: "curation" for one in curated.applied if one.effect == "dropped"}
    cases: list[Graded] = []
    for part in parts:
        cases += _graded(folder, part, kept, decided)
    funnel = data_set_funnel(card.name, cases, fingerprint=card.fingerprint)
    told = tuple(share.told for share in funnel.flagged)
    return funnel, card.model_copy(update={"warnings": (*card.warnings, *told)})


def _graded(folder: Path, part: CaseTiles, kept: frozenset[str], decided: Mapping[str, str]) -> list[Graded]:
    """The tables of a slide pair; of an imported set those of each case that it names."""
    from hepipe.dataset.cases import IMPORTED
    from hepipe.quality.funnel import Graded
    from hepipe.stores.cases import read_checked
    from hepipe.stores.tables import VERDICTS, read_provenance, read_table

    name = f"{part.case_id}.parquet"
    path = folder / "verdict" / name
    verdicts = {row["tile_id"]: row for row in read_table(path, VERDICTS)}
    spec = _graded_by(path)
    left_out = decided
    if part.held:
        left_out = {**{str(tile["tile_id"]): "held" for tile in part.tiles}, **decided}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    told: Mapping[str, Any] = {}
    if part.case_id == IMPORTED:
        for tile in part.tiles:
            groups.setdefault((tile["case_id"] or IMPORTED, tile["section"]), []).append(tile)
    else:
        checked = read_checked(folder / "checked" / f"{part.case_id}.json")
        groups[part.case_id, checked.section] = list(part.tiles)
        told = read_provenance(folder / "tiles" / name).told
    found = []
    for (case_id, section), tiles in groups.items():
        scores = {tile["her2_score"] for tile in tiles} or {part.her2_score}
        of_case = [verdicts[tile["tile_id"]] for tile in tiles]
        score = scores.pop() if len(scores) == 1 else None
        found.append(Graded(case_id, section, score, tiles, of_case, told, spec, kept, left_out))
    return found


def _graded_by(verdict: Path) -> QualitySpec:
    from pydantic import ValidationError

    from hepipe.errors import StoreError
    from hepipe.specs.quality import QualitySpec
    from hepipe.stores.tables import read_provenance

    try:
        return QualitySpec.model_validate(read_provenance(verdict).spec)
    except ValidationError:
        raise StoreError(f"{verdict}: graded by limits of another version; run grade_tiles again") from None
