"""Points of one slide as points of the other: tables and QuPath's GeoJSON, everything else in them kept."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
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
BATCH = 20_000
"""Points moved at once: what is held beside the file's own text stays small."""
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
    records = enumerate(_records(text.removeprefix(mark)), start=1)
    made = [mark]
    for _, (line, end) in records:
        if line.strip():
            break
        made.append(line + end)
    table = _Table(line, way, name)
    made += [line, table.heading, end]
    for number, record in records:
        table.add(number, record)
        if len(table.waiting) >= BATCH:
            made.append(table.flush())
    made.append(table.flush())
    if not table.moved.points:
        raise ConfigError(f"{name}: a header and no points below it")
    return "".join(made), table.moved


class _Table:
    """Rows of a table, moved a batch at a time."""

    def __init__(self, line: str, way: Way, name: str) -> None:
        self._way, self._name = way, name
        self._separator, self._header = _header(line, name)
        self._x, self._y = (_column(self._header, axis, name) for axis in "xy")
        self._flag = self._header.index(FLAG) if FLAG in self._header else None
        self.heading = "" if self._flag is not None else self._separator + FLAG
        self.waiting: list[tuple[int, list[str] | None, str]] = []
        self.moved = Moved(0, 0)

    def add(self, number: int, record: tuple[str, str]) -> None:
        """Take the n-th record of the file; an empty one stays as it is."""
        line, end = record
        if not line.strip():
            self.waiting.append((number, None, line + end))
            return
        cells = _cells(line, self._separator)
        if line.count('"') % 2:
            raise ConfigError(f"{self._name}: row {number} opens a quote that no row closes; correct the row")
        if len(cells) != len(self._header):
            raise ConfigError(
                f"{self._name}: row {number} has {len(cells)} columns, its header {len(self._header)}; correct the row"
            )
        self.waiting.append((number, cells, end))

    def flush(self) -> str:
        """What has been added since, moved."""
        rows = [(number, cells) for number, cells, _ in self.waiting if cells is not None]
        if rows:
            points = np.array(
                [[self._coordinate(number, cells, at) for at in (self._x, self._y)] for number, cells in rows]
            )
            places, beyond = _move(points, self._way, name=self._name)
            for (number, cells), place, out in zip(rows, places.tolist(), beyond.tolist(), strict=True):
                cells[self._x], cells[self._y] = repr(place[0]), repr(place[1])
                self._mark(number, cells, out)
            self.moved = Moved(self.moved.points + len(rows), self.moved.extrapolated + int(beyond.sum()))
        made = "".join(end if cells is None else self._separator.join(cells) + end for _, cells, end in self.waiting)
        self.waiting = []
        return made

    def _mark(self, number: int, cells: list[str], out: bool) -> None:
        if self._flag is None:
            cells.append(str(int(out)))
            return
        before = cells[self._flag].strip(' "')
        if before not in ("0", "1"):
            raise ConfigError(
                f"{self._name}: row {number}, column {FLAG} is {_shown(before)}, 0 or 1 expected; rename it"
            )
        cells[self._flag] = str(int(out or before == "1"))

    def _coordinate(self, number: int, cells: list[str], at: int) -> float:
        text = cells[at].strip().strip('"').strip()
        try:
            # Python alone would take 1_000 and digits of other scripts.
            value = float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            value = math.nan
        return _checked(value, f"{self._name}: row {number}, column {self._header[at]}", text)


def _records(text: str) -> Iterator[tuple[str, str]]:
    """Lines and their ends; a line end inside quotes ends no line."""
    start = begun = 0
    quoted = False
    for found in re.finditer(r"\r\n|\n|\r", text):
        quoted ^= bool(text.count('"', start, found.start()) % 2)
        start = found.end()
        if not quoted:
            yield text[begun : found.start()], found.group()
            begun = start
    if begun < len(text):
        yield text[begun:], ""


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
            if moved.waiting >= BATCH:
                moved.flush()
        moved.flush()
        if not moved.moved.points:
            raise ConfigError(f"{name}: its features hold no positions")
        if isinstance(document, dict):
            document.pop("bbox", None)
        return mark + json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", moved.moved
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
    """Positions of features gathered, moved together, and put back where they stood."""

    def __init__(self, way: Way, name: str) -> None:
        self._way = way
        self._name = name
        self._slots: list[list[Any]] = []
        self._owners: list[dict[str, Any]] = []
        self._points: list[tuple[float, float]] = []
        self.moved = Moved(0, 0)

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

    @property
    def waiting(self) -> int:
        """Positions gathered and not yet moved."""
        return len(self._points)

    def flush(self) -> None:
        """Send what has been gathered through the transform; flag the features of positions beyond the field."""
        if not self._points:
            return
        places, beyond = _move(np.array(self._points), self._way, name=self._name)
        for slot, place in zip(self._slots, places.tolist(), strict=True):
            slot[:2] = place
        for index in np.flatnonzero(beyond):
            feature = self._owners[index]
            if feature.get("properties") is None:
                feature["properties"] = {}
            feature["properties"][FLAG] = True
        self.moved = Moved(self.moved.points + len(places), self.moved.extrapolated + int(beyond.sum()))
        self._slots, self._owners, self._points = [], [], []

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
