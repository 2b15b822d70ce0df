"""Tile sets in two folders, one per stain, paired by file name and never by order."""

from __future__ import annotations

from pathlib import Path

from hepipe.importers.files import Found, licence_texts
from hepipe.importers.names import captured, read_scores
from hepipe.importers.pairs import Facts, TileSet
from hepipe.importers.tileset import Inputs, Told, mates, pairs_of, side_of, tile_set, warn_of_lonely
from hepipe.specs.imports import ImportSpec

TERMS = "not stated; whoever brings the tiles answers for them"


def open_folders(root: Path, spec: ImportSpec, inputs: Inputs | None = None) -> TileSet:
    """The pairs of `root/HE` and `root/IHC`, or of `root/train/HE` and so on.

    Raises:
        ConfigError: A folder is missing or empty, a name stands on one side only (unless `allow_missing`), a file is
            no RGB picture or not of the common square size, or a pattern does not fit the names.
    """
    told = Told(TERMS, texts=licence_texts(root))
    he, ihc = side_of(root, spec.he, "he", told), side_of(root, spec.ihc, "ihc", told)
    both, lonely = mates(he, ihc, spec, names=(spec.he, spec.ihc))
    warn_of_lonely(lonely, told)
    facts = facts_by_pattern([*(tile for tile, _ in both), *lonely], spec)
    return tile_set(pairs_of(both, lonely, spec, facts.__getitem__), spec, inputs or Inputs(), told)


def facts_by_pattern(tiles: list[Found], spec: ImportSpec) -> dict[Found, Facts]:
    """What the spec's patterns find in the file names; raises as they do."""
    names = [tile.path.name for tile in tiles]
    scores = read_scores(names, spec.score_pattern)
    cases = captured(names, spec.case_pattern, "case_pattern")
    return {
        tile: Facts(
            case_id=cases[tile.path.name],
            score=scores[tile.path.name],
            score_level="none" if scores[tile.path.name] is None else "slide",
        )
        for tile in tiles
    }
