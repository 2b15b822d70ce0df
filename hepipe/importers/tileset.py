"""From the pairs that a kind of import finds to an opened tile set: what all kinds have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hepipe.dataset.terms import Terms
from hepipe.errors import ConfigError
from hepipe.importers.files import SPLITS, Found, Stain, check_sizes, licence_texts, listed, read_header, tiles_below
from hepipe.importers.names import aliases, holds_a_number, looks_like_a_number, read_columns, resolved
from hepipe.importers.pairs import NO_PARTNER, Facts, Pair, TileSet, is_passed
from hepipe.progress import watched
from hepipe.specs.dataset import Split
from hepipe.specs.imports import ImportSpec

MAX_DEPTH = 3
"""Folders below the one that is given in which a set is looked for: archives unpack into a folder of their own name."""


@dataclass(frozen=True)
class Inputs:
    """Files that a person gives beside the set; None where not."""

    cases: Path | None = None
    scores: Path | None = None
    names: Path | None = None
    labels: Path | None = None


@dataclass
class Told:
    """What provenance will say of an import; no file name, no path.

    Attributes:
        terms: The set's own, in a sentence.
        counts: What was counted, found and, where the authors say, expected.
        warnings: What a person should know; they go into the card.
        facts: Further entries.
        skipped: Files that were passed over, by what they are.
        texts: Licence and readme files that lay with the set.
    """

    terms: str
    counts: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)

    def count(self, what: str, found: int, expected: int | None = None, *, unit: str = "pairs") -> None:
        """Note a count, and a warning where it is not the expected one."""
        self.counts.append({"what": what, "found": found, "expected": expected})
        if expected is not None and found != expected:
            self.warnings.append(f"{what}: {found:,} {unit} found, {expected:,} expected")


def find_root(folder: Path, holds: Callable[[Path], bool], told: Told, *, what: str) -> Path:
    """The folder in which a set lies: the one that is given or the only one below it that fits.

    Licence texts are taken from that folder and from those above it, up to the one that is given.

    Raises:
        ConfigError: None, or several.
    """
    level = [folder]
    for _ in range(MAX_DEPTH + 1):
        fits = [place for place in level if holds(place)]
        if len(fits) == 1:
            above = fits[0].relative_to(folder).parts
            for place in (folder.joinpath(*above[:depth]) for depth in range(len(above) + 1)):
                told.texts |= licence_texts(place)
            return fits[0]
        if fits:
            names = [str(place.relative_to(folder)) for place in fits]
            raise ConfigError(f"import: several folders hold {what}: {listed(names)}; give one of them")
        level = [
            below
            for place in level
            if place.is_dir()
            for below in sorted(place.iterdir())
            if below.is_dir() and not below.is_symlink() and not below.name.startswith(".")
        ]
    raise ConfigError(f"import: {folder} holds no {what}, nor do the folders below it")


def side_of(root: Path, name: str, stain: Stain, told: Told) -> list[Found]:
    """Every tile of one stain: of `root/name`, or of `root/train/name` and so on.

    Raises:
        ConfigError: There are none.
    """
    if (root / name).is_dir():
        tiles = tiles_below(root / name, stain=stain, root=root, skipped=told.skipped)
    else:
        tiles = [
            tile
            for split in SPLITS
            if (root / split / name).is_dir()
            for tile in tiles_below(root / split / name, split, stain=stain, root=root, skipped=told.skipped)
        ]
    if not tiles:
        raise ConfigError(f"import: no files in {root / name}, nor in {name} below train, val or test")
    return tiles


def mates(
    he: Sequence[Found], ihc: Sequence[Found], spec: ImportSpec, *, names: tuple[str, str] = ("HE", "IHC")
) -> tuple[list[tuple[Found, Found]], list[Found]]:
    """Tiles of one name and split on both sides, and those on one side only.

    Args:
        he: Listing of the H&E side.
        ihc: Listing of the IHC side.
        spec: Says whether a missing partner is allowed.
        names: What the sides are called in errors.

    Raises:
        ConfigError: Names on one side only, listed, unless they may be; or no name on both.
    """
    first, second = ({tile.key: tile for tile in side} for side in (he, ihc))
    lonely = [
        (tile, missing)
        for missing, own, other in ((names[1], first, second), (names[0], second, first))
        for key, tile in own.items()
        if key not in other
    ]
    if lonely and not spec.allow_missing:
        told = sorted(f"{'/'.join(filter(None, tile.key))} (no {missing})" for tile, missing in lonely)
        raise ConfigError(
            f"import: {len(told)} tiles without a partner: {listed(told)}; "
            "--allow-missing or import.allow_missing drops them"
        )
    both = [(tile, second[key]) for key, tile in first.items() if key in second]
    if not both:
        raise ConfigError(f"import: no name stands in both {names[0]} ({len(he)} files) and {names[1]} ({len(ihc)})")
    return both, [tile for tile, _ in lonely]


def warn_of_lonely(lonely: Sequence[Found], told: Told) -> None:
    """Say how many tiles have no partner."""
    if lonely:
        told.count("without a partner", len(lonely))
        told.warnings.append(f"{len(lonely)} tiles without a partner are left out")


def pairs_of(
    both: Sequence[tuple[Found, Found]],
    lonely: Sequence[Found],
    spec: ImportSpec,
    facts: Callable[[Found], Facts],
    *,
    split: Callable[[Found], Split] | None = None,
    folder: Callable[[Found], str] | None = None,
) -> list[Pair]:
    """Pairs with what the set says of them; those without a partner carry that problem.

    Args:
        both: Of `mates`.
        lonely: Likewise.
        spec: Split of tiles that have none.
        facts: Of a tile, from its name.
        split: Where a preset puts a tile; None: where its folder does, or the spec.
        folder: What a tile's id begins with, whatever the preset; None: its folder, or the spec's split.
    """
    of = folder or (lambda tile: tile.split or spec.split)
    to = split or (lambda tile: next((one for one in SPLITS if one == tile.split), spec.split))
    made = [Pair(to(he), of(he), he.name, he.path, ihc.path, facts(he)) for he, ihc in both]
    made += [Pair(to(tile), of(tile), tile.name, *_alone(tile), facts(tile), NO_PARTNER) for tile in lonely]
    return made


def _alone(tile: Found) -> tuple[Path | None, Path | None]:
    return (tile.path, None) if tile.stain == "he" else (None, tile.path)


def tile_set(
    pairs: Sequence[Pair], spec: ImportSpec, inputs: Inputs, told: Told, *, mpp: float | None = None
) -> TileSet:
    """The set as it will be stored: cases joined, ids replaced, sizes checked, tiles halved and quartered.

    Args:
        pairs: Of one kind.
        spec: What is asked for.
        inputs: A person's files.
        told: What the kind has to say; provenance gets it with what is found here.
        mpp: µm per px of the files; None: the spec's.

    Raises:
        ConfigError: Files that cannot be used, of several sizes or of an odd number of px to be halved, or a list of
            cases that does not fit.
    """
    pairs = _with_cases(pairs, inputs.cases, told)
    _warn_of_numbers(pairs, spec, told)
    pairs = _with_aliases(pairs, spec, told)
    read = [pair for pair in pairs if not pair.problem]
    if not read:
        raise ConfigError("import: no pair is left")
    abreast = 2 if any(pair.he == pair.ihc for pair in read) else 1
    files = list(dict.fromkeys(path for pair in read for path in pair.files))
    headers = {
        path: read_header(path, abreast=abreast) for path in watched(files, "headers", total=len(files), unit="file")
    }
    width, side = check_sizes(headers, square=abreast == 1)
    if abreast == 2 and width != 2 * side:
        raise ConfigError(f"import: {width} x {side} px; two square tiles side by side expected")
    parts = 2 * spec.halve + 2 * spec.quarter or 1
    if side % parts:
        raise ConfigError(f"import: tiles of {side} px cannot be divided by {parts}; leave halve or quarter out")
    passes = _passes([(pair.he, pair.ihc) for pair in read], headers, spec, parts, told, abreast)
    places = [(row, column) for row in (0, 1) for column in (0, 1)] if spec.quarter else [None]
    cut = [replace(pair, file_px=side, halved=spec.halve, part=part) for pair in read for part in places]
    if spec.halve:
        told.facts["halved"] = "each px is the mean of 2 x 2 px of the file, rounded"
    if spec.quarter:
        told.facts["quartered"] = "four tiles of each, in the split of their parent, whose name they keep"
    if (extent := read[0].facts.extent_px0) is not None:
        told.facts["side_px0"] = extent // (2 if spec.quarter else 1)
    if told.skipped:
        told.facts["skipped"] = dict(sorted(told.skipped.items()))
    own_words = f"; who imports it says: {spec.terms}" if spec.terms else ""
    terms = Terms(source_set=spec.kind, line=told.terms + own_words, texts=told.texts)
    said = {
        "set": spec.kind,
        "preset": spec.preset,
        "tile_px_of_files": side,
        "mpp_of_files": mpp or spec.mpp,
        "counts": told.counts,
        "warnings": told.warnings,
        "terms": [terms.model_dump(mode="json")],
        **told.facts,
    }
    if extent := next((pair.facts.extent_px0 for pair in read if pair.facts.extent_px0), None):
        said["side_px0"] = extent // (2 if spec.quarter else 1)
    scale = (mpp or spec.mpp or 0.0) * (2 if spec.halve else 1)
    px = side // (2 if spec.halve else 1) // (2 if spec.quarter else 1)
    return TileSet(tuple(cut), tuple(pair for pair in pairs if pair.problem), px, scale, passes, said)


def _passes(
    files: Sequence[tuple[Path | None, Path | None]],
    headers: Mapping[Path, Any],
    spec: ImportSpec,
    parts: int,
    told: Told,
    abreast: int,
) -> frozenset[str]:
    """Stains that the store keeps as they are; provenance says why others are not."""
    passed, said, decoders = set(), {}, {}
    for place, stain in enumerate(("he", "ihc")):
        own = [headers[path] for pair in files if (path := pair[place]) is not None]
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(one.kind for one in own).items()))
        libraries = {"imagecodecs" if one.kind == "JPEG" else "pillow" for one in own}
        decoders[stain] = ", ".join(f"{name} {version(name)}" for name in sorted(libraries))
        if spec.keep == "pixels":
            said[stain] = f"pixels of {kinds}, as the config asks"
        elif abreast == 2:
            said[stain] = f"pixels of {kinds}: two tiles share a file"
        elif parts > 1:
            said[stain] = f"pixels of {kinds}: halved or quartered"
        elif is_passed(own):
            said[stain] = f"the bytes of {kinds}"
            passed.add(stain)
        else:
            said[stain] = f"pixels of {kinds}: not all are sequential JPEGs"
    told.facts |= {"kept": said, "decoders": decoders}
    return frozenset(passed)


def read_cases(path: Path, tiles: Sequence[Found]) -> dict[Found, str]:
    """The case of each tile that a person's list names.

    Raises:
        ConfigError: No list with columns name and case, or a name that no tile has.
    """
    table = read_columns(path, ("name", "case"), "import.cases")
    found = zip(resolved(list(table), tiles, "import.cases"), table.values(), strict=True)
    return {tile: case for tile, case in found if case}


def _with_cases(pairs: Sequence[Pair], cases: Path | None, told: Told) -> list[Pair]:
    if cases is None:
        return list(pairs)
    tiles = [Found(pair.folder, pair.name, Path()) for pair in pairs]
    found = read_cases(cases, tiles)
    told.facts["cases"] = f"{len(found)} names of a person's list"
    return [
        replace(pair, facts=replace(pair.facts, case_id=found[tile])) if tile in found else pair
        for tile, pair in zip(tiles, pairs, strict=True)
    ]


def _warn_of_numbers(pairs: Sequence[Pair], spec: ImportSpec, told: Told) -> None:
    """What no id is known of cannot be replaced, and tile ids are made of names."""
    if spec.alias == "never":
        return
    bare = [pair for pair in pairs if pair.facts.slide_id is None and pair.facts.case_id is None]
    if count := sum(holds_a_number(pair.name) for pair in bare):
        told.warnings.append(
            f"{count:,} file names hold what looks like a laboratory's number, and tile ids and exports show it: "
            "case_pattern or a list of cases says what to replace; alias: never says that they may stay"
        )


def _with_aliases(pairs: Sequence[Pair], spec: ImportSpec, told: Told) -> list[Pair]:
    ids = {one for pair in pairs for one in (pair.facts.slide_id, pair.facts.case_id) if one}
    numbers = ids if spec.alias == "always" else {one for one in ids if looks_like_a_number(one)}
    if spec.alias == "never" or not numbers:
        return list(pairs)
    # All or none: an id that happens to hold four digits is of the same laboratory.
    own = aliases(ids)
    told.facts["aliases"] = f"{len(own)} ids are replaced by own names"
    made = []
    for pair in pairs:
        name, facts = pair.name, pair.facts
        # The longer one first: a slide's id may hold its case's, and names must not depend on the order of a set.
        for one in sorted({one for one in (facts.slide_id, facts.case_id) if one}, key=lambda one: (-len(one), one)):
            name = re.sub(rf"(?<![A-Za-z0-9]){re.escape(one)}(?![A-Za-z0-9])", own[one], name)
        slide, case = (own[one] if one else None for one in (facts.slide_id, facts.case_id))
        made.append(replace(pair, name=name, facts=replace(facts, slide_id=slide, case_id=case)))
    return made
