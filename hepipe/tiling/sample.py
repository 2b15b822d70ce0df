"""Pixels of windows of tissue, from which a slide's stains are estimated before the pass over its tiles."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from hepipe.geometry import Box, Transform
from hepipe.slides.reader import Slide
from hepipe.stains.estimate import pooled
from hepipe.stores.arrays import TissueMasks
from hepipe.tiling.grid import sample_windows

WINDOW_PX = 128
WINDOW_MPP = 1.0
"""Fine enough that nuclei and membranes are not mixed with what lies beside them."""
OVERVIEW_PX = 1024


def tissue_pixels(
    slide: Slide, tissue: TissueMasks, *, count: int, fixed_mpp: float, moved: Transform | None = None
) -> UInt8[np.ndarray, "n 3"]:
    """Pixels of at most `count` windows, the same every time; none without tissue.

    Args:
        slide: Read at 1 µm per px, or its own resolution where that is coarser.
        tissue: In the frame of the fixed slide.
        count: Most windows.
        fixed_mpp: µm per px at level 0 of the fixed slide.
        moved: From the fixed slide to this one; None for the fixed slide itself.
    """
    assert tissue.tissue is not None
    mpp = max(WINDOW_MPP, slide.mpp)
    side_um = WINDOW_PX * mpp
    boxes = sample_windows(tissue.tissue, mask_mpp=tissue.mpp, level0_mpp=fixed_mpp, side_um=side_um, count=count)
    if moved is not None and boxes:
        centres = moved(np.array([[box.x + box.width / 2, box.y + box.height / 2] for box in boxes]))
        side = side_um / slide.mpp
        boxes = [Box(float(x) - side / 2, float(y) - side / 2, side, side) for x, y in centres]
    return pooled([slide.read(box, mpp=mpp, size=(WINDOW_PX, WINDOW_PX)) for box in boxes])


def overview_pixels(slide: Slide) -> UInt8[np.ndarray, "n 3"]:
    """Pixels of the whole slide, glass included."""
    return pooled([slide.overview(max_px=OVERVIEW_PX)[0]])
