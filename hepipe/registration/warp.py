"""The IHC slide seen from the H&E slide: one box at a time, with one interpolation."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from hepipe.errors import SlideError
from hepipe.geometry import Box, Transform
from hepipe.slides.reader import Slide

BLOCK_PX = 1024
"""Side of the blocks that a request is served in: bounds the coordinates held at once."""
MAX_SOURCE_PX = 24_000_000
"""Most source px read for one block; a block that needs more (strong local shrinking) is split."""


def read_warped(
    ihc: Slide,
    ihc_from_he: Transform,
    box_he_px0: Box,
    *,
    mpp: float,
    size: tuple[int, int],
    mpp_tolerance: float = 0.01,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """The IHC pixels that belong to a box of the H&E slide, and which of them lie on the IHC slide.

    The source is read at a whole multiple of level 0 (an exact area mean) closest to `mpp`, on whole source px, so
    that the bilinear one below is the only interpolation. Elsewhere is white.

    Args:
        ihc: The moving slide.
        ihc_from_he: Its place for each point of the H&E slide.
        box_he_px0: What to show, px0 of the H&E slide; may reach over the edge.
        mpp: µm per px of the result.
        size: Width and height of the result, px.
        mpp_tolerance: How much finer than the slide's level 0 `mpp` may be.

    Raises:
        SlideError: `mpp` is finer than the IHC slide's level 0.
    """
    if mpp < ihc.mpp * (1 - mpp_tolerance):
        raise SlideError(ihc.slide_id, f"{mpp:g} µm per px asked for, level 0 has {ihc.mpp:g}; ask for a coarser mpp")
    width, height = size
    picture = np.full((height, width, 3), 255, np.uint8)
    valid = np.zeros((height, width), bool)
    step_x, step_y = box_he_px0.width / width, box_he_px0.height / height
    # Half a multiple up or down: what remains for the bilinear step is between 0.67 and 1.5.
    shrink = max(1, round(mpp / ihc.mpp))
    waiting = [
        (left, top, min(left + BLOCK_PX, width), min(top + BLOCK_PX, height))
        for top in range(0, height, BLOCK_PX)
        for left in range(0, width, BLOCK_PX)
    ]
    while waiting:
        left, top, right, bottom = waiting.pop()
        x, y = np.meshgrid(
            box_he_px0.x + (np.arange(left, right) + 0.5) * step_x,
            box_he_px0.y + (np.arange(top, bottom) + 0.5) * step_y,
        )
        points, covered = ihc_from_he.trace(np.stack([x.ravel(), y.ravel()], axis=1))
        covered &= _on_slide(points, ihc, shrink)
        if not covered.any():
            continue
        used = points[covered] / shrink
        low = np.floor(used.min(axis=0) - 0.5).astype(int) - 1
        high = np.ceil(used.max(axis=0) + 0.5).astype(int) + 1
        across, down = (int(side) for side in high - low)
        if across * down > MAX_SOURCE_PX and (right - left > 1 or bottom - top > 1):
            waiting += _halves(left, top, right, bottom)
            continue
        source = ihc.read(
            Box(float(low[0] * shrink), float(low[1] * shrink), float(across * shrink), float(down * shrink)),
            mpp=ihc.mpp * shrink,
            size=(across, down),
        )
        shape = (bottom - top, right - left)
        place = (points / shrink - low - 0.5).astype(np.float32)
        seen = cv2.remap(
            source,
            place[:, 0].reshape(shape),
            place[:, 1].reshape(shape),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(255, 255, 255),
        )
        inside = covered.reshape(shape)
        picture[top:bottom, left:right][inside] = seen[inside]
        valid[top:bottom, left:right] = inside
    return picture, valid


def _on_slide(points: Float[np.ndarray, "n 2"], ihc: Slide, shrink: int) -> Bool[np.ndarray, " n"]:
    """Points whose bilinear neighbours are all px of the slide: half a source px from the edge, and finite."""
    width, height = ihc.size_px0
    edge = shrink / 2 - 1e-3
    x, y = points[:, 0], points[:, 1]
    finite = np.isfinite(points).all(axis=1)
    inside: np.ndarray = finite & (x >= edge) & (y >= edge) & (x <= width - edge) & (y <= height - edge)
    return inside


def _halves(left: int, top: int, right: int, bottom: int) -> list[tuple[int, int, int, int]]:
    if right - left >= bottom - top:
        middle = math.ceil((left + right) / 2)
        return [(left, top, middle, bottom), (middle, top, right, bottom)]
    middle = math.ceil((top + bottom) / 2)
    return [(left, top, right, middle), (left, middle, right, bottom)]
