"""Landmark files of other programs, told apart by what they hold and never by their name.

Known are: QuPath GeoJSON (points of one slide), BigWarp CSV (pairs, in the unit of the pictures it was made on),
tables of one slide with X and Y (ANHIR), tables of pairs `x_he,y_he,x_ihc,y_ihc`, and the long table
`case,landmark,annotator,frame,x,y`. Programs differ in whether a pixel's corner or its centre has whole coordinates;
that half px of level 0 is below what a hand can place and is not corrected.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from hepipe.errors import RegistrationError

Format = Literal["pairs", "long", "bigwarp", "points", "geojson"]
PAIR_COLUMNS = ("x_he", "y_he", "x_ihc", "y_ihc")
LONG_COLUMNS = ("case", "landmark", "frame", "x", "y")
ID_COLUMNS = ("", "id", "name", "landmark", "point", "label")
FRAMES = ("he", "ihc")
LAYOUTS = (
    "x_he,y_he,x_ihc,y_ihc; two files with X,Y and an id each; case,landmark,annotator,frame,x,y; "
    "BigWarp's CSV; two GeoJSON files of QuPath"
)


@dataclass(frozen=True)
class Listed:
    """What one landmark file holds.

    Attributes:
        format: How it is written.
        points: By id: (x, y) of one slide, or (x, y, x, y) of the H&E or fixed picture and its partner.
        by_order: The file names no point; ids are places in it, from 1.
        notes: What was left out.
    """

    format: Format
    points: dict[str, tuple[float, ...]]
    by_order: bool = False
    notes: tuple[str, ...] = ()

    @property
    def is_pairs(self) -> bool:
        """Whether it holds both slides."""
        return self.format in ("pairs", "long", "bigwarp")


def read_listed(case_id: str, path: Path) -> Listed:
    """The landmarks of one file, in its own unit.

    Args:
        case_id: Named in errors; of the long table its rows are taken.
        path: Appears in no error, nor does text of the file: it may be another one than meant.

    Raises:
        RegistrationError: Missing, no text, of no known layout, or a value that is no number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _error(case_id, "its landmarks file is missing; correct or empty the cell") from None
    except IsADirectoryError:
        raise _error(case_id, "its landmarks are a folder; a file is expected") from None
    except UnicodeDecodeError:
        raise _error(case_id, "its landmarks file is no UTF-8 text; a CSV or GeoJSON is expected") from None
    if text.lstrip()[:1] in ("{", "["):
        return _geojson(case_id, text)
    rows = [(number, row) for number, row in enumerate(_csv_rows(text), start=1) if any(row)]
    if not rows:
        raise _error(case_id, "landmarks: the file is empty")
    if _is_bigwarp(rows[0][1]):
        return _bigwarp(case_id, rows)
    header = [name.lower() for name in rows[0][1]]
    records = [(number, dict(zip(header, row, strict=False))) for number, row in rows[1:]]
    if {"case", "frame"} <= set(header):
        return _long(case_id, header, records)
    if any(name in header for name in PAIR_COLUMNS):
        _need(case_id, header, PAIR_COLUMNS)
        points = {str(place): _numbers(case_id, at, row, PAIR_COLUMNS) for place, (at, row) in _counted(records)}
        return Listed("pairs", points, by_order=True)
    if "x" in header and "y" in header:
        return _table(case_id, header, records)
    known = [name for name in header if name in {"x", "y", *LONG_COLUMNS}]
    raise _error(
        case_id,
        f"landmarks: no column x_he and no columns X and Y in a table of {len(header)} columns"
        f"{' (known are ' + ', '.join(known) + ')' if known else ''}; known layouts: {LAYOUTS}",
    )


def pairs_csv(he_px0: Float[np.ndarray, "n 2"], ihc_px0: Float[np.ndarray, "n 2"]) -> str:
    """A table of pairs in px0, 0.01 px fine: what the sheet's column `landmarks` and the page take."""
    lines = [",".join(PAIR_COLUMNS)]
    for row in np.hstack([he_px0, ihc_px0]):
        lines.append(",".join(f"{value:.2f}" for value in row))
    return "\n".join(lines) + "\n"


def qupath_geojson(names: Sequence[str], points_px0: Float[np.ndarray, "n 2"]) -> str:
    """Named points of one slide, px0, as QuPath reads them (File > Import objects from file)."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [round(float(value), 2) for value in point]},
            "properties": {
                "objectType": "annotation",
                "name": name,
                "classification": {"name": "landmark", "color": [210, 80, 20]},
            },
        }
        for name, point in zip(names, points_px0, strict=True)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"


# Layouts ---------------------------------------------------------------------------------------------------


def _csv_rows(text: str) -> list[list[str]]:
    first = text.lstrip().split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    rows = csv.reader(text.splitlines(), delimiter=separator)
    decimal = "," if separator == ";" else "."
    # A spreadsheet of a country with decimal commas writes semicolons between.
    return [[cell.strip().replace(decimal, ".") for cell in row] for row in rows]


def _is_bigwarp(row: list[str]) -> bool:
    return len(row) >= 6 and row[1].lower() in ("true", "false")


def _bigwarp(case_id: str, rows: list[tuple[int, list[str]]]) -> Listed:
    """Rows of name, active, moving x, y (, z), fixed x, y (, z); without header. What lacks a side is `Infinity`."""
    points: dict[str, tuple[float, ...]] = {}
    skipped = 0
    for number, row in rows:
        sides = len(row) - 2
        if not _is_bigwarp(row) or sides not in (4, 6):
            raise _error(
                case_id,
                f"landmarks: line {number} has {len(row)} columns; BigWarp writes 6 (2D) or 8 (3D) in each line",
            )
        moving, fixed = row[2:4], row[2 + sides // 2 : 4 + sides // 2]
        values = tuple(_number(case_id, number, cell, infinite=True) for cell in (*fixed, *moving))
        if row[1].lower() == "false" or not all(math.isfinite(value) for value in values):
            skipped += 1
            continue
        points[str(len(points) + 1)] = values
    notes = (f"{skipped} rows were left out: not active, or placed on one slide only",) if skipped else ()
    return Listed("bigwarp", points, by_order=True, notes=notes)


def _long(case_id: str, header: list[str], records: list[tuple[int, dict[str, str]]]) -> Listed:
    """One row per point and annotator; annotators are averaged."""
    _need(case_id, header, LONG_COLUMNS)
    seen: dict[str, dict[str, list[tuple[float, ...]]]] = {frame: defaultdict(list) for frame in FRAMES}
    cases = {row["case"] for _, row in records}
    for number, row in records:
        if row["case"] != case_id:
            continue
        frame = row["frame"].lower()
        if frame not in FRAMES:
            raise _error(case_id, f"landmarks: line {number}, column frame: `he` or `ihc` expected")
        seen[frame][row["landmark"]].append(_numbers(case_id, number, row, ("x", "y")))
    if not seen["he"] and not seen["ihc"]:
        raise _error(case_id, f"landmarks: none of the {len(cases)} cases in the table's column case is this one")
    he, ihc = (
        {name: tuple(np.mean(points, axis=0).tolist()) for name, points in seen[frame].items()} for frame in FRAMES
    )
    pairs, notes = join_by_id(he, ihc)
    return Listed("long", pairs, notes=notes)


def _table(case_id: str, header: list[str], records: list[tuple[int, dict[str, str]]]) -> Listed:
    column = next((name for name in ID_COLUMNS if name in header), None)
    points: dict[str, tuple[float, ...]] = {}
    for place, (number, row) in _counted(records):
        name = str(place) if column is None else row[column]
        if name in points:
            raise _error(case_id, f"landmarks: line {number} repeats the id of an earlier one; ids must differ")
        points[name] = _numbers(case_id, number, row, ("x", "y"))
    return Listed("points", points, by_order=column is None)


def _geojson(case_id: str, text: str) -> Listed:
    """Points of one slide by the name that a person gave them, else by their class, else by their order."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise _error(
            case_id, f"landmarks: line {error.lineno} of the GeoJSON is not readable; export it again"
        ) from None
    features = found.get("features", [found]) if isinstance(found, dict) else found
    named: list[tuple[str, tuple[float, ...]]] = []
    others = 0
    for place, feature in enumerate(features, start=1):
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        if not isinstance(geometry, dict) or geometry.get("type") not in ("Point", "MultiPoint"):
            others += 1
            continue
        kind, at = geometry["type"], geometry.get("coordinates") or []
        name = _feature_name(feature)
        for number, point in enumerate([at] if kind == "Point" else at, start=1):
            label = name if kind == "Point" else f"{name}#{number}"
            named.append((label, _geojson_point(case_id, place, point)))
    if not named:
        raise _error(case_id, f"landmarks: {others} objects and no point in the GeoJSON; use QuPath's points tool")
    notes = (f"{others} objects that are no points were left out",) if others else ()
    labels = [label for label, _ in named]
    if len({label.split("#")[0] for label in labels}) == 1:
        # One word at all points, or none, is a class and no name: their order is what pairs them.
        points = {f"#{number}": point for number, (_, point) in enumerate(named, start=1)}
        return Listed("geojson", points, by_order=True, notes=notes)
    if len(set(labels)) < len(labels):
        repeated = len(labels) - len(set(labels))
        raise _error(
            case_id, f"landmarks: {repeated} of {len(labels)} points share a name with another; give each its own"
        )
    return Listed("geojson", dict(named), notes=notes)


def _feature_name(feature: Mapping[str, Any]) -> str:
    properties = feature.get("properties") or {}
    classification = properties.get("classification") or {}
    by_class = classification.get("name") if isinstance(classification, dict) else None
    return str(properties.get("name") or by_class or "").strip()


def _geojson_point(case_id: str, place: int, point: object) -> tuple[float, ...]:
    values = point[:2] if isinstance(point, list) else []
    if len(values) != 2 or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise _error(case_id, f"landmarks: object {place} of the GeoJSON has a point without two numbers")
    return float(values[0]), float(values[1])


def join_by_id(
    he: Mapping[str, tuple[float, ...]], ihc: Mapping[str, tuple[float, ...]]
) -> tuple[dict[str, tuple[float, ...]], tuple[str, ...]]:
    """Pairs of the ids that both slides have, in the order of the H&E, and a note on the others."""
    pairs = {name: (*he[name], *ihc[name]) for name in he if name in ihc}
    alone = len(he) + len(ihc) - 2 * len(pairs)
    return pairs, ((f"{alone} points have no partner of the same id and were left out",) if alone else ())


# Cells -----------------------------------------------------------------------------------------------------


def _need(case_id: str, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise _error(case_id, f"landmarks: no column {', '.join(missing)}; {', '.join(columns)} expected")


def _counted(records: list[tuple[int, dict[str, str]]]) -> Iterable[tuple[int, tuple[int, dict[str, str]]]]:
    return enumerate(records, start=1)


def _numbers(case_id: str, line: int, row: Mapping[str, str], columns: Sequence[str]) -> tuple[float, ...]:
    return tuple(_number(case_id, line, row.get(name, ""), column=name) for name in columns)


def _number(case_id: str, line: int, cell: str, *, column: str = "", infinite: bool = False) -> float:
    at = f"line {line}{', column ' + column if column else ''}"
    try:
        value = float(cell)
    except ValueError:
        raise _error(case_id, f"landmarks: {at} holds no number") from None
    if math.isnan(value) or (math.isinf(value) and not infinite):
        raise _error(case_id, f"landmarks: {at} holds {value:g}; delete the row or place the point")
    return value


def _error(case_id: str, reason: str) -> RegistrationError:
    return RegistrationError(case_id, reason)
