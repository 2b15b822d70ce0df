"""Tile sets in two folders, one per stain, paired by file name and never by order."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hepipe.errors import ConfigError
from hepipe.importers.files import SPLITS, Found, check_sizes, listed, read_picture, read_size, stamp, tiles_below
from hepipe.importers.pairs import Pair, Pixels, TileSet
from hepipe.specs.imports import ImportSpec


def open_folders(root: Path, spec: ImportSpec) -> TileSet:
    """The pairs of `root/HE` and `root/IHC`, or of `root/train/HE` and so on.

    Raises:
        ConfigError: A folder is missing or empty, a name stands on one side only (unless `allow_missing`), a file is
            no RGB picture or not of the common square size.
    """
    he, ihc = (_side(root, name) for name in (spec.he, spec.ihc))
    both = he.keys() & ihc.keys()
    lonely = [
        f"{'/'.join(filter(None, key))} (no {missing})"
        for missing, own, other in ((spec.ihc, he, ihc), (spec.he, ihc, he))
        for key in own.keys() - other.keys()
    ]
    if lonely and not spec.allow_missing:
        raise ConfigError(
            f"import: {len(lonely)} tiles without a partner: {listed(sorted(lonely))}; "
            "set import.allow_missing to drop them"
        )
    if not both:
        raise ConfigError(f"import: no name stands in both {spec.he} ({len(he)} files) and {spec.ihc} ({len(ihc)})")
    found = [(he[key], ihc[key]) for key in he if key in both]
    side, _ = check_sizes({path: read_size(path) for pair in found for path in (pair[0].path, pair[1].path)})
    pairs = [
        Pair(
            split=one.split or spec.split,
            name=one.name,
            file_name=one.path.name,
            read=partial(_both, one.path, other.path),
            stamp=stamp(one.path, other.path),
        )
        for one, other in found
    ]
    return TileSet(tuple(pairs), side, tuple(sorted(lonely)))


def _side(root: Path, name: str) -> dict[tuple[str, str], Found]:
    if (root / name).is_dir():
        tiles = tiles_below(root / name)
    else:
        tiles = [
            tile
            for split in SPLITS
            if (root / split / name).is_dir()
            for tile in tiles_below(root / split / name, split)
        ]
    if not tiles:
        raise ConfigError(f"import: no files in {root / name}, nor in {name} below train, val or test")
    return {(tile.split or "", tile.name): tile for tile in tiles}


def _both(he: Path, ihc: Path) -> Pixels:
    return read_picture(he), read_picture(ihc)
