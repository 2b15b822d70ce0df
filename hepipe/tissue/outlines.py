"""Masks as polygons and back into QuPath: GeoJSON in px of level 0, with holes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float

COLORS: Mapping[str, tuple[int, int, int]] = {
    "tissue": (20, 60, 200),
    "taken_out": (110, 110, 110),
    "tumour": (0, 140, 60),
    "invasive": (215, 50, 140),
    "in_situ": (150, 60, 200),
    "normal": (0, 170, 210),
    "necrosis": (120, 90, 30),
    "control": (230, 140, 0),
    "exclude": (60, 60, 60),
}
"""Of pictures and of the classes in QuPath; none is red, which a picture keeps for dropped tiles."""

Ring = Float[np.ndarray, "_ 2"]


def trace(mask: Bool[np.ndarray, "h w"]) -> list[list[Ring]]:
    """Polygons along the edges of px: an outer ring and then its holes, corners (x, y) in px of the mask.

    Exact: a px is in the mask when its centre is in a polygon. Parts that only touch at a corner are apart. Outer
    rings run clockwise as seen on a screen, holes the other way. In the order of their first px.
    """
    count, labels = cv2.connectedComponents(np.ascontiguousarray(mask, np.uint8), connectivity=4)
    edges, pixels = _edges(mask)
    if not len(edges):
        return []
    following = _following(edges, mask.shape[1] + 1)
    across = mask.shape[1] + 1
    direction, vertex = (edges % 4).tolist(), edges // 4
    corners = np.stack([vertex % across, vertex // across], axis=1).astype(np.float64)
    owner = labels.ravel()[pixels].tolist()
    outer: list[list[Ring]] = [[] for _ in range(count)]
    holes: list[list[Ring]] = [[] for _ in range(count)]
    seen = bytearray(len(edges))
    for begin in range(len(edges)):
        if seen[begin]:
            continue
        ring, edge, before = [], begin, -1
        while not seen[edge]:
            seen[edge] = 1
            if direction[edge] != before:
                ring.append(edge)
            before, edge = direction[edge], following[edge]
        if direction[begin] == before:
            ring.pop(0)
        points = corners[ring]
        x, y = points.T
        (outer if x @ np.roll(y, -1) - y @ np.roll(x, -1) > 0 else holes)[owner[begin]].append(points)
    return [[*outer[label], *holes[label]] for label in range(1, count)]


def _edges(mask: Bool[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Edges between tissue and what is none, with the tissue on their right: 4 * start + direction, sorted.

    Starts are numbered row by row over the corners of px; directions are right, down, left, up. Beside each edge the
    number of its px of tissue.
    """
    width = mask.shape[1]
    across = width + 1
    wide = np.pad(mask, 1)
    beside = (wide[:-2, 1:-1], wide[1:-1, 2:], wide[2:, 1:-1], wide[1:-1, :-2])
    found, owners = [], []
    for direction, (other, shift) in enumerate(zip(beside, (0, 1, across + 1, across), strict=True)):
        pixel = np.flatnonzero(mask & ~other)
        start = pixel // width * across + pixel % width + shift
        found.append(start * 4 + direction)
        owners.append(pixel)
    edges, pixels = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(edges, kind="stable")
    return edges[order], pixels[order]


def _following(edges: np.ndarray, across: int) -> list[int]:
    """The place of the edge that each one goes on with: where two part, the one around the same px."""
    direction = edges % 4
    end = edges // 4 + np.array([1, across, -1, -across])[direction]
    chosen = np.full(len(edges), -1)
    for turn in (3, 0, 1):  # the last that exists holds: a turn to the right
        wanted = end * 4 + (direction + turn) % 4
        place = np.minimum(np.searchsorted(edges, wanted), len(edges) - 1)
        chosen = np.where(edges[place] == wanted, place, chosen)
    assert (chosen >= 0).all()
    following: list[int] = chosen.tolist()
    return following


def geojson(areas: Mapping[str, Bool[np.ndarray, "h w"]], *, px0_from_px: float, size_px0: tuple[int, int]) -> str:
    """Masks as annotations that QuPath reads (File > Import objects from file): one a class, with its colour.

    Args:
        areas: Class to mask; an empty mask gives nothing.
        px0_from_px: Px of level 0 per px of a mask.
        size_px0: Width and height of the slide; nothing reaches beyond.
    """
    features = []
    for name, mask in areas.items():
        polygons = [[_closed(ring, px0_from_px, size_px0) for ring in polygon] for polygon in trace(mask)]
        if not polygons:
            continue
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "MultiPolygon", "coordinates": polygons},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": list(COLORS[name])},
                    "isLocked": True,
                },
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":")) + "\n"


def write_outlines(path: Path, text: str) -> None:
    """Store a GeoJSON whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def _closed(ring: Ring, scale: float, size_px0: Sequence[int]) -> list[list[float]]:
    points = np.round(np.minimum(ring * scale, size_px0), 2)
    closed: list[list[float]] = [*points.tolist(), points[0].tolist()]
    return closed
