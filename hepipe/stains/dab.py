"""The DAB mask of a tile, by one of three methods.

`otsu_od` goes by the masks of ATST-Net: blur, Otsu's threshold, erosion and dilation, closing; with the light that DAB
takes by the slide's own vectors in place of a grey picture, a floor under the threshold (Otsu finds two classes in an
unstained tile too) and radii in µm. `absolute` takes a threshold that was calibrated on a data set in place of Otsu's.
`atst` is ATST-Net's recipe itself (`hepipe.stains.atst_mask`).

DAB does not obey Beer and Lambert: what is called its optical density is an index of how much there is.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from hepipe.specs.stains import StainsSpec
from hepipe.stains.atst_mask import atst_mask, atst_px
from hepipe.stains.deconvolution import Separator
from hepipe.stains.morphology import close, open_

_BINS = 256
_LN_10 = math.log(10)


def tile_mask(
    ihc: UInt8[np.ndarray, "h w 3"], *, mpp: float, spec: StainsSpec, of_dab: Separator, shift_um: float = math.nan
) -> Bool[np.ndarray, "h w"]:
    """Where a tile is DAB-positive, by the method of `spec`.

    Args:
        ihc: The tile.
        mpp: Of the tile.
        spec: Method, thresholds and radii.
        of_dab: Gives DAB with the slide's own vectors; `atst` has fixed ones.
        shift_um: How far the tile lies off its partner, for `dab_close: shift`; nan where that is not known.
    """
    close_um = closing_um(spec, shift_um)
    if spec.dab_method == "atst":
        sigma_px, steps = atst_px(mpp)
        return atst_mask(ihc, close_px=round(close_um / mpp), sigma_px=sigma_px, steps=steps).mask
    return dab_mask(of_dab(ihc)[0], mpp=mpp, spec=spec, close_um=close_um)


def closing_um(spec: StainsSpec, shift_um: float) -> float:
    """Radius of a tile's closing, µm: the shift between the least and the most where `spec` wants it, else the least.

    A shift that is not known (nan) takes the least; one beyond the search range is larger than any most.
    """
    if spec.dab_close == "radius" or not math.isfinite(shift_um):
        return spec.least_close_um
    return min(max(shift_um, spec.least_close_um), spec.dab_close_most_um)


def otsu_od(dab_od: Float32[np.ndarray, "h w"]) -> float:
    """Otsu's threshold, as an optical density, of the share of light that DAB takes, 1 - 10^-od, in steps of 1/256.

    Of the density itself a few black cells make a class of their own, and the brown ones fall into the other: on drawn
    slides of a seed of their own Dice was 0.75 by density, 0.77 by density up to 1 and 0.83 by the light taken.
    """
    taken = 1 - np.exp(dab_od * np.float32(-_LN_10))
    counts, edges = np.histogram(taken, bins=_BINS, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    total = below[-1]
    moment = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_below = moment / below
        mean_above = (moment[-1] - moment) / (total - below)
        between = below * (total - below) * (mean_above - mean_below) ** 2
    if not np.isfinite(between).any():
        return 0.0
    # Never the last bin, which leaves nothing above it.
    best = int(np.nanargmax(np.where(np.isfinite(between), between, -1.0)))
    return -math.log10(1 - float(edges[best + 1]))


def dab_mask(
    dab_od: Float32[np.ndarray, "h w"], *, mpp: float, spec: StainsSpec, close_um: float | None = None
) -> Bool[np.ndarray, "h w"]:
    """Where a tile is DAB-positive, by Otsu's threshold or, where `spec` says `absolute`, by the calibrated one.

    Args:
        dab_od: DAB as optical density.
        mpp: Of the tile.
        spec: Radii in µm; one that rounds to 0 px does nothing.
        close_um: Radius of the closing; None: that of `spec`.
    """
    sigma = spec.dab_sigma_um / mpp
    smooth = cv2.GaussianBlur(dab_od, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) if sigma >= 0.2 else dab_od
    if spec.dab_method == "absolute":
        assert spec.dab_thresholds_od is not None
        mask: np.ndarray = smooth >= spec.dab_thresholds_od[0]
    else:
        mask = smooth > max(otsu_od(smooth), spec.dab_floor_od)
    mask = open_(mask, round(spec.dab_open_um / mpp))
    return close(mask, round((spec.least_close_um if close_um is None else close_um) / mpp))
