"""Whether a slide can be used: opens, decodes to its end, is a brightfield scan, holds tissue."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from hepipe.errors import SlideError
from hepipe.geometry import Box, GivenMpp, MppFrom
from hepipe.slides.completeness import is_cut_short
from hepipe.slides.digests import slide_digests
from hepipe.slides.metadata import samples_reason
from hepipe.slides.open import open_slide
from hepipe.slides.reader import Slide
from hepipe.specs.slides import SlidesSpec

OVERVIEW_PX = 1024
GRID = 6
"""Windows per side that are decoded at level 0, corners included."""
WINDOW_PX = 64
DARK = 64
"""Mean of red, green and blue below which a px is dark: a brightfield scan has such px only in folds and pen."""
BLUR_UM = 10.0
"""Pale stroma between dark nuclei counts as tissue, and the grain of bare glass does not."""
OTSU_RANGE_OD = (0.02, 0.06)
"""Tissue is darker than a threshold in here: Otsu alone halves the noise of an empty slide, or splits off a fold, or
takes only the nuclei of a negative IHC, whose stroma has an optical density of 0.03 (seen on synthetic slides)."""


@dataclass(frozen=True)
class SlideFound:
    """What is known of a usable slide, without a name, path, vendor text or date.

    Attributes:
        not_direct: Why the tiles are not decoded directly; empty where they are.
        color: Whether pixels are read as scanned (and why, where sRGB was asked for) or in sRGB.
        tissue_mm2: Rough area of tissue, from an overview.
        content_sha256: What it shows at level 0, whatever else is in the file; see `slides/digests.py`.
        content_of: Whether that is of compressed `tiles` or of decoded `pixels`.
        file_sha256: Of the whole file.
        icc_sha256: Of the colour profile, if there is one.
    """

    slide_id: str
    reader: str
    format: str
    mpp: float
    mpp_from: MppFrom
    size_px0: tuple[int, int]
    origin_px0: tuple[int, int]
    downsamples: tuple[float, ...]
    tissue_mm2: float
    content_sha256: str
    content_of: str
    file_sha256: str
    icc_sha256: str | None
    not_direct: str
    color: str


def check_slide(path: Path, *, slide_id: str, mpp: GivenMpp, spec: SlidesSpec) -> SlideFound:
    """Open a slide, decode samples of it and look at an overview.

    Raises:
        SlideError: It cannot be used; the reason says why.
    """
    # Before a reader sees it: one that cannot open the rest would leave it to the next, which may see fewer levels.
    if path.is_file() and is_cut_short(path):
        raise SlideError(slide_id, "the file is cut short: bytes that it points to are missing; copy it again")
    slide = open_slide(path, slide_id=slide_id, mpp=mpp, spec=spec)
    try:
        overview, overview_mpp = slide.overview(max_px=OVERVIEW_PX)
        for _ in sample_windows(slide):
            pass  # whether each decodes
        refuse_what_is_not_brightfield(overview, slide_id=slide_id, max_dark_frac=spec.max_dark_frac)
        area_mm2 = tissue_mm2(overview, mpp=overview_mpp)
        if area_mm2 < spec.min_tissue_mm2:
            raise SlideError(
                slide_id,
                f"{area_mm2:.3g} mm² of tissue, at least {spec.min_tissue_mm2:g} expected: the slide looks empty",
            )
        icc = slide.icc_profile()
        digests = slide_digests(path, slide)
        return SlideFound(
            slide_id=slide_id,
            reader=slide.reader,
            format=slide.format,
            mpp=slide.mpp,
            mpp_from=slide.mpp_from,
            size_px0=slide.size_px0,
            origin_px0=slide.origin_px0,
            downsamples=slide.downsamples,
            tissue_mm2=round(area_mm2, 4),
            content_sha256=digests.content,
            content_of=digests.content_of,
            file_sha256=digests.file,
            icc_sha256=None if icc is None else hashlib.sha256(icc).hexdigest(),
            not_direct=slide.not_direct,
            color=slide.color,
        )
    finally:
        slide.close()


def sample_windows(slide: Slide) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Windows on a grid of level 0, and in two corners and the middle of every other level.

    Raises:
        SlideError: One does not decode.
    """
    for level, down in enumerate(slide.downsamples):
        width, height = (max(1, int(side / down)) for side in slide.size_px0)
        size = (min(WINDOW_PX, width), min(WINDOW_PX, height))
        per_side = GRID if level == 0 else 3
        for row in range(per_side):
            for column in range(per_side):
                if level and row != column:
                    continue
                x = (width - size[0]) * column // (per_side - 1)
                y = (height - size[1]) * row // (per_side - 1)
                yield slide.read(Box(x, y, *size).scaled(down), mpp=slide.mpp * down, size=size)


def refuse_what_is_not_brightfield(
    overview: UInt8[np.ndarray, "h w 3"], *, slide_id: str, max_dark_frac: float
) -> None:
    """Stop at a slide that is mostly dark, or without any colour.

    Raises:
        SlideError: Fluorescence, or a grayscale picture stored as RGB.
    """
    dark_frac = float((overview.mean(axis=2) < DARK).mean())
    if dark_frac > max_dark_frac:
        raise SlideError(
            slide_id,
            f"{dark_frac:.0%} of it is dark, at most {max_dark_frac:.0%} expected: "
            "not a brightfield scan (fluorescence?)",
        )
    if int(np.ptp(overview, axis=2).max()) <= 2:
        if int(overview.min()) >= 255 - DARK:
            return  # bare glass: found empty below, which says more
        raise SlideError(slide_id, samples_reason(8, 1))


def tissue_mm2(overview: UInt8[np.ndarray, "h w 3"], *, mpp: float) -> float:
    """Rough area of what is darker than the glass, mm²; the tissue stage measures it properly."""
    od = gaussian_filter(mean_od(overview), BLUR_UM / mpp)
    low, high = OTSU_RANGE_OD
    threshold = float(np.clip(threshold_otsu(od), low, high)) if np.ptp(od) > 0 else high
    return float((od > threshold).sum()) * mpp**2 / 1e6


def mean_od(overview: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Optical density above that of the glass, mean of the three channels.

    The glass is what the brightest 5 % reach, but no darker than 225: a slide full of tissue has none.
    """
    white = np.maximum(np.percentile(overview.reshape(-1, 3), 95, axis=0), 225.0)
    share = np.clip((overview.astype(np.float64) + 1) / (white + 1), None, 1.0)
    od: Float[np.ndarray, "h w"] = -np.log10(share).mean(axis=2)
    return od
