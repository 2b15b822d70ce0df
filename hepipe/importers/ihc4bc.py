"""IHC4BC (Akbarnejad et al., 2023): tiles of 3000 px cut every 1500 px; names say case, region and place.

Neighbours share half of their area, so a split by tile leaks, and a test set is thinned to every second row and
column. Its HER2 labels are two classes by case, 0 and 1+ against 3+, without 2+: they are no scores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hepipe.errors import ConfigError
from hepipe.importers.division import whole_groups
from hepipe.importers.files import Found, Stain, listed, tiles_below, without_suffix
from hepipe.importers.names import read_cells
from hepipe.importers.pairs import DISCARDED, OVERLAPS, Facts, Pair, TileSet
from hepipe.importers.tileset import Inputs, Told, find_root, mates, pairs_of, tile_set, warn_of_lonely
from hepipe.specs.dataset import Split
from hepipe.specs.imports import ImportSpec

TERMS = "IHC4BC: terms of the data not found; ask the authors before any use that is not research; cite them"
ABOUT = 90_000
"""Pairs of all markers that its authors kept, about."""
STRIDE_PX = 1500
ALL = "all"
TEST_SHARE, VAL_SHARE = 0.2, 0.1
MARKS = ("a", "0", "d")
"""Reliable, set to zero by hand, discarded."""
LIKE = "XXX_CASE_REGION_ROW_COL.jpg"


@dataclass(frozen=True)
class _Name:
    case: str
    region: str
    row: int
    column: int


def open_ihc4bc(root: Path, spec: ImportSpec, inputs: Inputs) -> TileSet:
    """One marker of IHC4BC, divided by case.

    Raises:
        ConfigError: No such set or marker, other names, or a label file of another form.
    """
    told = Told(TERMS)
    root = find_root(
        root,
        lambda place: _stained(place, "HandE", spec.marker) is not None,
        told,
        what=f"Images/HandE/{spec.marker}",
    )
    folders = [_stained(root, stain, spec.marker) for stain in ("HandE", "IHC")]
    if folders[1] is None:
        raise ConfigError(f"import: Images/HandE holds {spec.marker}, Images/IHC does not")
    stains: tuple[Stain, Stain] = ("he", "ihc")
    he, ihc = (
        tiles_below(folder, stain=stain, root=root, skipped=told.skipped)
        for stain, folder in zip(stains, folders, strict=True)
        if folder is not None
    )
    both, lonely = mates(he, ihc, spec, names=("HandE", "IHC"))
    warn_of_lonely(lonely, told)
    names = {tile: _parsed(tile) for tile in [*(tile for tile, _ in both), *lonely]}
    odd = [tile.path.name for tile, name in names.items() if name is None]
    if odd:
        raise ConfigError(f"import: ihc4bc names its tiles like {LIKE}; not so: {listed(odd)}")
    known = {tile: name for tile, name in names.items() if name is not None}
    told.count(f"ihc4bc {spec.marker} (about {ABOUT:,} of all markers are published)", len(both))
    chosen = _divided(known, told, spec)
    labels = _labels(inputs.labels, told)
    if inputs.labels is not None:
        _count_labelled([tile for tile, _ in both], labels, told)

    def facts(tile: Found) -> Facts:
        case = known[tile].case
        return Facts(case_id=case, labels=labels.get(tile.base, {}))

    def split(tile: Found) -> Split:
        return chosen[known[tile].case]

    # The set has no splits that ids could begin with.
    own = pairs_of(both, lonely, spec, facts, split=split, folder=lambda _: ALL)
    named = {tile.name: known[tile] for tile in known}
    step = _step(known, spec)
    pairs = [_marked(pair, named[pair.name], step, spec) for pair in own]
    thinned = sum(pair.problem == OVERLAPS for pair in pairs)
    if thinned:
        told.facts["thinned"] = f"{thinned:,} pairs of test left out: every second row and column is tested"
    return tile_set(_without_folders(pairs), spec, inputs, told)


def _stained(place: Path, stain: str, marker: str) -> Path | None:
    folder = place / "Images" / stain
    if not folder.is_dir():
        return None
    return next((below for below in sorted(folder.iterdir()) if below.name.lower() == marker.lower()), None)


def _parsed(tile: Found) -> _Name | None:
    parts = tile.base.rsplit("_", 4)
    if len(parts) != 5 or not all(part.isdecimal() and len(part) < 10 for part in parts[3:]) or not parts[1]:
        return None
    return _Name(parts[1], parts[2], int(parts[3]), int(parts[4]))


def _divided(names: Mapping[Found, _Name], told: Told, spec: ImportSpec) -> dict[str, Split]:
    sizes = Counter(name.case for name in names.values())
    test = whole_groups(sizes, round(TEST_SHARE * sizes.total()), spec.seed)
    rest = {case: count for case, count in sizes.items() if case not in test}
    val = whole_groups(rest, round(VAL_SHARE * sizes.total()), spec.seed)
    told.facts["division"] = (
        f"by case, as none is published: {len(test)} of {len(sizes)} cases are test and {len(val)} validation "
        f"(wanted {TEST_SHARE:.0%} and {VAL_SHARE:.0%} of the pairs, seed {spec.seed})"
    )
    return {case: "test" if case in test else "val" if case in val else "train" for case in sizes}


def _step(names: Mapping[Found, _Name], spec: ImportSpec) -> int:
    """What a row is counted in: 1, or px where all numbers are whole strides.

    Raises:
        ConfigError: Numbers too large for rows of a slide that are no whole strides, where the test is thinned.
    """
    numbers = [number for name in names.values() for number in (name.row, name.column)]
    common = math.gcd(*numbers)
    if common and common % STRIDE_PX == 0:
        return STRIDE_PX
    if spec.thin and max(numbers) >= STRIDE_PX:
        # As many strides would be half a metre of slide.
        raise ConfigError(
            f"import: rows and columns up to {max(numbers):,} in the names of ihc4bc, neither places on a grid nor "
            f"multiples of {STRIDE_PX} px: which tiles of test overlap cannot be told; thin: false keeps all of them"
        )
    return 1


def _marked(pair: Pair, name: _Name, step: int, spec: ImportSpec) -> Pair:
    if pair.problem:
        return pair
    if pair.facts.labels.get("label_discarded"):
        return replace(pair, problem=DISCARDED)
    overlapping = (name.row // step) % 2 or (name.column // step) % 2
    return replace(pair, problem=OVERLAPS) if spec.thin and pair.split == "test" and overlapping else pair


def _without_folders(pairs: list[Pair]) -> list[Pair]:
    """Names without the folders of patients, where they are still unique."""
    plain = [pair.name.rpartition("/")[2] for pair in pairs]
    if len(set(plain)) != len(plain):
        return pairs
    return [replace(pair, name=name) for pair, name in zip(pairs, plain, strict=True)]


def _count_labelled(tiles: list[Found], labels: Mapping[str, object], told: Told) -> None:
    labelled = sum(tile.base in labels for tile in tiles)
    if not labelled:
        raise ConfigError(f"import.labels: none of its {len(labels):,} rows names one of the {len(tiles):,} pairs")
    told.facts["labels"]["pairs with a label"] = labelled
    if labelled < len(tiles):
        told.warnings.append(f"no label for {len(tiles) - labelled:,} of {len(tiles):,} pairs")


def _labels(path: Path | None, told: Told) -> dict[str, dict[str, float]]:
    """Mark, number of nuclei and their mean DAB by tile; rows are name, mark, nuclei, then a value a nucleus."""
    if path is None:
        return {}
    found: dict[str, dict[str, float]] = {}
    marks: Counter[str] = Counter()
    for number, row in enumerate(read_cells(path, "import.labels"), start=1):
        if number == 1 and (len(row) < 2 or row[1] not in MARKS):
            continue
        try:
            nuclei, values = int(row[2]), [float(cell) for cell in row[3:] if cell]
            if row[1] not in MARKS or not all(map(math.isfinite, values)):
                raise ValueError
        except (ValueError, IndexError):
            raise ConfigError(
                f"import.labels, row {number}: name, mark ({', '.join(MARKS)}), number of nuclei and their mean DAB "
                "expected"
            ) from None
        marks[row[1]] += 1
        mean = sum(values) / len(values) if values else math.nan
        found[without_suffix(row[0].replace("\\", "/").rpartition("/")[2])] = {
            "label_reliable": float(row[1] == "a"),
            "label_discarded": float(row[1] == "d"),
            "label_nuclei": float(nuclei),
            "label_mean_dab": mean,
        }
    told.facts["labels"] = {"rows": marks.total(), **{f"mark {mark}": marks[mark] for mark in MARKS}}
    return found
