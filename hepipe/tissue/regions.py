"""Regions that a person outlined on the H&E slide, read from QuPath's GeoJSON; a stranger may have written it.

Coordinates are px of level 0 from the corner of the area that holds pixels, as QuPath counts them and as landmarks do.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hepipe.errors import SlideError
from hepipe.specs.slides import Region, RegionName
from hepipe.tissue.polygons import Polygon, area, crossing, fill
from hepipe.tissue.slips import ON_TISSUE, SLIPS

REGIONS: Final[tuple[Region, ...]] = get_args(Region)
"""In the order of their numbers in a map of regions, from 1; 0 is no region."""
OUT: Final[tuple[Region, ...]] = ("control", "exclude")
"""Taken out of the tissue, whatever else is drawn over them."""
NAMES: Final[dict[str, RegionName]] = {
    **dict.fromkeys(("tumour", "tumor", "include", "region", "roi"), "tumour"),
    **dict.fromkeys(("invasive", "invasive_tumour", "invasive_tumor", "invasive_carcinoma"), "invasive"),
    **dict.fromkeys(("in_situ", "insitu", "carcinoma_in_situ", "dcis"), "in_situ"),
    **dict.fromkeys(("normal", "normal_tissue", "benign"), "normal"),
    **dict.fromkeys(("necrosis", "necrotic"), "necrosis"),
    **dict.fromkeys(("control", "control_tissue"), "control"),
    **dict.fromkeys(("exclude", "ignore", "artefact", "artifact"), "exclude"),
    # What hepipe itself writes beside regions: a file of its own may be drawn on and given back.
    **dict.fromkeys(("tissue", "taken_out"), "ignore"),
}
"""Class of QuPath, in small letters, spaces and hyphens as `_` and without QuPath's `*`, to ours."""

MAX_BYTES = 32_000_000
"""Of a file, which is held whole: Python's lists take up to 30 times as much."""
MAX_VERTICES = 1_000_000
MAX_OUTLINES = 5_000
MAX_PX0 = 1e7
AREAS = ("Polygon", "MultiPolygon")
NOT_DRAWN = ("detection", "cell", "tile", "tma_core", "root")
"""Objects of QuPath that a program found; what a person outlines is an annotation."""
MIN_PX0 = 1.0
"""An outline of a smaller area, px² of level 0, is a slip of the hand."""

MAX_TWICE_FRAC = 1e-3
"""Of an outline that crosses itself: more of it gone around twice, and nobody can tell whether that is a hole."""
DEGREES = (180.0, 90.0)
"""No region to cut tiles from is as small as this many px, and positions on a map are never larger."""
LEAST_MEANT_FRAC = 0.8
"""Share of tissue in outlines that were moved, from which it is said that they were meant so."""
MIN_SLIDE_PX0 = 2_000
"""Longer side of a slide on which a drawing within `DEGREES` of the corner is none."""


@dataclass(frozen=True)
class Outline:
    """One region.

    Attributes:
        region: Its class.
        polygons: What it covers, px0.
        area_px0: Its area, px² of level 0.
    """

    region: Region
    polygons: tuple[Polygon, ...]
    area_px0: float


@dataclass(frozen=True)
class Regions:
    """The regions of a case.

    Attributes:
        outlines: In the order of the file.
        notes: What was left out or lies beyond the slide.
        sha256: Of the file.
    """

    outlines: tuple[Outline, ...]
    notes: tuple[str, ...]
    sha256: str


def read_regions(
    path: Path,
    *,
    slide_id: str,
    size_px0: tuple[int, int],
    names: Mapping[str, RegionName] | None = None,
    mpp: float = 1.0,
) -> Regions:
    """The regions of a GeoJSON file: Polygon and MultiPolygon, in collections of features or geometries too.

    Args:
        path: As QuPath exports it; appears in no error.
        slide_id: Of the H&E slide, for errors.
        size_px0: Its width and height.
        names: Further names of classes; those of `NAMES` are known.
        mpp: Of level 0, µm per px, so that positions in µm are told from px; 1 where it is not known.

    Raises:
        SlideError: Missing, too large, no GeoJSON, a class that is not known or missing, a position that is none, an
            outline that crosses itself so that nobody can tell its inside, a region beside the slide, positions of a
            map, or no region at all.
    """
    reader = _Reader(slide_id, size_px0, mpp, {**NAMES, **{_plain(name): kind for name, kind in (names or {}).items()}})
    data = _read(path, slide_id)
    try:
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
        for number, feature in enumerate(_features(document), start=1):
            reader.add(feature, number)
    except _NotFinite as error:
        raise SlideError(
            slide_id, f"regions: the file holds {error}, which is no px of a slide; export from QuPath again"
        ) from None
    except (ValueError, RecursionError):
        raise SlideError(slide_id, "regions: no GeoJSON; export the annotations from QuPath again") from None
    reader.refuse_degrees()
    if not reader.outlines:
        raise SlideError(slide_id, "regions: the file holds no outlined area; draw some in QuPath or empty the cell")
    return Regions(tuple(reader.outlines), tuple(reader.notes()), hashlib.sha256(data).hexdigest())


def paint(
    regions: Regions, *, shape: tuple[int, int], px_from_px0: float, slide_id: str = ""
) -> UInt8[np.ndarray, "h w"]:
    """A map of the slide: at each px the number of its region, 0 where there is none.

    A px belongs to a region when its centre does. Where regions lie on each other the smaller one holds, control and
    exclude always.

    Args:
        regions: Of the slide.
        shape: Height and width of the map.
        px_from_px0: Px of the map per px of level 0.
        slide_id: For errors.

    Raises:
        SlideError: An outline so ragged that it cannot be a drawing.
    """
    found = np.zeros(shape, np.uint8)
    for outline in sorted(regions.outlines, key=lambda one: (one.region in OUT, -one.area_px0)):
        number = REGIONS.index(outline.region) + 1
        for polygon in outline.polygons:
            rings = [ring * px_from_px0 for ring in polygon]
            left, top, right, bottom = _pixels_around(rings, shape)
            if left >= right or top >= bottom:
                continue
            corner = np.array([left, top], np.float64)
            inside = fill([ring - corner for ring in rings], (bottom - top, right - left), slide_id)
            found[top:bottom, left:right][inside] = number
    return found


def likely_slip(
    regions: Regions,
    tissue: Bool[np.ndarray, "h w"],
    *,
    px_from_px0: float,
    size_px0: tuple[int, int],
    mpp: float,
) -> str:
    """What would put outlines onto the tissue that they miss, and what to do; empty where nothing does.

    Args:
        regions: Of the slide.
        tissue: In the slide's frame, whole.
        px_from_px0: Px of the tissue per px of level 0.
        size_px0: Width and height of the slide.
        mpp: Of level 0.
    """
    best, said = LEAST_MEANT_FRAC, ""
    for slip in ON_TISSUE:
        outlines = [
            replace(
                outline,
                polygons=tuple(
                    tuple(slip.move(ring, np.array(size_px0), mpp) for ring in polygon) for polygon in outline.polygons
                ),
            )
            for outline in regions.outlines
            if outline.region not in OUT
        ]
        meant = replace(regions, outlines=tuple(outlines))
        covered = paint(meant, shape=(tissue.shape[0], tissue.shape[1]), px_from_px0=px_from_px0) > 0
        held = float(tissue[covered].mean()) if covered.any() else 0.0
        if held > best:
            best, said = held, f"{slip.found} {held:.0%} of it would be tissue; {slip.remedy}"
    return said


def _pixels_around(rings: list[np.ndarray], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    low = np.floor(np.min([ring.min(0) for ring in rings], axis=0)).astype(np.int64)
    high = np.ceil(np.max([ring.max(0) for ring in rings], axis=0)).astype(np.int64)
    return max(0, int(low[0])), max(0, int(low[1])), min(shape[1], int(high[0])), min(shape[0], int(high[1]))


# Reading ---------------------------------------------------------------------------------------------------


def _read(path: Path, slide_id: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SlideError(
                slide_id,
                f"regions: a file of {size / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} expected; "
                "export annotations alone, without detections",
            )
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise SlideError(slide_id, "regions: there is no such file; correct its row of the slide sheet") from None


class _NotFinite(ValueError):
    """A number that JSON does not have and many programs write all the same."""


def _refuse_constant(name: str) -> float:
    raise _NotFinite(name)


def _features(document: Any) -> Iterator[Any]:
    """The features of a document in the order of the file; what is none comes as it is."""
    waiting = [document]
    while waiting:
        one = waiting.pop()
        members = one.get("features") if isinstance(one, dict) and one.get("type") == "FeatureCollection" else one
        if isinstance(members, list):
            waiting += reversed(members)
        else:
            yield members


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().rstrip("*").strip().lower())


def _shown(name: str) -> str:
    """A class as it may stand in an artefact: a plain word, never a sentence about a patient."""
    return f"class {name!r}" if re.fullmatch(r"[\w .:*+/-]{1,40}", name) else "a class of a strange name"


class _Reader:
    """Features gathered one by one, with what is to be said of them."""

    def __init__(self, slide_id: str, size_px0: tuple[int, int], mpp: float, names: Mapping[str, RegionName]) -> None:
        self.outlines: list[Outline] = []
        self._slide_id = slide_id
        self._size_px0 = np.array(size_px0, np.float64)
        self._mpp = mpp
        self._farthest = np.zeros(2)
        self._names = names
        self._vertices = 0
        self._left_out: Counter[str] = Counter()

    def notes(self) -> Iterator[str]:
        """What was left out, and what lies beyond the slide."""
        for what, count in sorted(self._left_out.items()):
            yield f"{count} {what}"

    def add(self, feature: Any, number: int) -> None:
        """Take the n-th feature of the file."""
        where = f"feature {number}"
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise self._error(f"{where} is no Feature; export the annotations from QuPath again")
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise self._error(f"the properties of {where} are no object; export the annotations from QuPath again")
        if properties.get("objectType") in NOT_DRAWN:
            self._left_out["objects that no person drew are left out"] += 1
            return
        polygons = [self._polygon(rings, where) for rings in self._areas(feature.get("geometry"), where)]
        if not polygons:
            self._left_out["objects that are no area are left out"] += 1
            return
        region = self._region(properties.get("classification"), where)
        if region == "ignore":
            self._left_out["areas of a class to ignore are left out"] += 1
            return
        self._farthest = np.max([self._farthest, *(np.abs(ring).max(0) for ring in self._rings(polygons))], axis=0)
        covered = sum(self._area(polygon, where) for polygon in polygons)
        if covered < MIN_PX0:
            self._left_out["areas of no extent are left out"] += 1
            return
        self._place(np.concatenate(self._rings(polygons)), where)
        self.outlines.append(Outline(region, tuple(polygons), covered))
        if len(self.outlines) > MAX_OUTLINES:
            raise self._error(f"more than {MAX_OUTLINES:,} areas; export annotations alone, without detections")

    def refuse_degrees(self) -> None:
        """Check that positions are not those of a map, or shares of the slide.

        Raises:
            SlideError: None is farther from the corner than degrees go.
        """
        if self._size_px0.max() >= MIN_SLIDE_PX0 and self._farthest.max() > 0 and (self._farthest <= DEGREES).all():
            what = "from 0 to 1: shares of the slide" if self._farthest.max() <= 1 else "within ±180 and ±90: degrees"
            raise self._error(
                f"all positions lie {what}, as it seems, and not px of level 0; export the annotations from QuPath"
            )

    @staticmethod
    def _rings(polygons: list[Polygon]) -> list[np.ndarray]:
        return [ring for polygon in polygons for ring in polygon]

    def _area(self, polygon: Polygon, where: str) -> float:
        """The area of a polygon, px², whose rings may cross themselves as long as their inside is plain."""
        crossed = [crossing(ring, self._slide_id) for ring in polygon]
        found = [one for one in crossed if one is not None]
        if not found:
            return area(polygon)
        if (twice := max(one.twice_frac for one in found)) > MAX_TWICE_FRAC:
            raise self._error(
                f"the line of {where} crosses itself and goes around {twice:.1%} of its area twice, which may be "
                "meant as inside or as a hole; draw it again in QuPath, or as two annotations"
            )
        self._left_out["outlines cross themselves; all that their lines go around counts as inside"] += 1
        sizes = [area((ring,)) if one is None else one.area for ring, one in zip(polygon, crossed, strict=True)]
        return 2 * max(sizes) - sum(sizes)

    def _region(self, classification: Any, where: str) -> RegionName:
        name = classification
        if isinstance(classification, dict):
            name = classification.get("name")
            if name is None and isinstance(classification.get("names"), list):
                name = ": ".join(str(part) for part in classification["names"])
        known = ", ".join(REGIONS)
        if not isinstance(name, str) or not name.strip():
            raise self._error(
                f"{where} has no class; give it one in QuPath: {known} (include for tissue to use, whatever it is)"
            )
        found = self._names.get(_plain(name))
        if found is None:
            raise self._error(
                f"{_shown(name)} of {where} is not known; known are {known} and synonyms (docs/regions.md): rename it "
                "in QuPath, or say in tissue.region_names which of them it is, or `ignore`"
            )
        return found

    def _areas(self, geometry: Any, where: str) -> Iterator[Any]:
        """The coordinates of every polygon of a geometry."""
        waiting = [geometry]
        while waiting:
            one = waiting.pop()
            if one is None:
                continue
            if not isinstance(one, dict):
                raise self._error(f"the geometry of {where} is no object; export the annotations from QuPath again")
            kind = one.get("type")
            members = one.get("geometries") if kind == "GeometryCollection" else one.get("coordinates")
            if kind in ("GeometryCollection", *AREAS) and not isinstance(members, list):
                raise self._error(f"the {kind} of {where} has no list; export the annotations from QuPath again")
            if kind == "GeometryCollection":
                waiting += reversed(members or [])
            elif kind in AREAS:
                yield from [members] if kind == "Polygon" else members or []

    def _polygon(self, rings: Any, where: str) -> Polygon:
        if not isinstance(rings, list) or not rings:
            raise self._error(f"a polygon of {where} has no rings; export the annotations from QuPath again")
        made = []
        for ring in rings:
            points = self._points(ring, where)
            self._vertices += len(points)
            if self._vertices > MAX_VERTICES:
                raise self._error(f"more than {MAX_VERTICES:,} corners; simplify the outlines in QuPath")
            made.append(points)
        return tuple(made)

    def _points(self, ring: Any, where: str) -> Float[np.ndarray, "n 2"]:
        try:
            values = np.asarray(ring)
        except (ValueError, OverflowError):
            values = np.empty(0, object)
        if values.ndim != 2 or values.dtype.kind not in "if" or len(values) < 3 or values.shape[1] < 2:
            raise self._error(f"a ring of {where} is no list of three or more positions [x, y] of numbers")
        points = values[:, :2].astype(np.float64)
        if not (np.abs(points) <= MAX_PX0).all():
            raise self._error(f"a position of {where} is no px of a slide: not finite, or beyond {MAX_PX0:g}")
        return points

    def _place(self, points: Float[np.ndarray, "n 2"], where: str) -> None:
        low, high = points.min(0), points.max(0)
        if (high <= 0).any() or (low >= self._size_px0).any():
            width, height = (int(side) for side in self._size_px0)
            raise self._error(
                f"{where} lies beside the slide (x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f} of "
                f"{width} × {height} px): {self._meant(points)}"
            )
        if (low < -1).any() or (high > self._size_px0 + 1).any():
            self._left_out["areas reach beyond the slide, where they count for nothing"] += 1

    def _meant(self, points: Float[np.ndarray, "n 2"]) -> str:
        """What brings points that lie beside the slide onto it."""
        for slip in SLIPS:
            moved = slip.move(points, self._size_px0, self._mpp)
            if (moved >= -1).all() and (moved <= self._size_px0 + 1).all():
                return f"{slip.found} it would lie on it; {slip.remedy}"
        return "another slide's file, or not px of level 0"

    def _error(self, what: str) -> SlideError:
        return SlideError(self._slide_id, f"regions: {what}")
