"""Tiles and masks for QuPath: GeoJSON in px of level 0 of the H&E, from the corner of the area that holds pixels.

In QuPath: open the H&E slide, then File > Import objects from file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hepipe.dataset.cases import INSIDE
from hepipe.errors import ConfigError, StoreError
from hepipe.exporters.cards import record_of, travelling
from hepipe.exporters.growing import Growing, Row
from hepipe.exporters.names import safe_folder
from hepipe.exporters.selection import Selection
from hepipe.exporters.shards import file_digest
from hepipe.stores.cases import read_checked
from hepipe.stores.provenance import digest
from hepipe.stores.tables import TILES, VERDICTS, read_table, store_beside
from hepipe.tissue.outlines import trace
from hepipe.tissue.regions import MAX_BYTES, MAX_VERTICES

COLORS: Mapping[str, tuple[int, int, int]] = {
    "kept: train": (0, 140, 60),
    "kept: val": (0, 170, 210),
    "kept: test": (20, 60, 200),
    "kept: beside the tumour": (150, 60, 200),
    "left out": (230, 140, 0),
}
"""Of the classes in QuPath; dropped tiles are red."""
DROPPED = (200, 40, 40)
DAB = (140, 80, 30)
MOST_CORNERS = MAX_VERTICES // 4
"""Of a file of masks, so that hepipe's own reader takes it, and QuPath stays quick."""
MOST_WORDS = 60
"""Characters of a reader's reason that become part of a class."""
MOST_TILES = 4_000
"""Of a file of masks."""


def export_geojson(selection: Selection, out: Path, *, masks: bool = True) -> dict[str, int]:
    """Write for each case all its tiles with their fate, the DAB masks of the chosen ones, and its tissue.

    Args:
        selection: The tiles whose masks are drawn, and the cases of which all tiles are.
        out: The folder.
        masks: Draw DAB masks.

    Returns:
        Files, tiles and masks.

    Raises:
        ConfigError: Something else stands in the folder, or the tiles have no place on a slide.
        StoreError: A table or tile is damaged or missing.
    """
    placed = [row for row in selection.rows if row["x_px0"] is not None and not row["source_set"]]
    cases = sorted({str(row["case_id"]) for row in placed if row["case_id"] is not None})
    if not cases:
        raise ConfigError(
            "export: these tiles were imported and have no place on a slide; geojson needs tiles of slides"
        )
    drawn = masks and selection.has_masks
    decided = _decided(selection.index.with_name("curated.csv"))

    def write(number: int) -> Iterator[Sequence[Row]]:
        case_id = cases[number]
        name = safe_folder(case_id)
        scale = _px0_from_px(case_id, selection)
        rows = read_table(store_beside(selection.index, f"tiles/{case_id}.parquet"), TILES)
        verdicts = read_table(store_beside(selection.index, f"verdict/{case_id}.parquet"), VERDICTS)
        reasons = {row["tile_id"]: row["reason"] for row in verdicts} | decided
        files = {f"{name}.tiles.geojson": _collection(_tiles(rows, reasons, selection, scale))}
        if drawn:
            own = [row for row in placed if row["case_id"] == case_id]
            for place, features in enumerate(_by_size(_masks(own, selection, scale))):
                files[f"{name}.dab-{place:02d}.geojson"] = _collection(features)
        tissue = store_beside(selection.index, f"tissue/{case_id}.geojson")
        if tissue.is_file() and tissue.stat().st_size <= MAX_BYTES:
            files[f"{name}.tissue.geojson"] = tissue.read_bytes()
        manifest = []
        for file, content in files.items():
            growing.write(file, content)
            empty = dict.fromkeys(("tile_id", "split", "her2_score"))
            role = file.split(".")[-2].split("-")[0]
            sha256 = file_digest(growing.place(file))
            facts = {"case_id": case_id, "marker": own_marker[case_id], "sha256": sha256}
            manifest.append({"file": file, "role": role, **empty, **facts})
        yield manifest

    own_marker = {str(row["case_id"]): row["marker"] for row in placed}
    with Growing(
        out, kind="geojson", options={**selection.identity(), "masks": drawn, "decided": digest(decided)}
    ) as growing:
        manifest = growing.parts(write, [1] * len(cases), name="export", unit="case")
        beside = travelling(
            selection,
            what="Outlines for QuPath, in px of level 0 of the H&E slide (File > Import objects from file).",
            files=[
                ("*.tiles.geojson", "every tile of a case, with its split or what dropped it, and its measurements"),
                (
                    "*.dab-*.geojson",
                    "where the chosen tiles are DAB-positive, seen on the H&E; overlapping tiles repeat",
                ),
                ("*.tissue.geojson", "tissue, what was taken out of it, and the regions that were given"),
            ],
        )
        growing.finish(manifest, beside, record_of(selection))
    return {"cases": len(cases), "files": len(manifest)}


def _decided(path: Path) -> dict[str, str]:
    """Tile id to the reason of a reader who dropped it; none without a table of decisions.

    Raises:
        StoreError: The table is larger than one of decisions can be, or is none.
    """
    if not path.is_file():
        return {}
    problem = f"{path}: no table of decisions; assemble the data set again"
    if path.stat().st_size > MAX_BYTES:
        raise StoreError(problem)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["effect"] == "dropped"]
        words = {row["tile_id"]: " ".join(row["reason"].split())[:MOST_WORDS] for row in rows}
        return {tile_id: f"curation:{reason}" if reason else "curation" for tile_id, reason in words.items()}
    except (KeyError, AttributeError, ValueError, csv.Error):
        raise StoreError(problem) from None


def _px0_from_px(case_id: str, selection: Selection) -> float:
    """Px of level 0 per px of a tile."""
    he = read_checked(store_beside(selection.index, f"checked/{case_id}.json")).he
    if he is None:
        raise ConfigError(f"export: case {case_id} failed its check and has no slide; leave it out by --case")
    return selection.mpp / he.mpp


def _tiles(
    rows: Sequence[Row], reasons: Mapping[str, str], selection: Selection, scale: float
) -> Iterator[dict[str, Any]]:
    """Every tile of a case as a QuPath tile, which is drawn quickly and never taken for a person's outline."""
    side = selection.tile_px * scale
    for row in sorted(rows, key=lambda row: str(row["tile_id"])):
        name = _fate(row, reasons, selection)
        x, y = float(row["x_px0"]), float(row["y_px0"])
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        numbers = {key: value for key, value in sorted(row["measurements"].items()) if _finite(value)}
        yield _feature(
            {"type": "Polygon", "coordinates": [[[_tidy(a), _tidy(b)] for a, b in ring]]},
            kind="tile",
            name=str(row["tile_id"]),
            classification=name,
            color=COLORS.get(name, DROPPED),
            measurements={"tissue_frac": round(float(row["tissue_frac"]), 4), **numbers},
        )


def _fate(row: Row, reasons: Mapping[str, str], selection: Selection) -> str:
    """What became of a tile, in words that are its class in QuPath."""
    split = selection.split_of.get(str(row["tile_id"]))
    if split is not None:
        return f"kept: {split}" if row["place"] == INSIDE else "kept: beside the tumour"
    if row["problem"]:
        return "dropped: unreadable"
    reason = reasons.get(row["tile_id"], "")
    # It passes the filters and is not in the index: a pair that waits for a person's word.
    return f"dropped: {reason}" if reason else "left out"


def _masks(rows: Sequence[Row], selection: Selection, scale: float) -> Iterator[tuple[dict[str, Any], int]]:
    """The mask of each tile that has one, with its number of corners."""
    for row in rows:
        mask = selection.mask(row)
        polygons = trace(mask)
        if not polygons:
            continue
        corner = np.array([row["x_px0"], row["y_px0"]], np.float64)
        rings = [[_closed(ring * scale + corner) for ring in polygon] for polygon in polygons]
        feature = _feature(
            {"type": "MultiPolygon", "coordinates": rings},
            kind="annotation",
            name=str(row["tile_id"]),
            classification="DAB",
            color=DAB,
            measurements={"dab_frac": round(float(mask.mean()), 6)},
        )
        yield feature, sum(len(ring) for polygon in rings for ring in polygon)


def _by_size(features: Iterator[tuple[dict[str, Any], int]]) -> Iterator[list[dict[str, Any]]]:
    """The features in files of a bounded size."""
    waiting: list[dict[str, Any]] = []
    corners = 0
    for feature, count in features:
        if waiting and (corners + count > MOST_CORNERS or len(waiting) == MOST_TILES):
            yield waiting
            waiting, corners = [], 0
        waiting.append(feature)
        corners += count
    if waiting:
        yield waiting


def _feature(
    geometry: Mapping[str, Any],
    *,
    kind: str,
    name: str,
    classification: str,
    color: tuple[int, int, int],
    measurements: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {
            "objectType": kind,
            "name": name,
            "classification": {"name": classification, "color": list(color)},
            "isLocked": True,
            "measurements": measurements,
        },
    }


def _collection(features: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> bytes:
    """One feature a line."""
    lines = ",\n".join(json.dumps(feature, separators=(",", ":"), ensure_ascii=False) for feature in features)
    return f'{{"type":"FeatureCollection","features":[\n{lines}\n]}}\n'.encode()


def _closed(ring: np.ndarray) -> list[list[int | float]]:
    points = [[_tidy(x), _tidy(y)] for x, y in ring.tolist()]
    return [*points, points[0]]


def _tidy(value: float) -> int | float:
    """To 1/100 px; whole numbers without a point, which make a third of the file."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _finite(value: object) -> bool:
    return isinstance(value, float) and bool(np.isfinite(value))
