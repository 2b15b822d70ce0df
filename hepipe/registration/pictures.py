"""The pictures of a case for its report: thumbnails, checkerboards before and after, tissue with the tile grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from hepipe.geometry import Transform, identity
from hepipe.registration.overview import lies_on, look, positions, read_pictures
from hepipe.slides.reader import Slide
from hepipe.stores.arrays import Registered, TissueMasks, whole

MAX_PX = 900
SQUARES = 12
"""Squares of a checkerboard along its longer side."""
OUTLINE = (20, 60, 200)
KEPT = (30, 160, 60)
DROPPED = (210, 40, 40)
WHITE = (255.0, 255.0, 255.0, 255.0)


@dataclass(frozen=True)
class Tile:
    """A square of the grid on the H&E slide."""

    x_px0: int
    y_px0: int
    side_um: float
    keep: bool


def draw_case(
    he: Slide | None,
    ihc: Slide | None,
    *,
    case_id: str,
    registered: Registered,
    tissue: TissueMasks,
    tiles: Sequence[Tile],
    folder: Path,
) -> None:
    """Write what can be shown of a case: he.jpg, ihc.jpg, before.jpg, after.jpg, tissue.jpg, facts.json.

    Args:
        he: None when it does not open.
        ihc: None when it does not open.
        case_id: Stands in the facts.
        registered: How the pair was registered; has no transform when that failed.
        tissue: The common tissue; has no mask when that failed.
        tiles: Of the grid on the H&E slide.
        folder: Written whole.
    """
    shown: dict[str, np.ndarray] = {}
    if he is not None:
        shown["he"] = he.overview(max_px=MAX_PX)[0]
    if ihc is not None:
        shown["ihc"] = ihc.overview(max_px=MAX_PX)[0]
    if he is not None and ihc is not None:
        pictures = read_pictures(he, ihc, max_px=MAX_PX)
        still = identity(fixed_mpp=he.mpp, moving_mpp=ihc.mpp)
        shown["before"] = checkerboard(pictures.fixed, pictures.moving, pictures.small(still))
        if registered.ihc_from_he is not None:
            shown["after"] = checkerboard(pictures.fixed, pictures.moving, pictures.small(registered.ihc_from_he))
    if he is not None and tissue.tissue is not None:
        shown["tissue"] = draw_grid(shown["he"], he, tissue.tissue, tissue.mpp, tiles)
    facts = {
        "case_id": case_id,
        "status": tissue.provenance.status.model_dump(mode="json"),
        "registration": {**registered.summary, "spec": registered.provenance.spec},
        "tiles": {"n": len(tiles), "kept": sum(tile.keep for tile in tiles)},
        "pictures": sorted(shown),
    }
    with whole(folder) as beside:
        for name, picture in shown.items():
            save_jpeg(picture, beside / f"{name}.jpg")
        (beside / "facts.json").write_text(_json(facts), encoding="utf-8")


def checkerboard(
    fixed: UInt8[np.ndarray, "h w 3"], moving: UInt8[np.ndarray, "mh mw 3"], transform: Transform
) -> UInt8[np.ndarray, "h w 3"]:
    """Squares of the fixed and of the moved picture in turn: tissue that runs on over the edges lies right."""
    height, width = fixed.shape[:2]
    at = positions(transform, shape=(height, width))
    moved = look(moving, at, outside=WHITE)
    moved[~lies_on(at, (moving.shape[0], moving.shape[1]))] = 255
    side = max(8, max(height, width) // SQUARES)
    odd = (np.add.outer(np.arange(height) // side, np.arange(width) // side) % 2).astype(bool)
    board = fixed.copy()
    board[odd] = moved[odd]
    return board


def draw_grid(
    rgb: UInt8[np.ndarray, "h w 3"],
    he: Slide,
    tissue: Bool[np.ndarray, "th tw"],
    tissue_mpp: float,
    tiles: Sequence[Tile],
) -> UInt8[np.ndarray, "h w 3"]:
    """The H&E thumbnail with the tissue's outline and the tiles, kept ones green and dropped ones red."""
    drawn = rgb.copy()
    px_from_px0 = rgb.shape[1] / he.size_px0[0]
    grow = px_from_px0 * tissue_mpp / he.mpp
    contours, _ = cv2.findContours(tissue.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = [np.rint((line + 0.5) * grow).astype(np.int32) for line in contours]
    cv2.polylines(drawn, lines, isClosed=True, color=OUTLINE, thickness=1, lineType=cv2.LINE_AA)
    shade = drawn.copy()
    for tile in tiles:
        left, top = round(tile.x_px0 * px_from_px0), round(tile.y_px0 * px_from_px0)
        side = max(1, round(tile.side_um / he.mpp * px_from_px0))
        color = KEPT if tile.keep else DROPPED
        cv2.rectangle(shade, (left, top), (left + side - 1, top + side - 1), color, thickness=-1)
        cv2.rectangle(drawn, (left, top), (left + side - 1, top + side - 1), color, thickness=1)
    mixed: np.ndarray = cv2.addWeighted(drawn, 0.85, shade, 0.15, 0)
    return mixed


def save_jpeg(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    """Pixels only: no metadata, no colour profile."""
    Image.fromarray(np.ascontiguousarray(picture)).save(path, "JPEG", quality=85, exif=b"", icc_profile=None)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
