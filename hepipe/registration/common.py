"""Tissue that both slides of a pair show, in the frame of the H&E slide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepipe.config import TissueSpec
from hepipe.geometry import Transform
from hepipe.registration.overview import look, positions, rescale
from hepipe.slides.reader import Slide
from hepipe.tissue.clean import clean
from hepipe.tissue.find import find_tissue
from hepipe.tissue.pieces import label_pieces


@dataclass(frozen=True)
class CommonTissue:
    """Masks `he`, `ihc`, `tissue` (both) and `pieces` (labels) at `mpp`."""

    masks: dict[str, np.ndarray]
    mpp: float
    summary: dict[str, Any]


def common_tissue(he: Slide, ihc: Slide, ihc_from_he: Transform, spec: TissueSpec) -> CommonTissue:
    """Tissue by each slide's own threshold, at `spec.mpp` or the slide's own mpp where that is coarser."""
    (he_rgb, mpp), (ihc_rgb, ihc_mpp) = (_overview(slide, spec.mpp) for slide in (he, ihc))
    he_mask = find_tissue(he_rgb, mpp=mpp, spec=spec)
    ihc_own = find_tissue(ihc_rgb, mpp=ihc_mpp, spec=spec)
    at = positions(rescale(ihc_from_he, fixed_mpp=mpp, moving_mpp=ihc_mpp), shape=(he_mask.shape[0], he_mask.shape[1]))
    ihc_mask = look(ihc_own.astype(np.float32), at) > 0.5
    # The intersection leaves slivers where the two outlines differ.
    tissue = clean(he_mask & ihc_mask, mpp=mpp, close_um=0.0, min_hole_um2=0.0, min_piece_um2=spec.min_piece_um2)
    pieces = label_pieces(tissue)
    area = (mpp / 1000) ** 2
    both = int(he_mask.sum()) + int(ihc_mask.sum())
    summary = {
        "he_mm2": float(he_mask.sum() * area),
        "ihc_mm2": float(ihc_mask.sum() * area),
        "tissue_mm2": float(tissue.sum() * area),
        "dice": 2 * int((he_mask & ihc_mask).sum()) / both if both else 0.0,
        "n_pieces": int(pieces.max()),
    }
    masks = {"he": he_mask, "ihc": ihc_mask, "tissue": tissue, "pieces": pieces}
    return CommonTissue(masks, mpp, summary)


def _overview(slide: Slide, mpp: float) -> tuple[np.ndarray, float]:
    wanted = max(mpp, slide.mpp)
    return slide.overview(max_px=max(1, math.ceil(max(slide.size_px0) * slide.mpp / wanted)))
