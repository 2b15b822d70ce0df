"""Which tiles two data sets differ in, and why: from cards, indices and, where they are there, the cases' tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hepipe.dataset.audit import group_of
from hepipe.dataset.card import DatasetCard, read_card
from hepipe.dataset.cases import IMPORTED
from hepipe.dataset.curation import content_id
from hepipe.dataset.decisions import table_text
from hepipe.dataset.fingerprint import PARTS, CaseParts
from hepipe.errors import StoreError
from hepipe.stores.codecs import settings_of
from hepipe.stores.tables import INDEX, TILES, VERDICTS, read_provenance, read_table, store_beside
from hepipe.stores.tiles import TileStore

Change = Literal["only in A", "only in B", "renamed", "pixels", "labels", "split"]
CHANGES: tuple[Change, ...] = ("only in A", "only in B", "renamed", "pixels", "labels", "split")
HEADER = ("tile_id", "case_id", "change", "why", "a", "b")
COLUMNS = (
    "tile_id", "he_sha256", "ihc_sha256", "her2_score", "score_level", "marker", "section", "place", "region", "store",
    "split", "fold",
)  # fmt: skip
LABELS = ("her2_score", "score_level", "marker", "section", "place", "region")
SHOWN_KEYS = 4
"""Keys of a section that a reason names."""
PIXEL_STAGES = {"checked": "slides", "tiles": "tiling"}
"""Stages whose section decides pixels, and what it is called in the config."""
CELL_STAGES = {**PIXEL_STAGES, "tissue": "tissue"}
"""Those that decide which cells of a slide are cut."""


@dataclass(frozen=True)
class TileDiff:
    """One way in which a tile differs.

    Attributes:
        tile_id: Of A, where A has it.
        case_id: Its case, or `imported`.
        change: What kind of difference.
        why: In words.
        a: What A says of it.
        b: What B says of it.
    """

    tile_id: str
    case_id: str
    change: Change
    why: str
    a: str = ""
    b: str = ""


@dataclass(frozen=True)
class DatasetDiff:
    """How two data sets differ.

    Attributes:
        names: Of A and B.
        fingerprints: Of A and B.
        parts: Of the fingerprint that differ, and by what.
        tiles: Every difference of a tile.
        n_same: Tiles of both whose pixels, labels and split are the same.
    """

    names: tuple[str, str]
    fingerprints: tuple[str, str]
    parts: Mapping[str, str]
    tiles: tuple[TileDiff, ...]
    n_same: int

    @property
    def is_empty(self) -> bool:
        """Whether they are the same data set."""
        return not self.tiles and self.fingerprints[0] == self.fingerprints[1]

    def lines(self) -> Iterator[str]:
        """What a person reads: parts, then differences of tiles by case and reason."""
        (name_a, name_b), (print_a, print_b) = self.names, self.fingerprints
        yield f"A {name_a} {print_a[:16]}"
        yield f"B {name_b} {print_b[:16]}"
        if self.is_empty:
            yield f"the same data set: {self.n_same} tiles"
            return
        for part, what in self.parts.items():
            yield f"{part}: {what}"
        yield f"{self.n_same} tiles are the same"
        groups = Counter((one.change, one.case_id, one.why) for one in self.tiles)
        for change in CHANGES:
            own = {key: count for key, count in sorted(groups.items()) if key[0] == change}
            if own:
                yield f"{change}: {sum(own.values())} tiles"
                yield from (f"  {case_id}: {count}, {why}" for (_, case_id, why), count in own.items())

    def csv(self) -> str:
        """Every difference of a tile as CSV."""
        rows = ([one.tile_id, one.case_id, one.change, one.why, one.a, one.b] for one in self.tiles)
        return table_text(HEADER, rows)


def diff_datasets(a: Path, b: Path) -> DatasetDiff:
    """How two data sets differ; their pixels are compared by their hashes.

    Tiles are matched by id, and those without a partner by their pixels.

    Args:
        a: Folder with `dataset.json` and `index.parquet`; its tables say why tiles are missing, where they are there.
        b: The other one.

    Raises:
        StoreError: One has no card or no index.
    """
    one, two = _Side(a), _Side(b)
    found = []
    n_same = 0
    renamed = _renamed(one, two)
    new_names = set(renamed.values())
    for tile_id in sorted(one.rows.keys() | two.rows.keys()):
        row_a, row_b = one.rows.get(tile_id), two.rows.get(tile_id)
        if row_a is not None and row_b is not None:
            own = list(_of_both(tile_id, row_a, row_b, one, two))
            n_same += not own
            found += own
        elif row_a is not None:
            if tile_id in renamed:
                other = two.rows[renamed[tile_id]]
                same_pixels = f"the same pixels are tile {renamed[tile_id]} in B"
                found.append(TileDiff(tile_id, _part(row_a), "renamed", same_pixels, tile_id, renamed[tile_id]))
                found += _of_both(tile_id, row_a, other, one, two)
            else:
                found.append(TileDiff(tile_id, _part(row_a), "only in A", _why_missing(row_a, one, two, "B")))
        elif row_b is not None and tile_id not in new_names:
            found.append(TileDiff(tile_id, _part(row_b), "only in B", _why_missing(row_b, two, one, "A")))
    return DatasetDiff(
        (one.card.name, two.card.name),
        (one.card.fingerprint, two.card.fingerprint),
        _parts(one, two),
        tuple(found),
        n_same,
    )


class _Side:
    """One of the two data sets; the tables of its cases are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card: DatasetCard = read_card(folder / "dataset.json")
        index = read_table(folder / "index.parquet", INDEX, columns=COLUMNS)
        self.rows = {str(row["tile_id"]): row for row in index}
        self.described = {case.case_id: case for case in self.card.cases}
        self._tables: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]] | None] = {}
        self._kept_as: dict[tuple[str, str], tuple[str, bool] | None] = {}

    def parts(self, case_id: str) -> CaseParts | None:
        """What a case brought to the fingerprint."""
        return None if self.card.made_of is None else self.card.made_of.cases.get(case_id)

    def section(self, case_id: str, stage: str) -> Mapping[str, Any]:
        """What a stage ran with for a case."""
        made = self.card.made_of
        return {} if made is None or case_id not in made.cases else made.section(case_id, stage)

    def kept_as(self, case_id: str, stain: str) -> tuple[str, bool] | None:
        """How a case's tiles are kept, and whether that loses anything; None where the store does not lie here."""
        if (case_id, stain) not in self._kept_as:
            try:
                codec = (
                    TileStore(store_beside(self.folder / "index.parquet", f"tiles/{case_id}.zarr")).layouts[stain].codec
                )
            except (KeyError, StoreError):
                self._kept_as[case_id, stain] = None
            else:
                settings = (f"{key} {value}" for key, value in settings_of(codec).items() if key != "tables")
                self._kept_as[case_id, stain] = " ".join([codec.name, *settings]), not codec.lossless
        return self._kept_as[case_id, stain]

    def limits(self, case_id: str) -> Mapping[str, Any] | None:
        """The section that a case was graded by; None where that is not known."""
        parts = self.parts(case_id)
        if parts is not None and "verdict" in parts.sections:
            return self.section(case_id, "verdict")
        try:
            return read_provenance(self.folder / "verdict" / f"{case_id}.parquet").spec
        except StoreError:
            return None

    def tables(self, case_id: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Rows of the tile table and verdicts of a case by tile id; None where they do not lie here."""
        if case_id not in self._tables:
            try:
                tiles = read_table(
                    self.folder / "tiles" / f"{case_id}.parquet", TILES, columns=["tile_id", "problem", "measurements"]
                )
                verdicts = read_table(self.folder / "verdict" / f"{case_id}.parquet", VERDICTS)
            except StoreError:
                self._tables[case_id] = None
            else:
                self._tables[case_id] = (
                    {row["tile_id"]: row for row in tiles},
                    {row["tile_id"]: row for row in verdicts},
                )
        return self._tables[case_id]


def _renamed(one: _Side, two: _Side) -> dict[str, str]:
    """Tiles that are in one data set alone by their ids, and in both by their pixels; where that is one to one."""

    def alone(side: _Side, other: _Side) -> dict[str, str]:
        found: dict[str, list[str]] = {}
        for tile_id, row in side.rows.items():
            if tile_id not in other.rows and row["he_sha256"] and row["ihc_sha256"]:
                found.setdefault(content_id(row), []).append(tile_id)
        return {key: ids[0] for key, ids in found.items() if len(ids) == 1}

    of_a, of_b = alone(one, two), alone(two, one)
    return {tile_id: of_b[key] for key, tile_id in of_a.items() if key in of_b}


def _part(row: Mapping[str, Any]) -> str:
    return Path(row["store"]).stem


def _of_both(tile_id: str, a: Mapping[str, Any], b: Mapping[str, Any], one: _Side, two: _Side) -> Iterator[TileDiff]:
    """Differences of a tile that both have."""
    case_id = _part(a)
    for stain, name in (("he", "H&E"), ("ihc", "IHC")):
        before, after = a[f"{stain}_sha256"], b[f"{stain}_sha256"]
        if before != after:
            why = f"{name}: {_why_pixels(stain, _part(a), _part(b), one, two)}"
            yield TileDiff(tile_id, case_id, "pixels", why, str(before)[:16], str(after)[:16])
    changed = [column for column in LABELS if a[column] != b[column]]
    if changed:
        yield TileDiff(tile_id, case_id, "labels", ", ".join(changed), _of(a, changed), _of(b, changed))
    if group_of(a) != group_of(b):
        yield TileDiff(tile_id, case_id, "split", _why_split(one, two), group_of(a), group_of(b))


def _of(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return ", ".join("unknown" if row[column] is None else str(row[column]) for column in columns)


def _why_pixels(stain: str, case_a: str, case_b: str, one: _Side, two: _Side) -> str:
    a, b = one.parts(case_a), two.parts(case_b)
    if a is None or b is None:
        return "a card that does not say what its fingerprint is of; run assemble again"
    reasons = []
    if a.slides.get(stain) != b.slides.get(stain):
        reasons.append("another slide")
    if stain == "ihc" and a.transforms != b.transforms:
        reasons.append("another transform")
    if a.readers.get(stain) != b.readers.get(stain):
        reasons.append(f"another reader ({a.readers.get(stain, 'none')}; {b.readers.get(stain, 'none')})")
    reasons += _sections(case_a, case_b, one, two, PIXEL_STAGES)
    if a.versions.get("tiles") != b.versions.get("tiles"):
        reasons.append(f"another version of hepipe ({a.versions.get('tiles')}; {b.versions.get('tiles')})")
    if not reasons and a.decoders.get(stain) != b.decoders.get(stain):
        reasons.append(f"another library decodes ({a.decoders.get(stain, 'none')}; {b.decoders.get(stain, 'none')})")
    kept_a, kept_b = one.kept_as(case_a, stain), two.kept_as(case_b, stain)
    if not reasons and kept_a and kept_b and kept_a != kept_b and (kept_a[1] or kept_b[1]):
        reasons.append(f"kept with another loss ({kept_a[0]}; {kept_b[0]})")
    if not reasons and not a.slides:
        return "other files in the imported set"
    return "; ".join(reasons) or (
        "unexplained: slide, transform, reader, sections, version and the library that decodes are the same"
    )


def _sections(case_a: str, case_b: str, one: _Side, two: _Side, stages: Mapping[str, str]) -> list[str]:
    found = []
    for stage, name in stages.items():
        changed = _changed_keys(one.section(case_a, stage), two.section(case_b, stage))
        if changed:
            is_import = case_a == IMPORTED and stage == "tiles"
            found.append(f"section {'import' if is_import else name}: {changed}")
    return found


def _changed_keys(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The keys that two sections differ in, with both values."""
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    changed = [key for key in sorted(flat_a.keys() | flat_b.keys()) if flat_a.get(key) != flat_b.get(key)]
    shown = [f"{key} {_value(flat_a.get(key))} -> {_value(flat_b.get(key))}" for key in changed[:SHOWN_KEYS]]
    more = [f"{len(changed) - SHOWN_KEYS} more"] if len(changed) > SHOWN_KEYS else []
    return ", ".join([*shown, *more])


def _flat(section: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _value(value: Any) -> str:
    return "none" if value is None else str(value)[:40]


def _why_missing(row: Mapping[str, Any], side: _Side, other: _Side, name: str) -> str:
    """Why a tile of one side is not in the index of the other, which is called `name`."""
    tile_id, case_id = str(row["tile_id"]), _part(row)
    described = other.described.get(case_id)
    tables = other.tables(case_id)
    if described is not None and described.status.failed:
        status = described.status
        return f"its case failed in {name} at {status.stage}: {status.reason}"
    if described is not None and described.n_held:
        return f"its case waits for a person's word in {name}"
    if described is None and tables is None:
        return f"{name} has no such case"
    if tables is None:
        return f"unknown: the tables of its case do not lie in {name}"
    tiles, verdicts = tables
    if tile_id not in tiles:
        reasons = _why_other_cells(case_id, side, other)
        return f"not cut in {name}: {reasons}"
    verdict = verdicts.get(tile_id)
    if tiles[tile_id]["problem"]:
        return f"cannot be read in {name}: {tiles[tile_id]['problem']}"
    if verdict is None:
        return f"not graded in {name}"
    if not verdict["keep"]:
        return f"dropped in {name} by {verdict['reason']}{_same_limits(case_id, side, other)}"
    if other.card.curation is not None:
        return f"dropped in {name} by a person"
    return f"passes in {name}, but no split takes it"


def _same_limits(case_id: str, side: _Side, other: _Side) -> str:
    """Whether the limits differ, which a drop on one side alone may come from; silent where one is not known."""
    a, b = side.limits(case_id), other.limits(case_id)
    if a is None or b is None:
        return ""
    changed = _changed_keys(a, b)
    return f" (section quality: {changed})" if changed else " (the same section quality: it measures otherwise)"


def _why_other_cells(case_id: str, side: _Side, other: _Side) -> str:
    a, b = side.parts(case_id), other.parts(case_id)
    if a is None or b is None:
        return "other tissue, outlines or grid"
    reasons = [
        f"another {name} slide"
        for stain, name in (("he", "H&E"), ("ihc", "IHC"))
        if a.slides.get(stain) != b.slides.get(stain)
    ]
    if a.transforms != b.transforms:
        reasons.append("another transform")
    reasons += _sections(case_id, case_id, side, other, CELL_STAGES)
    return "; ".join(reasons) or "other outlines, or another version of hepipe"


def _why_split(one: _Side, two: _Side) -> str:
    a, b = one.card.made_of, two.card.made_of
    if a is None or b is None:
        return "unknown: a card does not say what its fingerprint is of"
    changed = _changed_keys(a.sections.get(a.splits, {}), b.sections.get(b.splits, {}))
    if changed:
        return f"section splits: {changed}"
    if a.parts["tiles"] != b.parts["tiles"]:
        return "the same section splits, but other tiles to divide"
    if a.parts["labels"] != b.parts["labels"]:
        return "the same section splits, but other scores to divide by"
    return "the same section splits and tiles: patients or splits of the slide sheet differ"


def _parts(one: _Side, two: _Side) -> dict[str, str]:
    """The parts of the fingerprints that differ, and by what."""
    a, b = one.card.made_of, two.card.made_of
    if a is None or b is None:
        return {} if one.card.fingerprint == two.card.fingerprint else {"card": "one does not say what it is of"}
    found: dict[str, str] = {}
    for part in PARTS:
        if a.parts.get(part) == b.parts.get(part):
            continue
        if part == "curation":
            found[part] = _changed_keys(a.curation, b.curation)
            continue
        only_a, only_b = sorted(a.cases.keys() - b.cases.keys()), sorted(b.cases.keys() - a.cases.keys())
        differ = [
            case_id
            for case_id in sorted(a.cases.keys() & b.cases.keys())
            if getattr(a.cases[case_id], part) != getattr(b.cases[case_id], part)
        ]
        told = [f"only in A: {_named(only_a)}"] if only_a else []
        told += [f"only in B: {_named(only_b)}"] if only_b else []
        told += [f"other in {_named(differ)}"] if differ else []
        if part == "splits" and a.splits != b.splits:
            told.append(_changed_keys(a.sections.get(a.splits, {}), b.sections.get(b.splits, {})))
        if part == "versions" and a.version != b.version:
            told.append(f"assembled by {a.version}; {b.version}")
        if part == "sections":
            told += _stages_that_differ(one, two, differ)
        found[part] = "; ".join(told)
    return found


def _stages_that_differ(one: _Side, two: _Side, cases: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for case_id in cases:
        a, b = one.parts(case_id), two.parts(case_id)
        assert a is not None
        assert b is not None
        for stage in sorted(a.sections.keys() | b.sections.keys()):
            if a.sections.get(stage) != b.sections.get(stage):
                found[f"{stage}: {_changed_keys(one.section(case_id, stage), two.section(case_id, stage))}"] = None
    return list(found)


def _named(ids: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(ids[:shown]) + more
