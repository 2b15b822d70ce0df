"""Tissue that both slides of a pair show, in the frame of the H&E slide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepipe.geometry import Transform
from hepipe.registration.overview import look, positions, rescale
from hepipe.registration.pieces import Pieces, look_up, read_pieces
from hepipe.slides.reader import Slide
from hepipe.specs.slides import TissueSpec
from hepipe.stores.arrays import Registered
from hepipe.tissue.clean import clean
from hepipe.tissue.find import find_tissue
from hepipe.tissue.otsu import strips
from hepipe.tissue.pieces import group_pieces, nearest_piece
from hepipe.tissue.regions import OUT, REGIONS, Regions, likely_slip, paint

MAX_UNKNOWN_PX = 4096
"""Longer side of the picture that tissue is found on where no px has a known size: a slide of 33 mm at 8 µm per px."""


LEAST_DRAWN_FRAC = 0.01
"""Outlines with less tissue than this share of their area were drawn on something else."""


@dataclass(frozen=True)
class CommonTissue:
    """Tissue at `mpp` in the frame of the H&E slide.

    Attributes:
        masks: `he`, `ihc`: tissue of each slide without the pieces that the other has not; `tissue`: both;
            `pieces_he`, `pieces_ihc`: number of the piece that tissue of either slide belongs to, those taken out
            included; 0 is glass. `regions`, where any are drawn: their numbers, see `tissue.regions`.
        mpp: µm per px.
        summary: Areas, Dice, and `pieces`: name, role, area and `kept_frac`, the share of it that is in `tissue`;
            `regions`, where any are drawn: `classes` with their areas, and notes.
    """

    masks: dict[str, np.ndarray]
    mpp: float
    summary: dict[str, Any]

    def unusable(self) -> str:
        """Why no tile can be had, and what to do; empty when tiles can."""
        drawn = self.summary.get("regions", {}).get("classes", ())
        if _misses(drawn):
            area, held = _outlined(drawn)
            meant = self.summary["regions"].get("meant") or "another slide's file, or not px of level 0"
            return f"regions: {held:.3g} mm² of common tissue in {area:.3g} mm² outlined: {meant}"
        if self.masks["tissue"].any():
            return ""
        taken = " beside the regions control and exclude" if "regions" in self.masks else ""
        return f"the two slides show no tissue in common{taken}; look at the overlay"

    def areas(self) -> dict[str, np.ndarray]:
        """Masks by the class that they have in QuPath: tissue, what was taken out of the H&E's, regions."""
        areas = {"tissue": self.masks["tissue"], "taken_out": (self.masks["pieces_he"] > 0) & ~self.masks["he"]}
        if "regions" in self.masks:
            areas |= {region: self.masks["regions"] == number for number, region in enumerate(REGIONS, start=1)}
        return areas


def common_tissue(
    he: Slide,
    ihc: Slide,
    ihc_from_he: Transform,
    spec: TissueSpec,
    *,
    numbered: tuple[Pieces, float] | None = None,
    regions: Regions | None = None,
) -> CommonTissue:
    """Tissue by each slide's own threshold, at `spec.mpp` or the slide's own mpp where that is coarser.

    A slide of unknown mpp, whose px count as 1 µm each, is looked at with at most `MAX_UNKNOWN_PX`.

    Args:
        he: The fixed slide.
        ihc: The moving slide.
        ihc_from_he: Between them.
        spec: How tissue is found.
        numbered: The pieces of the registration and the mpp of their label maps; None: all tissue counts, and pieces
            are those of the masks found here.
        regions: What a person outlined on the H&E slide; what is `control` or `exclude` is no common tissue.

    Raises:
        SlideError: The pixels do not decode, or a region is no drawing.
    """
    # One picture at a time, and none longer than its mask needs: a large slide's has 20 Mpx.
    (he_all, mpp), (ihc_all, ihc_mpp) = (_all_tissue(slide, spec) for slide in (he, ihc))
    if numbered is None:
        pieces, numbers = None, (group_pieces(he_all), group_pieces(ihc_all))
    else:
        pieces, pieces_mpp = numbered
        numbers = (
            nearest_piece(pieces.he, shape=he_all.shape, scale=mpp / pieces_mpp),
            nearest_piece(pieces.ihc, shape=ihc_all.shape, scale=ihc_mpp / pieces_mpp),
        )
    small = rescale(ihc_from_he, fixed_mpp=mpp, moving_mpp=ihc_mpp)
    pieces_he = numbers[0] * he_all
    seen_all, pieces_ihc = _seen(ihc_all, numbers[1], small, (he_all.shape[0], he_all.shape[1]))
    del ihc_all, numbers
    out = {"he": [], "ihc": []} if pieces is None else {"he": pieces.out("he"), "ihc": pieces.out("ihc")}
    he_mask = he_all & ~_is_one(pieces_he, out["he"])
    ihc_mask = seen_all & ~_is_one(pieces_ihc, out["ihc"])
    del he_all, seen_all
    shared = he_mask & ihc_mask
    n_shared = int(shared.sum())
    drawn, told = None, {}
    if regions is not None:
        drawn = paint(regions, shape=(shared.shape[0], shared.shape[1]), px_from_px0=he.mpp / mpp, slide_id=he.slide_id)
        told = {"regions": _described(regions, drawn, shared, mpp)}
        if _misses(told["regions"]["classes"]):
            told["regions"]["meant"] = likely_slip(
                regions, shared, px_from_px0=he.mpp / mpp, size_px0=he.size_px0, mpp=he.mpp
            )
        shared &= ~_is_one(drawn, [REGIONS.index(region) + 1 for region in OUT])
    # The intersection leaves slivers where the two outlines differ.
    tissue = clean(shared, mpp=mpp, close_um=0.0, min_hole_um2=0.0, min_piece_um2=spec.min_piece_um2)
    area = (mpp / 1000) ** 2
    both = int(he_mask.sum()) + int(ihc_mask.sum())
    summary = {
        "he_mm2": float(he_mask.sum() * area),
        "ihc_mm2": float(ihc_mask.sum() * area),
        "tissue_mm2": float(tissue.sum() * area),
        "dice": 2 * n_shared / both if both else 0.0,
        "n_pieces": len(np.unique(pieces_he[tissue])),
        "pieces": [] if pieces is None else _kept(pieces, tissue, {"he": pieces_he, "ihc": pieces_ihc}),
        **told,
    }
    masks = {"he": he_mask, "ihc": ihc_mask, "tissue": tissue, "pieces_he": pieces_he, "pieces_ihc": pieces_ihc}
    return CommonTissue(masks if drawn is None else {**masks, "regions": drawn}, mpp, summary)


def _outlined(classes: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Area of what tiles may come from, and of the tissue in it, mm²."""
    drawn = [row for row in classes if row["region"] not in OUT]
    return sum((row["area_mm2"] for row in drawn), 0.0), sum((row["tissue_mm2"] for row in drawn), 0.0)


def _misses(classes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether outlines were drawn on something else than this tissue."""
    area, held = _outlined(classes)
    return any(row["region"] not in OUT for row in classes) and held <= LEAST_DRAWN_FRAC * area


def stored_pieces(registered: Registered) -> tuple[Pieces, float] | None:
    """The pieces of a stored registration and the mpp of their label maps; None where it has none."""
    maps, records = registered.evidence, registered.summary.get("pieces")
    if not records or not {"pieces_he", "pieces_ihc"} <= maps.keys():
        return None
    return read_pieces(maps["pieces_he"], maps["pieces_ihc"], records), float(registered.summary["mpp"])


def _described(regions: Regions, drawn: np.ndarray, shared: np.ndarray, mpp: float) -> dict[str, Any]:
    """Of each class that is drawn how many outlines there are, their area, and that of the tissue in them."""
    area = (mpp / 1000) ** 2
    rows = []
    for number, region in enumerate(REGIONS, start=1):
        if count := sum(outline.region == region for outline in regions.outlines):
            here = drawn == number
            held = float((here & shared).sum() * area)
            rows.append({"region": region, "n": count, "area_mm2": float(here.sum() * area), "tissue_mm2": held})
    return {"classes": rows, "notes": list(regions.notes)}


def _kept(pieces: Pieces, tissue: np.ndarray, numbers: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = []
    for piece in pieces.table:
        here = numbers[piece.stain] == piece.number
        seen = int(here.sum())
        rows.append(
            {
                "name": piece.name,
                "role": piece.role,
                "by": piece.by,
                "partner": piece.partner,
                "area_mm2": piece.area_mm2,
                "dab_frac": piece.dab_frac,
                "kept_frac": float((here & tissue).sum() / seen) if seen else 0.0,
            }
        )
    return rows


def _all_tissue(slide: Slide, spec: TissueSpec) -> tuple[np.ndarray, float]:
    """Tissue of a slide with its µm per px."""
    wanted = max(spec.mpp, slide.mpp)
    side = max(1, math.ceil(max(slide.size_px0) * slide.mpp / wanted))
    rgb, mpp = slide.overview(max_px=min(side, MAX_UNKNOWN_PX) if slide.mpp_from == "unknown" else side)
    handed = [rgb]
    del rgb
    return find_tissue(handed.pop(), mpp=mpp, spec=spec), mpp


def _seen(
    ihc: np.ndarray, numbers: np.ndarray, ihc_from_he: Transform, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Tissue of the IHC in the H&E's frame, and of what piece it is, some rows at a time."""
    seen, pieces = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    limits = np.array([[ihc.shape[1]], [ihc.shape[0]]])
    for rows in strips(shape):
        at = positions(ihc_from_he, shape=(rows.stop - rows.start, shape[1]), top=rows.start)
        # Only the part that these rows see is held as floats; the px beside it are those that are interpolated with.
        flat = at.reshape(2, -1)
        low = np.clip(np.floor(flat.min(1, keepdims=True)) - 2, 0, limits).astype(np.int64)
        high = np.clip(np.ceil(flat.max(1, keepdims=True)) + 2, 0, limits).astype(np.int64)
        if (low < high).all():
            part = np.s_[low[1, 0] : high[1, 0], low[0, 0] : high[0, 0]]
            at -= low[:, :, None].astype(np.float32)
            seen[rows] = look(ihc[part].astype(np.float32), at) > 0.5
            pieces[rows] = look_up(numbers[part], at) * seen[rows]
    return seen, pieces


def _is_one(numbers: np.ndarray, wanted: list[int]) -> np.ndarray:
    found: np.ndarray = np.isin(np.arange(256), wanted)[numbers]
    return found
