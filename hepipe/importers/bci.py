"""BCI (Liu et al., CVPR workshops 2022): names say split and HER2 level, and nothing of the slide.

The level is the slide's, not the tile's. Counts: the readme shipped with the data; µm per px and which stain was
warped: Klöckner et al. (HER2match). BCI-clean is the part of it that those authors kept by hand.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import cast

from hepipe.errors import ConfigError
from hepipe.importers.division import draw, whole_groups
from hepipe.importers.files import Found, listed
from hepipe.importers.names import parsed, read_cells, resolved
from hepipe.importers.pairs import Facts, TileSet
from hepipe.importers.tileset import (
    Inputs,
    Told,
    find_root,
    mates,
    pairs_of,
    read_cases,
    side_of,
    tile_set,
    warn_of_lonely,
)
from hepipe.sheet import Score
from hepipe.specs.dataset import Split
from hepipe.specs.imports import ImportSpec

TERMS = (
    "BCI: free for non-commercial purposes, academic or not; cite the authors; no commercial use of the data or of "
    "derivative works, as which a trained model counts; all other rights reserved (stated by the authors)"
)
EXPECTED: dict[str, int] = {"train": 3896, "test": 977}
EXPECTED_TEST = {"0": 38, "1+": 235, "2+": 446, "3+": 258}
CLEAN: dict[str, int] = {"train": 1112, "test": 144}
"""Pairs of BCI-clean (Klöckner et al., table of data sets)."""
VALIDATION = 500
"""Of the challenge's 3,896 pairs of train; its 500 names are not public."""
LIKE = "00000_train_1+.png"
_NAME = re.compile(r"\d{5}_(?P<split>train|test)_(?P<level>0|1\+|2\+|3\+)")


def open_bci(root: Path, spec: ImportSpec, inputs: Inputs) -> TileSet:
    """BCI, or BCI-clean by a person's list of names; without a list BCI-clean is what our own filters keep.

    Raises:
        ConfigError: No such set, other names, names whose split is not their folder's, or a list with unknown names.
    """
    told = Told(TERMS)
    root = find_root(root, lambda place: _holds(place, spec), told, what=f"{spec.he} and {spec.ihc}")
    he, ihc = side_of(root, spec.he, "he", told), side_of(root, spec.ihc, "ihc", told)
    names = parsed([*he, *ihc], _NAME, like=LIKE, kind=spec.kind)
    # One seed of the set calls the 977 validation.
    odd = [
        tile.path.name
        for tile, name in names.items()
        if tile.split and tile.split != name["split"] and (tile.split, name["split"]) != ("val", "test")
    ]
    if odd:
        raise ConfigError(f"import: files in another folder than their names say: {listed(odd)}")
    both, lonely = mates(he, ihc, spec, names=(spec.he, spec.ihc))
    warn_of_lonely(lonely, told)
    expected = EXPECTED
    if spec.kind == "bci-clean":
        expected = CLEAN
        if inputs.names is not None:
            both, lonely = _listed_only(both, lonely, inputs.names)
            told.facts["chosen by"] = f"a person's list of {len(both) + len(lonely):,} names"
        else:
            told.facts["chosen by"] = "hepipe's own filters: the verdicts say which pairs are kept"
            expected = EXPECTED
    _count(both, names, expected, told, spec)
    validation = _validation([he for he, _ in both], lonely, names, spec, inputs, told)

    def facts(tile: Found) -> Facts:
        return Facts(score=cast(Score, names[tile]["level"]), score_level="slide")

    def folder(tile: Found) -> str:
        return names[tile]["split"]

    def split(tile: Found) -> Split:
        return "val" if tile in validation else cast(Split, folder(tile))

    return tile_set(pairs_of(both, lonely, spec, facts, split=split, folder=folder), spec, inputs, told)


def read_list(path: Path) -> list[str]:
    """The names in a text or CSV list: the column `name`, or the first one of a list without a header.

    Raises:
        ConfigError: No readable list, or nothing in it.
    """
    rows = read_cells(path, "import.names")
    place, start = 0, 0
    if rows and "name" in (header := [cell.lower() for cell in rows[0]]):
        place, start = header.index("name"), 1
    names = [row[place] for row in rows[start:] if len(row) > place and row[place]]
    if not names:
        raise ConfigError("import.names: no names; one a line expected, or a CSV with a column name")
    return list(dict.fromkeys(names))


def _holds(place: Path, spec: ImportSpec) -> bool:
    """Whether both stains' folders stand here, or in folders of splits."""
    return any(
        all((base / name).is_dir() for name in (spec.he, spec.ihc))
        for base in (place, place / "train", place / "val", place / "test")
    )


def _listed_only(
    both: list[tuple[Found, Found]], lonely: list[Found], names: Path
) -> tuple[list[tuple[Found, Found]], list[Found]]:
    kept = set(resolved(read_list(names), [*(he for he, _ in both), *lonely], "import.names"))
    return [pair for pair in both if pair[0] in kept], [tile for tile in lonely if tile in kept]


def _count(
    both: list[tuple[Found, Found]],
    names: dict[Found, re.Match[str]],
    expected: dict[str, int],
    told: Told,
    spec: ImportSpec,
) -> None:
    splits = Counter(names[he]["split"] for he, _ in both)
    for split, count in expected.items():
        told.count(f"{spec.kind} {split}", splits[split], count)
    levels = Counter(names[he]["level"] for he, _ in both if names[he]["split"] == "test")
    for level, count in EXPECTED_TEST.items():
        told.count(f"{spec.kind} test {level}", levels[level], count if expected is EXPECTED else None)


def _validation(
    tiles: list[Found],
    lonely: list[Found],
    names: dict[Found, re.Match[str]],
    spec: ImportSpec,
    inputs: Inputs,
    told: Told,
) -> set[Found]:
    """The H&E tiles that are taken out of train: whole cases where a person's list gives them, single tiles else."""
    if spec.preset == "bci_paper":
        told.facts["division"] = "as published; no validation: take the last checkpoint or a fixed step"
        return set()
    train = [tile for tile in tiles if names[tile]["split"] == "train"]
    count = spec.validation
    if count is None:
        # A part of the set gets a validation of the same share.
        count = VALIDATION if len(train) == EXPECTED["train"] else round(len(train) * VALIDATION / EXPECTED["train"])
    cases = {} if inputs.cases is None else read_cases(inputs.cases, [*tiles, *lonely])
    if train and all(tile in cases for tile in train):
        chosen = whole_groups(Counter(cases[tile] for tile in train), count, spec.seed)
        drawn = {tile for tile in train if cases[tile] in chosen}
        how = f"{len(chosen)} whole cases with {len(drawn):,} of {len(train):,} pairs of train are validation"
        told.facts["division"] = f"{how}, {count:,} wanted (seed {spec.seed})"
    else:
        if cases:
            known = sum(tile in cases for tile in train)
            told.warnings.append(
                f"cases are given for {known:,} of {len(train):,} pairs of train: validation is drawn by level and may "
                "share cases with train; give all of them, and whole cases are taken"
            )
        levels: dict[str, list[str]] = {}
        for tile in train:
            levels.setdefault(names[tile]["level"], []).append(tile.base)
        taken = draw(levels, count, spec.seed)
        drawn = {tile for tile in train if tile.base in taken}
        told.facts["division"] = (
            f"{len(drawn)} of {len(train):,} pairs of train drawn for validation with seed {spec.seed}, by level; the "
            "challenge's own 500 are not public. Slides are unknown, so train and validation may share them"
        )
    told.count("validation", len(drawn))
    return drawn
