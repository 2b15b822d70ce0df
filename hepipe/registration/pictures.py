"""The pictures of a case, for its report and for the person who reviews it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from hepipe.geometry import Box, Transform, identity
from hepipe.registration.common import stored_pieces
from hepipe.registration.grid_picture import Tile, draw_grid
from hepipe.registration.overlays import draw_deformation, draw_edges, draw_residuals, warp_picture
from hepipe.registration.overview import Pictures, read_pictures
from hepipe.registration.piece_pictures import draw_pieces
from hepipe.registration.template import template_pairs
from hepipe.registration.warp import read_warped
from hepipe.slides.reader import Slide
from hepipe.stores.arrays import Registered, TissueMasks, whole

MAX_PX = 900
MAX_LARGER = 3.0
"""An IHC canvas larger than this many times the H&E's makes the pictures coarser instead of larger."""
SQUARES = 12
"""Squares of a checkerboard along its longer side."""
GRID_PX = 1400
"""Longer side of the picture of the grid, whose tiles are small."""
N_DETAILS = 4
DETAIL_PX = 384
DETAIL_MPP = 1.0


def draw_case(
    he: Slide | None,
    ihc: Slide | None,
    *,
    case_id: str,
    registered: Registered,
    tissue: TissueMasks,
    tiles: Sequence[Tile],
    folder: Path,
    taken_out: Bool[np.ndarray, "th tw"] | None = None,
) -> None:
    """Write what can be shown of a case as JPEG, and facts.json, which names what there is.

    he, ihc: as scanned. before, after: checkerboards. warped: the IHC in the H&E's frame. edges, deformation,
    residuals: see `overlays`. detail1_he, detail1_warped, …: places seen near. tissue: see `grid_picture`. Of a pair
    that failed its verdict the overlays show what was proposed. pieces_he, pieces_ihc: numbered, with their role.

    Args:
        he: None when it does not open.
        ihc: None when it does not open.
        case_id: Stands in the facts.
        registered: How the pair was registered; has no transform when that failed.
        tissue: The common tissue; has no mask when that failed.
        tiles: Of the grid on the H&E slide.
        folder: Written whole.
        taken_out: Tissue of pieces that the other slide has not.
    """
    shown: dict[str, np.ndarray] = {}
    if he is not None:
        shown["he"] = he.overview(max_px=MAX_PX)[0]
    if ihc is not None:
        shown["ihc"] = ihc.overview(max_px=MAX_PX)[0]
    found = registered.ihc_from_he or registered.proposed
    if he is not None and ihc is not None:
        pictures = read_pictures(he, ihc, max_px=_common_px(he, ihc))
        still = identity(fixed_mpp=he.mpp, moving_mpp=ihc.mpp)
        shown["before"] = checkerboard(pictures.fixed, pictures.moving, pictures.small(still))
        if found is not None:
            shown |= draw_registration(pictures, found, registered.evidence, unit=registered.summary.get("unit", "µm"))
            shown |= draw_details(he, ihc, found)
    numbered = stored_pieces(registered)
    if numbered is not None:
        pieces, _ = numbered
        if he is not None:
            shown["pieces_he"] = draw_pieces(shown["he"], pieces.he, pieces.of("he"))
        if ihc is not None:
            shown["pieces_ihc"] = draw_pieces(shown["ihc"], pieces.ihc, pieces.of("ihc"))
    if he is not None and tissue.tissue is not None:
        rgb, mpp = he.overview(max_px=GRID_PX)
        shown["tissue"] = draw_grid(rgb, tissue, tiles, mpp=mpp, level0_mpp=he.mpp, taken_out=taken_out)
    facts = {
        "case_id": case_id,
        "status": tissue.provenance.status.model_dump(mode="json"),
        "registration": {**registered.summary, "spec": registered.provenance.spec},
        "tiles": {"n": len(tiles), "kept": sum(tile.keep and tile.place == "inside" for tile in tiles)},
        "pictures": sorted(shown),
    }
    with whole(folder) as beside:
        for name, picture in shown.items():
            save_jpeg(picture, beside / f"{name}.jpg")
        (beside / "facts.json").write_text(_json(facts), encoding="utf-8")


def _common_px(he: Slide, ihc: Slide) -> int:
    """The longer side of the larger slide at which the H&E, whose frame is drawn, has about `MAX_PX`."""
    extents = [max(slide.size_px0) * slide.mpp for slide in (he, ihc)]
    return round(MAX_PX * min(max(extents) / extents[0], MAX_LARGER))


def draw_registration(
    pictures: Pictures, ihc_from_he: Transform, evidence: Mapping[str, np.ndarray], *, unit: str = "µm"
) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Overlays of a pair by name: after, warped, edges, deformation, and residuals where windows were measured."""
    small = pictures.small(ihc_from_he)
    warped = warp_picture(pictures.moving, small, shape=(pictures.fixed.shape[0], pictures.fixed.shape[1]))
    shown = {
        "after": checker(pictures.fixed, warped),
        "warped": warped,
        "edges": draw_edges(pictures.fixed, warped),
        "deformation": draw_deformation(pictures.fixed, small, unit=unit),
    }
    if "residuals" in evidence:
        shown["residuals"] = draw_residuals(
            pictures.fixed,
            evidence["residuals"],
            mpp=pictures.mpp,
            trust=evidence.get("trust"),
            grid_um=ihc_from_he.grid_um,
            unit=unit,
        )
    return shown


def draw_details(he: Slide, ihc: Slide, ihc_from_he: Transform) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """A few places of both slides at a resolution that shows single glands, by name.

    detail1_he, detail1_warped and so on. An overview of a whole slide is 50 µm a px and hides what matters for tiles.
    """
    # The IHC of unknown pixel size has its own px; it is read no finer than it is.
    mpp = max(DETAIL_MPP, he.mpp, ihc.mpp)
    if max(he.size_px0) * he.mpp / MAX_PX < 2 * mpp:
        return {}
    places, _ = template_pairs(he, ihc, ihc_from_he)
    side = DETAIL_PX * mpp / he.mpp
    shown: dict[str, np.ndarray] = {}
    for number, (x, y) in enumerate(places[:N_DETAILS], start=1):
        box = Box(float(x - side / 2), float(y - side / 2), side, side)
        size = (DETAIL_PX, DETAIL_PX)
        shown[f"detail{number}_he"] = he.read(box, mpp=mpp, size=size)
        shown[f"detail{number}_warped"] = read_warped(ihc, ihc_from_he, box, mpp=mpp, size=size)[0]
    return shown


def checkerboard(
    fixed: UInt8[np.ndarray, "h w 3"], moving: UInt8[np.ndarray, "mh mw 3"], transform: Transform
) -> UInt8[np.ndarray, "h w 3"]:
    """Squares of the fixed and of the moved picture in turn: tissue that runs on over the edges lies right."""
    return checker(fixed, warp_picture(moving, transform, shape=(fixed.shape[0], fixed.shape[1])))


def checker(fixed: UInt8[np.ndarray, "h w 3"], warped: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Squares of two pictures in turn."""
    height, width = fixed.shape[:2]
    side = max(8, max(height, width) // SQUARES)
    odd = (np.add.outer(np.arange(height) // side, np.arange(width) // side) % 2).astype(bool)
    board = fixed.copy()
    board[odd] = warped[odd]
    return board


def save_jpeg(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    """Pixels only: no metadata, no colour profile."""
    Image.fromarray(np.ascontiguousarray(picture)).save(path, "JPEG", quality=85, exif=b"", icc_profile=None)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
