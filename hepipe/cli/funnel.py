"""What the funnel counts, gathered from the tables of a data set as it is assembled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hepipe.dataset.card import DatasetCard
    from hepipe.dataset.cases import CaseTiles
    from hepipe.dataset.curation import Curated
    from hepipe.quality.funnel import Funnel


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
    from hepipe.quality.funnel import Graded, data_set_funnel

    kept = frozenset(str(row["tile_id"]) for row in rows)
    decided = {one.tile_id: "curation" for one in curated.applied if one.effect == "dropped"}
    cases: list[Graded] = []
    for part in parts:
        cases += _graded(folder, part, kept, decided)
    funnel = data_set_funnel(card.name, cases, fingerprint=card.fingerprint)
    told = tuple(share.told for share in funnel.flagged)
    return funnel, card.model_copy(update={"warnings": (*card.warnings, *told)})


def _graded(folder: Path, part: CaseTiles, kept: frozenset[str], decided: Mapping[str, str]) -> list[Any]:
    """The tables of a slide pair; of an imported set those of each case that it names."""
    from hepipe.dataset.cases import IMPORTED
    from hepipe.quality.funnel import Graded
    from hepipe.specs.quality import QualitySpec
    from hepipe.stores.cases import read_checked
    from hepipe.stores.tables import VERDICTS, read_provenance, read_table

    name = f"{part.case_id}.parquet"
    verdicts = {row["tile_id"]: row for row in read_table(folder / "verdict" / name, VERDICTS)}
    spec = QualitySpec.model_validate(read_provenance(folder / "verdict" / name).spec)
    left_out = decided
    if part.held:
        left_out = {**{str(tile["tile_id"]): "held" for tile in part.tiles}, **decided}
    if part.case_id != IMPORTED:
        section = read_checked(folder / "checked" / f"{part.case_id}.json").section
        groups = {(part.case_id, section, part.her2_score): list(part.tiles)}
        told = read_provenance(folder / "tiles" / name).told
    else:
        groups, told = {}, {}
        for tile in part.tiles:
            groups.setdefault((tile["case_id"] or IMPORTED, tile["section"], None), []).append(tile)
    return [
        Graded(
            case_id,
            section,
            score,
            tiles,
            [verdicts[tile["tile_id"]] for tile in tiles],
            told,
            spec,
            kept,
            left_out,
        )
        for (case_id, section, score), tiles in groups.items()
    ]
