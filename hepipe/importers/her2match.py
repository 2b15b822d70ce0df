"""HER2match (Klöckner et al., Zenodo record 15797050): the same section stained twice; names say slide and place."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hepipe.errors import ConfigError
from hepipe.importers.files import Found, listed, read_header
from hepipe.importers.names import parsed, read_columns
from hepipe.importers.pairs import Facts, TileSet
from hepipe.importers.tileset import Inputs, Told, find_root, mates, pairs_of, side_of, tile_set, warn_of_lonely
from hepipe.sheet import SCORES, Score
from hepipe.specs.imports import ImportSpec

TERMS = "HER2match: terms not found; ask the authors before any use that is not research; cite them"
EXPECTED = {"train": 11610, "val": 3582, "test": 5980}
"""Pairs after curation (Klöckner et al.)."""
PX0 = 1024
"""Side of a tile at level 0, whatever size the copy has."""
FOLDERS = (("HE", "IHC"), ("HE_20x", "IHC_20x"))
MPP = {1024: 0.25, 512: 0.5}
"""µm per px by side; copies of 512 px were halved by users."""
LIKE = "wsi010_id3287_x61440_y97280.jpg"
_NAME = re.compile(r"(?P<slide>wsi\d+)_id\d+_x(?P<x>\d{1,9})_y(?P<y>\d{1,9})")


def open_her2match(root: Path, spec: ImportSpec, inputs: Inputs) -> TileSet:
    """HER2match as released, or a copy that was halved to 512 px.

    Raises:
        ConfigError: No such set, other names, a size that contradicts the folders' names, or scores of unknown slides.
    """
    told = Told(TERMS)
    root = find_root(root, lambda place: _folders(place) is not None, told, what="HE and IHC, or HE_20x and IHC_20x")
    folders = _folders(root)
    assert folders is not None
    he, ihc = side_of(root, folders[0], "he", told), side_of(root, folders[1], "ihc", told)
    both, lonely = mates(he, ihc, spec, names=folders)
    warn_of_lonely(lonely, told)
    names = parsed([*(tile for tile, _ in both), *lonely], _NAME, like=LIKE, kind=spec.kind)
    splits = Counter(tile.split for tile, _ in both)
    for split, count in EXPECTED.items():
        told.count(f"her2match {split}", splits[split], count)
    mpp = _mpp(both[0][0], folders, spec)
    told.facts["division"] = "as published, by slide"
    scores = _scores(inputs.scores, sorted({name["slide"] for name in names.values()}), told)

    def facts(tile: Found) -> Facts:
        name = names[tile]
        score = scores.get(name["slide"])
        return Facts(
            slide_id=name["slide"],
            case_id=name["slide"],
            score=score,
            score_level="slide" if score else "none",
            corner_px0=(int(name["x"]), int(name["y"])),
            extent_px0=PX0,
        )

    return tile_set(pairs_of(both, lonely, spec, facts), spec, inputs, told, mpp=mpp)


def _folders(place: Path) -> tuple[str, str] | None:
    return next((pair for pair in FOLDERS if all((place / name).is_dir() for name in pair)), None)


def _mpp(first: Found, folders: tuple[str, str], spec: ImportSpec) -> float:
    """µm per px of the files, by their size and their folders' names, which must agree."""
    if spec.mpp is not None:
        return spec.mpp
    header = read_header(first.path)
    if isinstance(header, str):
        raise ConfigError(f"import: {first.path.name} cannot be used ({header})")
    side = header.size[0]
    is_halved = folders == FOLDERS[1]
    if side not in MPP or (is_halved and side != 512):
        raise ConfigError(
            f"import: her2match tiles of {side} px in {folders[0]}; 1024 px (0.25 µm per px) or copies of 512 px (0.5) "
            "expected; give mpp"
        )
    if side == 512 and spec.halve:
        raise ConfigError("import: this copy of her2match was halved before, to 512 px; leave halve out")
    return MPP[side]


def _scores(path: Path | None, slides: list[str], told: Told) -> dict[str, Score]:
    if path is None:
        told.warnings.append("no HER2 scores: her2match states none; a table slide, score (--scores) gives them")
        return {}
    known = {str(int(slide.removeprefix("wsi"))): slide for slide in slides}
    table = read_columns(path, ("slide", "score"), "import.scores")
    found: dict[str, Score] = {}
    unknown, wrong = [], []
    for name, text in table.items():
        number = name.lower().removeprefix("wsi")
        slide = known.get(str(int(number))) if number.isdecimal() else None
        score = next((score for score in SCORES if text in (score, score.rstrip("+"))), None)
        if slide is None:
            unknown.append(name)
        elif score is None:
            wrong.append(f"{name} ({text!r})")
        else:
            found[slide] = score
    if wrong:
        raise ConfigError(f"import.scores: no scores: {listed(wrong)}; one of {', '.join(SCORES)} expected")
    if unknown:
        # A table of the whole set may be used with a part of it.
        told.warnings.append(f"{len(unknown)} slides of the table of scores have no tile here")
    if not found:
        raise ConfigError(f"import.scores: none of its slides has tiles; tiles are of {listed(slides)}")
    if lacking := [slide for slide in slides if slide not in found]:
        told.warnings.append(f"no HER2 score for {listed(lacking)}")
    return found
