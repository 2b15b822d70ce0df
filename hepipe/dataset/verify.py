"""Whether a data set is what its card says: everything that can be computed again is, and each difference is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hepipe.dataset.audit import group_of
from hepipe.dataset.card import DatasetCard, read_card
from hepipe.dataset.cases import IMPORTED, INSIDE, CaseTiles, read_case
from hepipe.dataset.curation import Curated
from hepipe.dataset.fingerprint import Fingerprint, fingerprint, of_rows
from hepipe.dataset.index import assemble
from hepipe.errors import ConfigError, StoreError
from hepipe.parallel import in_order
from hepipe.progress import watched
from hepipe.specs.dataset import SplitsSpec
from hepipe.stores.arrays import content_digest, read_registered
from hepipe.stores.provenance import digest
from hepipe.stores.shards import sealed
from hepipe.stores.tables import INDEX, TILES, read_table, store_beside
from hepipe.stores.tiles import TileStore
from hepipe.stores.upkeep import verify as verify_store

SHOWN = 5
"""Tiles that one line lists."""
OF_INDEX = ("tiles", "labels", "splits")
OF_STAGES = ("slides", "transforms", "readers", "sections", "stains", "versions")
COLUMNS = (
    "tile_id", "case_id", "patient_id", "row_in_store", "her2_score", "score_level", "marker", "section",
    "source_split", "place", "region", "he_sha256", "ihc_sha256",
)  # fmt: skip
"""Of the index; its measurements are ten times larger and decide nothing here."""
OF_LABELS = ("patient_id", "her2_score", "score_level", "marker", "section")


@dataclass(frozen=True)
class Mismatch:
    """One thing that is not what the card says.

    Attributes:
        case_id: Empty for the data set as a whole.
        part: Of the fingerprint; or `card`, `index`, `store`, `pixels`, `artefacts`.
        what: In words.
    """

    case_id: str
    part: str
    what: str

    def __str__(self) -> str:
        return f"{self.case_id or 'data set'}, {self.part}: {self.what}"


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what was wrong.

    Attributes:
        name: Of the data set.
        fingerprint: As the card says.
        mismatches: None for a data set that is what its card says.
        cases: Whose artefacts were read again.
        without: Cases whose artefacts do not lie here: for them the card's own record is all there is.
        tiles: Of the index.
        deep: Tiles whose pixels were decoded and hashed; 0 where that was not asked for.
    """

    name: str
    fingerprint: str
    mismatches: tuple[Mismatch, ...]
    cases: tuple[str, ...]
    without: tuple[str, ...]
    tiles: int
    deep: int


def verify_dataset(folder: Path, *, deep: bool = False, workers: int = 1) -> Verified:
    """Compute a data set's fingerprint again, part by part and case by case, from what lies in its folder.

    Args:
        folder: With `dataset.json` and `index.parquet`; the cases' artefacts are read where they are there.
        deep: Check every byte of the stores, decode their tiles and hash the pixels too.
        workers: Threads that decode; no part of the result.

    Raises:
        StoreError: There is no card or no index.
    """
    card = read_card(folder / "dataset.json")
    index = folder / "index.parquet"
    made = card.made_of
    if made is None:
        raise StoreError(f"{folder / 'dataset.json'}: does not say what its fingerprint is of; run assemble again")
    rows = read_table(index, INDEX, columns=[*COLUMNS, "store", "split", "fold"])
    found = list(_of_card(card, made))
    by_case: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_case.setdefault(Path(row["store"]).stem, []).append(row)
    found += _of_index(made, by_case)
    read, without = [], []
    of_slides = () if IMPORTED in made.cases else (case.case_id for case in card.cases)
    ids = sorted({*made.cases, *of_slides})
    for case_id in ids:
        if Path(case_id).name != case_id or not (folder / "tiles" / f"{case_id}.parquet").is_file():
            without.append(case_id)
            found += _of_transform(folder, case_id, made)
            continue
        try:
            case = read_case(folder, case_id)
        except StoreError as error:
            found.append(Mismatch(case_id, "artefacts", _without(folder, str(error))))
            continue
        read.append(case)
        found += _of_case(case, by_case.get(case_id, []), card)
    found += _of_stages(read, rows, made)
    if not without and len(read) == len(ids):
        found += _of_splits(read, rows, card, made)
    n_deep = 0
    if deep:
        for case_id in by_case:
            problems, n_tiles = _of_store(folder, case_id, by_case[case_id], workers)
            found += problems
            n_deep += n_tiles
    return Verified(
        card.name,
        card.fingerprint,
        tuple(found),
        tuple(case.case_id for case in read),
        tuple(without),
        len(rows),
        n_deep,
    )


def _of_card(card: DatasetCard, made: Fingerprint) -> Iterator[Mismatch]:
    """What the card contradicts itself in."""
    if made.digest != card.fingerprint:
        yield Mismatch("", "card", f"its fingerprint is {card.fingerprint[:16]}, its parts give {made.digest[:16]}")
    for part, own in made.recomputed().items():
        if made.parts.get(part) != own:
            yield Mismatch("", part, "its digest is not that of what the card lists of each case")
    for key, section in made.sections.items():
        if digest(section) != key:
            yield Mismatch("", "sections", f"a section that the card lists is not the one of its digest {key[:16]}")
    named = {key for case in made.cases.values() for key in case.sections.values()} | {made.splits}
    for key in sorted(named - made.sections.keys()):
        yield Mismatch("", "sections", f"the card does not list the section {key[:16]}")


def _of_index(made: Fingerprint, by_case: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Mismatch]:
    """What the index holds that the fingerprint was not taken of."""
    for case_id in sorted(made.cases.keys() | by_case.keys()):
        stated, own = made.cases.get(case_id), by_case.get(case_id, [])
        if stated is None:
            yield Mismatch(case_id, "tiles", f"{len(own)} tiles in the index, none expected")
            continue
        found = of_rows(own)
        if found["n_tiles"] != stated.n_tiles:
            yield Mismatch(case_id, "tiles", f"{found['n_tiles']} tiles in the index, {stated.n_tiles} expected")
        for part, what in zip(OF_INDEX, ("tiles or hashes", "scores, markers or sections", "splits"), strict=True):
            if found[part] != getattr(stated, part) and (part != "tiles" or found["n_tiles"] == stated.n_tiles):
                yield Mismatch(case_id, part, f"the index has other {what} than the fingerprint was taken of")


def _of_case(case: CaseTiles, rows: Sequence[Mapping[str, Any]], card: DatasetCard) -> Iterator[Mismatch]:
    """What the tables of a case contradict the index in."""
    tiles = {str(row["tile_id"]): row for row in case.tiles}
    indexed = {str(row["tile_id"]): row for row in rows}
    lost = sorted(indexed.keys() - tiles.keys())
    if lost:
        yield Mismatch(case.case_id, "tiles", f"not in its table of tiles: {_listed(lost)}")
    for column in COLUMNS:
        odd = sorted(key for key in indexed.keys() & tiles.keys() if indexed[key][column] != tiles[key][column])
        if odd:
            part = "labels" if column in OF_LABELS else "tiles"
            yield Mismatch(case.case_id, part, f"{column} differs between index and table of tiles: {_listed(odd)}")
    passing = {key for key, passed in case.keep.items() if passed}
    if case.held or not any(tiles[key]["place"] == INSIDE for key in passing):
        passing = set()
    by_hand = card.curation
    dropped, added = sorted(passing - indexed.keys()), sorted(indexed.keys() & tiles.keys() - passing)
    n_dropped = 0 if by_hand is None else sum(by_hand.by_case.values())
    allowed = n_dropped if case.case_id == IMPORTED or by_hand is None else by_hand.by_case.get(case.case_id, 0)
    # Decisions may drop the last tile inside: those beside the tumour then go too.
    if len(dropped) > allowed and not (allowed and not indexed):
        yield Mismatch(
            case.case_id,
            "tiles",
            f"pass the filters, are dropped by nobody and are not in the index: {_listed(dropped)}",
        )
    if added and (by_hand is None or len(added) > by_hand.n_brought_back):
        yield Mismatch(case.case_id, "tiles", f"in the index, though the filters drop them: {_listed(added)}")


def _of_transform(folder: Path, case_id: str, made: Fingerprint) -> Iterator[Mismatch]:
    """A transform that travels without the other artefacts of its case, as in a pack."""
    path = folder / "registered" / f"{case_id}.zarr"
    if case_id not in made.cases or not path.exists():
        return
    try:
        own = read_registered(path).digest
    except StoreError as error:
        yield Mismatch(case_id, "transforms", _without(folder, str(error)))
        return
    if own != made.cases[case_id].transforms:
        yield Mismatch(case_id, "transforms", _changed("transforms", made.cases[case_id].transforms, own))


def _of_stages(cases: Sequence[CaseTiles], rows: Sequence[Mapping[str, Any]], made: Fingerprint) -> Iterator[Mismatch]:
    """What the artefacts of the cases give now, against the card."""
    now = fingerprint(rows, cases, splits={}).cases
    for case_id in sorted(now.keys() & made.cases.keys()):
        for part in OF_STAGES:
            before, after = getattr(made.cases[case_id], part), getattr(now[case_id], part)
            if before != after:
                yield Mismatch(case_id, part, _changed(part, before, after))


def _of_splits(
    cases: Sequence[CaseTiles], rows: Sequence[Mapping[str, Any]], card: DatasetCard, made: Fingerprint
) -> Iterator[Mismatch]:
    """Tiles that the section `splits` would put elsewhere, were the patients of the index divided again."""
    section = made.sections.get(made.splits)
    if section is None:
        return  # told already
    split_of = {str(row["tile_id"]): group_of(row) for row in rows}
    parts = [replace(case, keep={key: key in split_of for key in case.keep}) for case in cases]
    try:
        # Near-duplicates were looked at pixel by pixel when the data set was assembled; here nothing is decoded for it.
        spec = SplitsSpec.model_validate({**section, "near_duplicates": "warn"})
        again, _ = assemble(card.name, parts, spec, curated=Curated(card=card.curation))
    except (ConfigError, StoreError, ValidationError) as error:
        yield Mismatch("", "splits", f"cannot be made again: {error}")
        return
    moved: dict[tuple[str, str, str], list[str]] = {}
    for row in again:
        before, after = split_of[row["tile_id"]], group_of(row)
        if after != before:
            moved.setdefault((Path(row["store"]).stem, before, after), []).append(str(row["tile_id"]))
    for (case_id, before, after), ids in sorted(moved.items()):
        yield Mismatch(case_id, "splits", f"{before} in the index, {after} by its section: {_listed(sorted(ids))}")


def _changed(part: str, before: Any, after: Any) -> str:
    if not isinstance(before, Mapping):
        return f"{_short(before)} in the card, {_short(after)} now"
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    whole = part in ("readers", "versions")
    shown = [
        f"{key} {before.get(key, 'none') if whole else _short(before.get(key))} in the card, "
        f"{after.get(key, 'none') if whole else _short(after.get(key))} now"
        for key in changed
    ]
    return "; ".join(shown)


def _of_store(
    folder: Path, case_id: str, rows: Sequence[Mapping[str, Any]], workers: int
) -> tuple[list[Mismatch], int]:
    """Damage of a store, and tiles whose pixels are not those of their hash; how many were decoded."""
    name = str(rows[0]["store"])
    try:
        path = store_beside(folder / "index.parquet", name)
        problems = [Mismatch(case_id, "store", _without(path, text)) for text in verify_store(path, workers=workers)]
        store = TileStore(path)
    except StoreError as error:
        return [Mismatch(case_id, "store", _without(folder, str(error)))], 0
    table = folder / "tiles" / f"{case_id}.parquet"
    every = read_table(table, TILES, columns=COLUMNS) if table.is_file() else rows
    listed = [row for row in every if row["row_in_store"] is not None]

    def look(row: Mapping[str, Any]) -> list[str]:
        found = []
        for stain in ("he", "ihc"):
            try:
                if store.layouts[stain].codec.lossless:
                    own = content_digest(store.read(stain, row["row_in_store"]))
                else:
                    own = hashlib.sha256(sealed(store.chunk(stain, row["row_in_store"]))).hexdigest()
            except (KeyError, StoreError):
                found.append(f"tile {row['tile_id']}: its {stain} cannot be read")
                continue
            if own != row[f"{stain}_sha256"]:
                found.append(f"tile {row['tile_id']}: its {stain} pixels are not those of its hash")
        return found

    looked = in_order(look, listed, workers=workers, name="verify")
    for bad in watched(looked, f"pixels of {case_id}", total=len(listed), unit="tile"):
        problems += [Mismatch(case_id, "pixels", text) for text in bad]
    return problems, len(listed)


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more


def _short(value: object) -> str:
    return str(value)[:16] if value else "none"


def _without(folder: Path, text: str) -> str:
    """A message without the folder's path."""
    return text.replace(f"{folder}/", "").removeprefix(f"{folder}: ")
