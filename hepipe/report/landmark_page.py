"""The page on which a person sets landmarks: one file with both slides in it, no server, no network."""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from hepipe.geometry import Box, Transform
from hepipe.registration.template import OVERVIEW_PX, template_pairs
from hepipe.report.parts import part, style
from hepipe.slides.reader import Slide

MAX_BYTES = 6_000_000
QUALITIES = (84, 74, 62, 50, 38)
WINDOW_MPP = 1.0
"""Of the sharp windows around suggested places; an overview of a whole slide shows no nucleus."""
WINDOW_PX = {"he": 256, "ihc": 384}
"""The IHC's are wider: the structure may lie off its proposed place."""
GRID = 33
"""Nodes along each side of the grid that carries the transform into the page."""


@dataclass(frozen=True)
class Picture:
    """Pixels and the box (px0: left, top, width, height) that they cover."""

    at: tuple[float, float, float, float]
    pixels: UInt8[np.ndarray, "h w 3"]


def landmark_page(
    he: Slide,
    ihc: Slide,
    *,
    case_id: str,
    ihc_from_he: Transform | None = None,
    he_px0: Float[np.ndarray, "n 2"] | None = None,
    ihc_px0: Float[np.ndarray, "n 2"] | None = None,
) -> str:
    """The page as text, at most `MAX_BYTES` of it.

    Args:
        he: The fixed slide.
        ihc: The moving slide.
        case_id: The only name in it.
        ihc_from_he: Proposes the partner of a point and turns the IHC the H&E's way up.
        he_px0: Pairs set before, on the H&E.
        ihc_px0: Their partners.
    """
    places, partners = template_pairs(he, ihc, ihc_from_he)
    pictures = {
        "he": _pictures(he, places, WINDOW_PX["he"]),
        "ihc": _pictures(ihc, partners, WINDOW_PX["ihc"])
        if ihc_from_he is not None
        else _pictures(ihc, partners[:0], 0),
    }
    pairs = [] if he_px0 is None or ihc_px0 is None else np.hstack([he_px0, ihc_px0]).round(2).tolist()
    # Half a window around a place is seen well on both slides.
    sharp = len(pictures["he"]) > 1
    data: dict[str, Any] = {
        "case": case_id,
        "template": places.round(2).tolist(),
        "pairs": pairs,
        "grid": None if ihc_from_he is None else _grid(ihc_from_he, he),
        "he_from_ihc": [1, 0, 0, 1] if ihc_from_he is None else _turn(ihc_from_he),
        "unit": "px" if "unknown" in (he.mpp_from, ihc.mpp_from) else "µm",
        "window_um": WINDOW_PX["he"] * WINDOW_MPP * 1.5 if sharp else max(he.size_px0) * he.mpp / 6,
    }
    for quality in QUALITIES:
        for name, slide in (("he", he), ("ihc", ihc)):
            data[name] = {
                "size": list(slide.size_px0),
                "mpp": slide.mpp,
                "pictures": [{"at": one.at, "src": _source(one.pixels, quality)} for one in pictures[name]],
            }
        page = _render(case_id, data)
        if len(page) <= MAX_BYTES:
            break
    return page


def _pictures(slide: Slide, places_px0: Float[np.ndarray, "n 2"], window_px: int) -> list[Picture]:
    """The overview, and where it shows too little a sharp window around each place."""
    rgb, mpp = slide.overview(max_px=OVERVIEW_PX)
    grow = mpp / slide.mpp
    found = [Picture((0.0, 0.0, rgb.shape[1] * grow, rgb.shape[0] * grow), rgb)]
    sharp_mpp = max(WINDOW_MPP, slide.mpp)
    if mpp < 2 * sharp_mpp:
        return found
    side = window_px * sharp_mpp / slide.mpp
    for x, y in places_px0:
        box = Box(float(x - side / 2), float(y - side / 2), side, side)
        found.append(Picture((box.x, box.y, side, side), slide.read(box, mpp=sharp_mpp, size=(window_px, window_px))))
    return found


def _source(pixels: UInt8[np.ndarray, "h w 3"], quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _grid(ihc_from_he: Transform, he: Slide) -> dict[str, Any]:
    """The transform at the nodes of a grid over the H&E slide, px0 of the IHC; bilinear between them."""
    width, height = he.size_px0
    step = (width / (GRID - 1), height / (GRID - 1))
    x, y = np.meshgrid(np.arange(GRID) * step[0], np.arange(GRID) * step[1])
    moved = ihc_from_he(np.stack([x.ravel(), y.ravel()], axis=1))
    axes = [np.round(moved[:, axis], 1).tolist() for axis in range(2)]
    return {"columns": GRID, "rows": GRID, "step": step, "x": axes[0], "y": axes[1]}


def _turn(ihc_from_he: Transform) -> list[float]:
    """Rotation and mirroring, row by row, that bring the IHC's directions to the H&E's."""
    left, _, right = np.linalg.svd(np.linalg.inv(ihc_from_he.affine[:2, :2]))
    turned: list[float] = (left @ right).round(6).ravel().tolist()
    return turned


def _render(case_id: str, data: dict[str, Any]) -> str:
    # A "</script>" inside the data would end its element.
    carried = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = part("landmarks.html").replace("{{case}}", html.escape(case_id))
    page = page.replace("{{style}}", style("landmarks.css"))
    page = page.replace("{{script}}", part("landmarks_geometry.js") + part("landmarks.js"))
    return page.replace("{{data}}", carried)


def page_without_slides(case_id: str, reason: str) -> str:
    """The page of a case whose slides cannot be shown: it says why."""
    name, why = html.escape(case_id), html.escape(reason)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f"<title>Landmarks of {name}</title></head><body><h1>Landmarks of {name}</h1>"
        f"<p>No landmarks can be set: {why}</p></body></html>\n"
    )
