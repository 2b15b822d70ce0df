"""Points of one slide as points of the other: tables and QuPath's GeoJSON, everything else in them kept."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from hepipe.errors import ConfigError
from hepipe.geometry import Transform
from hepipe.slides.writer import whole_file

TABLES = (".csv", ".tsv", ".txt")
GEOJSON = (".geojson", ".json")
FLAG = "extrapolated"
MAX_BYTES = 256_000_000
"""Of a file, which is held whole: about 5 million rows of a table, or 300,000 cells of QuPath."""
MAX_PX0 = 1e7
"""No scanner makes slides of more px; larger numbers are other units, or no coordinates."""
SEPARATORS = (",", ";", "\t")
DEPTHS = {"Point": 0, "MultiPoint": 1, "LineString": 1, "Polygon": 2, "MultiLineString": 2, "MultiPolygon": 3}
"""How many lists lie around a position of each kind of geometry (RFC 7946, section 3.1)."""


SOLVED_PX = 1e-4
"""How near the solved inverse comes, px of level 0."""
SOLVE_STEPS = 40
"""At most; a fold has no inverse, and there the nearest place found is kept."""


@dataclass(frozen=True)
class Way:
    """How points get from one slide to the other.

    Attributes:
        transform: From the slide that the points lie on to the other.
        forward: Where `transform` is the stored inverse: what it is the inverse of. Both fields are bilinear, so they
            undo each other on their grid's nodes only (0.08 px between nodes 4 px apart, seen; more on a coarser
            grid); the inverse is then solved for each point, starting from the stored one.
    """

    transform: Transform
    forward: Transform | None = None

    def trace(self, points: Float[np.ndarray, "n 2"]) -> tuple[Float[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
        """Moved points, and which of them the field covers; the others follow the affine part alone."""
        found, inside = self.transform.trace(points)
        if self.forward is None:
            return found, inside
        back = np.linalg.inv(self.forward.affine)[:2, :2]
        best, least = found, np.full(len(points), np.inf)
        place = found
        for _ in range(SOLVE_STEPS):
            reached, covered = self.forward.trace(place)
            miss = points - reached
            error = np.where(covered & inside, np.hypot(miss[:, 0], miss[:, 1]), np.inf)
            better = error < least
            best, least = np.where(better[:, None], place, best), np.minimum(error, least)
            if not (np.isfinite(error) & (error > SOLVED_PX)).any():
                break
            place = place + miss @ back.T
        return best, inside


@dataclass(frozen=True)
class Moved:
    """How many points went through, and how many of them lie beyond the field, where the affine part alone holds."""

    points: int
    extrapolated: int


def warp_points(source: Path, target: Path, way: Way) -> Moved:
    """Send the points of a file through a transform; the new file appears when it is whole.

    A table keeps its header, its other columns, its order, its separator and its line ends byte for byte, and gains a
    last column `extrapolated` of 0 and 1; one that has this column already keeps its ones. In GeoJSON a feature with a
    point beyond the field gets the property `extrapolated: true`. Outlines keep their vertices: QuPath's own are a few
    px apart, and none are added on long edges.

    Args:
        source: A table with columns X and Y or x and y, or GeoJSON; told by its suffix. Px of level 0.
        target: To write, of the same kind.
        way: From the slide that the points lie on to the other.

    Raises:
        ConfigError: A file that cannot be used; names the row and column, or the feature.
    """
    kinds = [
        next((kind for kind in (TABLES, GEOJSON) if path.suffix.lower() in kind), None) for path in (source, target)
    ]
    for path, kind in zip((source, target), kinds, strict=True):
        if kind is None:
            raise ConfigError(f"{path.name}: {', '.join(TABLES + GEOJSON)} expected; rename it by what it holds")
    if kinds[0] is not kinds[1]:
        raise ConfigError(f"{source.name} and {target.name}: one is a table, the other GeoJSON; give both one kind")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target.name}: would replace the points it is made from; give another --out")
    text = _read(source)
    if kinds[0] is TABLES:
        made, moved = warp_table(text, way, name=source.name)
    else:
        made, moved = warp_geojson(text, way, name=source.name)
    with whole_file(target) as file:
        file.write(made.encode("utf-8", "surrogateescape"))
    return moved


def _read(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(f"{path.name}: {size / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} expected; split it")
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        raise ConfigError(f"{path.name}: no UTF-8 text; save it as CSV UTF-8 or as GeoJSON")
    # Bytes of another encoding in other columns come out as they went in.
    text = data.decode("utf-8", "surrogateescape")
    if not text.strip("\ufeff \t\r\n"):
        raise ConfigError(f"{path.name}: the file is empty; points expected")
    return text


# Tables ----------------------------------------------------------------------------------------------------


def warp_table(text: str, way: Way, *, name: str) -> tuple[str, Moved]:
    """A table with its two coordinates moved and the flag as last column.

    Args:
        text: With header; a byte order mark is kept.
        way: From the slide of the points to the other.
        name: Of the file, for errors.

    Raises:
        ConfigError: No such columns, a row of another length, a coordinate that is none.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    records = list(_records(text.removeprefix(mark)))
    if records[-1][0].count('"') % 2:
        raise ConfigError(f"{name}: row {len(records)} opens a quote that no row closes; correct the row")
    first = next((index for index, (line, _) in enumerate(records) if line.strip()), 0)
    separator, header = _header(records[first][0], name)
    x, y = (_column(header, axis, name) for axis in "xy")
    flag = header.index(FLAG) if FLAG in header else None
    rows: list[tuple[int, list[str]]] = []
    for index, (line, _) in enumerate(records[first + 1 :], start=first + 1):
        if not line.strip():
            continue
        cells = _cells(line, separator)
        if len(cells) != len(header):
            raise ConfigError(
                f"{name}: row {index + 1} has {len(cells)} columns, its header {len(header)}; correct the row"
            )
        rows.append((index, cells))
    if not rows:
        raise ConfigError(f"{name}: a header and no points below it")
    points = np.array(
        [
            [_coordinate(cells[at], f"{name}: row {index + 1}, column {header[at]}") for at in (x, y)]
            for index, cells in rows
        ]
    )
    places, beyond = _move(points, way, name=name)
    for (index, cells), place, out in zip(rows, places, beyond, strict=True):
        cells[x], cells[y] = repr(float(place[0])), repr(float(place[1]))
        if flag is None:
            cells.append(str(int(out)))
        elif (before := cells[flag].strip(' "')) not in ("0", "1"):
            raise ConfigError(f"{name}: row {index + 1}, column {FLAG} is {_shown(before)}, 0 or 1 expected; rename it")
        else:
            cells[flag] = str(int(out or before == "1"))
        records[index] = (separator.join(cells), records[index][1])
    if flag is None:
        records[first] = (records[first][0] + separator + FLAG, records[first][1])
    return mark + "".join(line + end for line, end in records), Moved(len(rows), int(beyond.sum()))


def _records(text: str) -> list[tuple[str, str]]:
    """Lines and their ends; a line end inside quotes ends no line."""
    parts = re.split(r"(\r\n|\n|\r)", text)
    records: list[tuple[str, str]] = []
    held: list[str] = []
    quoted = False
    for line, end in zip(parts[::2], (*parts[1::2], ""), strict=True):
        held.append(line)
        quoted ^= bool(line.count('"') % 2)
        if quoted and end:
            held.append(end)
            continue
        if line or end or len(held) > 1:
            records.append(("".join(held), end))
        held = []
    return records


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a line as they stand there, quotes included."""
    if '"' not in line:
        return line.split(separator)
    cells: list[str] = [""]
    quoted = False
    for part in re.split(f'({re.escape(separator)}|")', line):
        if part == '"':
            quoted = not quoted
        if part == separator and not quoted:
            cells.append("")
        else:
            cells[-1] += part
    return cells


def _header(line: str, name: str) -> tuple[str, list[str]]:
    """The separator under which a line names both coordinates, and its columns without quotes."""
    for separator in SEPARATORS:
        columns = [cell.strip().strip('"').strip() for cell in _cells(line, separator)]
        if {"x", "y"} <= {column.lower() for column in columns}:
            return separator, columns
    raise ConfigError(
        f"{name}: no columns X and Y in its first line, {_shown(line)}; "
        "a header with both, and commas, semicolons or tabs between columns expected"
    )


def _column(header: list[str], axis: str, name: str) -> int:
    found = [index for index, column in enumerate(header) if column.lower() == axis]
    if len(found) > 1:
        raise ConfigError(f"{name}: {len(found)} columns {axis}, one expected; rename the others")
    return found[0]


def _coordinate(cell: str, where: str) -> float:
    text = cell.strip().strip('"').strip()
    try:
        # Python alone would take 1_000 and digits of other scripts.
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    return _checked(value, where, text)


def _checked(value: float | int, where: str, found: object) -> float:
    # A comparison that nan fails too, and that an integer of any length survives.
    if not abs(value) <= MAX_PX0:
        raise ConfigError(
            f"{where} is {_shown(found)}, px of level 0 expected: a number with a point, "
            f"-{MAX_PX0:,.0f} to {MAX_PX0:,.0f}"
        )
    return float(value)


def _shown(value: object) -> str:
    """A value for an error: short, on one line, printable."""
    text = ascii(value if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:57] + "...'"


def _move(
    points: Float[np.ndarray, "n 2"], way: Way, *, name: str
) -> tuple[Float[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    places, inside = way.trace(points)
    if not np.isfinite(places).all():
        raise ConfigError(f"{name}: the transform sends its points nowhere; register the pair again")
    return places, ~inside


# GeoJSON ---------------------------------------------------------------------------------------------------


def warp_geojson(text: str, way: Way, *, name: str) -> tuple[str, Moved]:
    """A FeatureCollection, a Feature or a list of Features with every position moved; `bbox` members are left out.

    Geometries of every kind, collections of them, and the nucleus that QuPath keeps beside a cell's outline.

    Args:
        text: JSON.
        way: From the slide of the points to the other.
        name: Of the file, for errors.

    Raises:
        ConfigError: No GeoJSON of features, or a position that is none.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    try:
        document = json.loads(text.removeprefix(mark))
        features = _features(document, name)
        moved = _Geometries(way, name)
        for number, feature in enumerate(features, start=1):
            moved.gather(feature, number)
        counts = moved.move()
        if isinstance(document, dict):
            document.pop("bbox", None)
        return mark + json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", counts
    except (ValueError, RecursionError) as error:
        reason = "nested without end" if isinstance(error, RecursionError) else f"no JSON ({error})"
        raise ConfigError(f"{name}: {reason}; GeoJSON as QuPath exports it expected") from None


def _features(document: Any, name: str) -> list[dict[str, Any]]:
    found: Any = document
    if isinstance(document, dict):
        found = document.get("features") if document.get("type") == "FeatureCollection" else [document]
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{name}: no features; a FeatureCollection, a Feature or a list of Features expected")
    for number, feature in enumerate(found, start=1):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            kind = feature.get("type") if isinstance(feature, dict) else type(feature).__name__
            raise ConfigError(f"{name}: feature {number} is of type {_shown(kind)}, Feature expected")
    return found


class _Geometries:
    """Positions of all features gathered, moved together, and put back where they stood."""

    def __init__(self, way: Way, name: str) -> None:
        self._way = way
        self._name = name
        self._slots: list[list[Any]] = []
        self._owners: list[dict[str, Any]] = []
        self._points: list[tuple[float, float]] = []

    def gather(self, feature: dict[str, Any], number: int) -> None:
        """Take the positions of one feature; the n-th of the file."""
        where = f"{self._name}: feature {number}"
        properties = feature.get("properties")
        if properties is not None and not isinstance(properties, dict):
            raise ConfigError(f"{where}: its properties are no object")
        feature.pop("bbox", None)
        for key in ("geometry", "nucleusGeometry"):
            if feature.get(key) is not None:
                self._geometry(feature[key], feature, f"{where}, {key}")

    def move(self) -> Moved:
        """Send all positions through the transform and flag the features of those beyond the field."""
        if not self._points:
            raise ConfigError(f"{self._name}: its features hold no positions")
        places, beyond = _move(np.array(self._points), self._way, name=self._name)
        for slot, place in zip(self._slots, places.tolist(), strict=True):
            slot[:2] = place
        for index in np.flatnonzero(beyond):
            feature = self._owners[index]
            if feature.get("properties") is None:
                feature["properties"] = {}
            feature["properties"][FLAG] = True
        return Moved(len(self._points), int(beyond.sum()))

    def _geometry(self, geometry: Any, feature: dict[str, Any], where: str) -> None:
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind == "GeometryCollection":
            parts = geometry.get("geometries")
            if not isinstance(parts, list):
                raise ConfigError(f"{where}: a GeometryCollection without a list of geometries")
            for index, part in enumerate(parts, start=1):
                self._geometry(part, feature, f"{where}, part {index}")
        elif kind in DEPTHS:
            self._positions(geometry.get("coordinates"), DEPTHS[kind], feature, f"{where} ({kind})")
        else:
            raise ConfigError(f"{where} is of type {_shown(kind)}, one of {', '.join(DEPTHS)} expected")
        geometry.pop("bbox", None)

    def _positions(self, value: Any, depth: int, feature: dict[str, Any], where: str) -> None:
        if not isinstance(value, list):
            raise ConfigError(f"{where}: coordinates are {_shown(value)}, a list expected")
        if depth:
            for index, part in enumerate(value, start=1):
                self._positions(part, depth - 1, feature, f"{where}, {index}")
            return
        if len(value) < 2:
            raise ConfigError(f"{where}: a position of {len(value)} numbers, x and y expected")
        point = []
        for axis, number in zip("xy", value, strict=False):
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            point.append(_checked(number if is_number else math.nan, f"{where}: {axis}", number))
        self._slots.append(value)
        self._owners.append(feature)
        self._points.append((point[0], point[1]))
