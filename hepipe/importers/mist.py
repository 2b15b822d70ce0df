"""MIST (Li et al., MICCAI 2023): four markers; names say slide and place on the patch grid.

The author confirms that patches were divided at random, so slides are in train and val, and advises to divide by the
slide in the name. There is no test set; papers report on val, which is `test` here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hepipe.errors import ConfigError
from hepipe.importers.division import whole_groups
from hepipe.importers.files import Found, Stain, listed, tiles_below
from hepipe.importers.names import parsed
from hepipe.importers.pairs import MIST_KEPT, Facts, TileSet
from hepipe.importers.tileset import Inputs, Told, find_root, mates, pairs_of, tile_set, warn_of_lonely
from hepipe.specs.dataset import Split
from hepipe.specs.imports import ImportSpec

TERMS = "MIST: terms of the data not found; the repository's licence covers code; its authors ask to be cited"
EXPECTED = {"HER2": 4642, "ER": 4153, "PR": 4139, "Ki67": 4361}
"""Pairs of train by marker (Li et al.)."""
EXPECTED_TEST = 1000
EXPECTED_SLIDES = {"HER2": 64, "ER": 56, "PR": 56, "Ki67": 56}
SHARE = 0.1
"""Of train for validation, in whole slides, where the config says no number."""
LIKE = "67M0000000_15_18.jpg"
_NAME = re.compile(r"(?P<slide>.+)_(?P<row>\d+)_(?P<column>\d+)")
_PARTS: Mapping[str, Split] = {"train": "train", "val": "test", "test": "test"}


def open_mist(root: Path, spec: ImportSpec, inputs: Inputs) -> TileSet:
    """One marker of MIST; the parts of a cloud download (`HER2-004`) are taken together.

    Raises:
        ConfigError: No such marker, other names, a name in two parts, or no train or val.
    """
    told = Told(TERMS)
    root = find_root(
        root, lambda place: bool(_bases(place, spec.marker)), told, what=f"trainA and trainB of {spec.marker}"
    )
    he, ihc = _side(root, spec, "he", told), _side(root, spec, "ihc", told)
    both, lonely = mates(he, ihc, spec, names=("A", "B"))
    warn_of_lonely(lonely, told)
    names = parsed([*(tile for tile, _ in both), *lonely], _NAME, like=LIKE, kind=spec.kind)
    slides = {tile: name["slide"] for tile, name in names.items()}
    found = Counter(_published(tile) for tile, _ in both)
    told.count(f"mist {spec.marker} train", found["train"], EXPECTED[spec.marker])
    told.count(f"mist {spec.marker} val (test here)", found["test"], EXPECTED_TEST)
    told.count(f"mist {spec.marker} slides", len(set(slides.values())), EXPECTED_SLIDES[spec.marker], unit="slides")
    splits = _divided([tile for tile, _ in both], slides, spec, told)

    def facts(tile: Found) -> Facts:
        return Facts(slide_id=slides[tile], case_id=slides[tile])

    def split(tile: Found) -> Split:
        return splits.get(tile.key, _published(tile))

    pairs = pairs_of(both, lonely, spec, facts, split=split, folder=_published)
    # Its slides are named by what looks like laboratory numbers, all of them.
    aliased = spec.model_copy(update={"alias": "always"}) if spec.alias == "auto" else spec
    return tile_set(pairs, aliased, inputs, told)


def _bases(place: Path, marker: str) -> list[Path]:
    """Folders that hold trainA and so on for a marker: its own ones, and this one where it is within the marker's."""
    own = re.compile(rf"{marker}(?![A-Za-z0-9]).*", re.IGNORECASE)
    named = [below for below in sorted(place.iterdir()) if own.fullmatch(below.name)] if place.is_dir() else []
    within = [place] if any(own.fullmatch(part) for part in place.resolve().parts[-2:]) else []
    bases = [base for folder in [*named, *within] for base in (folder, folder / "TrainValAB")]
    return [base for base in bases if any((base / f"{part}A").is_dir() for part in _PARTS)]


def _side(root: Path, spec: ImportSpec, stain: Stain, told: Told) -> list[Found]:
    letter = {"he": "A", "ihc": "B"}[stain]
    tiles = [
        tile
        for base in _bases(root, spec.marker)
        for part in _PARTS
        if (base / f"{part}{letter}").is_dir()
        for tile in tiles_below(base / f"{part}{letter}", part, stain=stain, root=root, skipped=told.skipped)
    ]
    twice = sorted(name for name, count in Counter(tile.key for tile in tiles).items() if count > 1)
    if twice:
        raise ConfigError(f"import: names in two parts of {spec.marker}: {listed(['/'.join(key) for key in twice])}")
    return tiles


def _published(tile: Found) -> Split:
    return _PARTS[tile.split or "train"]


def _divided(
    tiles: list[Found], slides: Mapping[Found, str], spec: ImportSpec, told: Told
) -> dict[tuple[str, str], Split]:
    train = [tile for tile in tiles if _published(tile) == "train"]
    test = [tile for tile in tiles if _published(tile) == "test"]
    if not train or not test:
        raise ConfigError(f"import: {len(train)} pairs in train and {len(test)} in val of {spec.marker}; both expected")
    shared = {slides[tile] for tile in train} & {slides[tile] for tile in test}
    if spec.preset == "by_slide":
        chosen = whole_groups(Counter(slides[tile] for tile in tiles), len(test), spec.seed)
        train = [tile for tile in tiles if slides[tile] not in chosen]
        told.facts["division"] = (
            f"by slide, not the published one: {len(chosen)} slides with {len(tiles) - len(train):,} pairs are test, "
            f"{len(test):,} as published"
        )
    else:
        chosen = set()
        told.facts["division"] = "as published, val being test"
        if shared:
            told.facts["leaks"] = "slides shared"
            told.warnings.append(
                f"leaks: {len(shared)} of {len(set(slides.values()))} slides are in the published train and val; "
                "the author confirms it; evaluate preset by_slide too"
            )
    if spec.preset == "mist4000":
        told.facts["division"] += (
            f"; the best aligned {MIST_KEPT:,} pairs of train (ncc_peak, then shift_um): rebuilt, not the authors' list"
        )
    wanted = spec.validation
    if wanted is None:
        # What is compared with others' 4,000 is all of them.
        wanted = 0 if spec.preset == "mist4000" else round(SHARE * len(train))
    taken = whole_groups(Counter(slides[tile] for tile in train), wanted, spec.seed)
    splits: dict[tuple[str, str], Split] = {}
    for tile in tiles if spec.preset == "by_slide" else train:
        own: Split = "test" if slides[tile] in chosen else "val" if slides[tile] in taken else "train"
        splits[tile.key] = own
    n_val = sum(split == "val" for split in splits.values())
    told.facts["division"] += (
        f"; {len(taken)} slides with {n_val:,} pairs of train are validation (seed {spec.seed})"
        if taken
        else "; no validation: take the last checkpoint or a fixed step"
    )
    return splits
