"""Colour normalisation: pictures brought to the colours of a target, for views of tiles and never in a store.

Reinhard et al., Color transfer between images, IEEE Computer Graphics and Applications 2001, equations 10 and 11, in
CIELAB (white D65) in place of their lαβ, as is usual for stained sections.
Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009: vectors from the
extreme angles, amounts scaled so that their 99th percentiles meet.

Both map each pixel by itself, once the statistics of its slide are known: a crop of a normalised tile is the normalised
crop. Statistics are of tissue alone; where a picture fades into glass the change fades out, so that glass stays glass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from pydantic import Field

from hepipe.specs.base import Spec
from hepipe.specs.stains import StainsSpec
from hepipe.stains.deconvolution import density_table
from hepipe.stains.estimate import MIN_STAINED_PX, STAINED_OD, Stain, estimate
from hepipe.stains.matrices import Vector

Method = Literal["reinhard", "macenko"]
GLASS_OD = 0.05
"""Mean optical density up to which nothing changes; from `STAINED_OD`, Macenko's beta, all of it does."""
MOST_STRETCH = 4.0
"""Of a spread or an amount, either way: a slide of one flat colour would else be blown up to noise."""
_STRIP = 64
"""Rows worked on at once, which stay in the cache."""
PERCENTILE = 99.0
"""Of a stain's amounts that counts as its most (Macenko et al.)."""


class LabStatistics(Spec):
    """Mean and standard deviation of the tissue in CIELAB."""

    method: Literal["reinhard"] = "reinhard"
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    n_pixels: int = Field(description="Stained pixels, or slides where it is the median of several.")


class StainStatistics(Spec):
    """Vectors of the two stains, unit optical densities, and the 99th percentile of their amounts."""

    method: Literal["macenko"] = "macenko"
    first: Vector
    second: Vector
    most: tuple[float, float]
    n_pixels: int = Field(description="Stained pixels, or slides where it is the median of several.")
    notes: tuple[str, ...] = ()


Statistics = Annotated[LabStatistics | StainStatistics, Field(discriminator="method")]
"""What a slide's colours are, as one of the two methods sees them."""


def colour_statistics(
    pixels: UInt8[np.ndarray, "n 3"], method: Method, stain: Stain
) -> LabStatistics | StainStatistics | None:
    """The colours of a slide; None where there is too little tissue to tell.

    Args:
        pixels: Of the slide's tiles, in a fixed order.
        method: By which they will be normalised.
        stain: Which slide it is.
    """
    density = density_table()[0][pixels, np.arange(3)]
    stained = pixels[density.mean(1) > STAINED_OD]
    if len(stained) < MIN_STAINED_PX:
        return None
    if method == "reinhard":
        lab = cv2.cvtColor(_unit(stained[None]), cv2.COLOR_RGB2LAB)[0].astype(np.float64)
        mean, sd = _triple(lab.mean(0)), _triple(lab.std(0))
        return LabStatistics(mean=mean, sd=sd, n_pixels=len(stained))
    found = estimate(stained, stain=stain, spec=StainsSpec(vectors="macenko", white="fixed"))
    amounts = density[density.mean(1) > STAINED_OD] @ np.linalg.pinv(np.array([found.first, found.second]))
    first, second = (max(float(value), 1e-3) for value in np.percentile(amounts, PERCENTILE, axis=0))
    return StainStatistics(
        first=found.first,
        second=found.second,
        most=(round(first, 6), round(second, 6)),
        n_pixels=len(stained),
        notes=found.notes,
    )


def median_statistics(slides: Sequence[LabStatistics | StainStatistics]) -> LabStatistics | StainStatistics:
    """The median of each number over slides of one method, each slide once; vectors are made unit again."""
    if isinstance(slides[0], LabStatistics):
        own = [slide for slide in slides if isinstance(slide, LabStatistics)]
        mean, sd = (_triple(np.median([getattr(slide, name) for slide in own], axis=0)) for name in ("mean", "sd"))
        return LabStatistics(mean=mean, sd=sd, n_pixels=len(own))
    stains = [slide for slide in slides if isinstance(slide, StainStatistics)]
    assert len(stains) == len(slides), "statistics of two methods"
    vectors = [np.median([getattr(slide, name) for slide in stains], axis=0) for name in ("first", "second")]
    first, second = (_triple(vector / np.linalg.norm(vector)) for vector in vectors)
    most = np.median([slide.most for slide in stains], axis=0)
    return StainStatistics(
        first=first, second=second, most=(round(float(most[0]), 6), round(float(most[1]), 6)), n_pixels=len(stains)
    )


def normalized(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    source: LabStatistics | StainStatistics,
    target: LabStatistics | StainStatistics,
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in the colours of the target.

    Args:
        rgb: Of any part of the slide.
        source: Of the slide.
        target: Of the same method.
    """
    if source.method != target.method:
        raise ValueError(f"{source.method} cannot be brought to a target of {target.method}")
    shown = np.empty_like(rgb)
    for top in range(0, len(rgb), _STRIP):
        rows = rgb[top : top + _STRIP]
        if isinstance(source, LabStatistics) and isinstance(target, LabStatistics):
            changed = reinhard(rows, source=source, target=target)
        elif isinstance(source, StainStatistics) and isinstance(target, StainStatistics):
            changed = rescaled_stains(rows, source=source, target=target)
        # Glass, whose share is 0, comes out exactly as it went in.
        kept = rows.astype(np.float32)
        changed -= kept
        changed *= tissue_share(rows)[..., None]
        changed += kept
        np.clip(np.rint(changed, out=changed), 0, 255, out=changed)
        shown[top : top + _STRIP] = changed
    return shown


def reinhard(
    rgb: UInt8[np.ndarray, "h w 3"], *, source: LabStatistics, target: LabStatistics
) -> Float[np.ndarray, "h w 3"]:
    """Mean and standard deviation of each channel of CIELAB brought to the target's, 0 to 255, glass as all else."""
    ratio = np.clip(np.divide(target.sd, np.maximum(source.sd, 1e-6)), 1 / MOST_STRETCH, MOST_STRETCH)
    shift = np.asarray(target.mean) - np.asarray(source.mean) * ratio
    lab = cv2.cvtColor(_unit(rgb), cv2.COLOR_RGB2LAB)
    lab *= ratio.astype(np.float32)
    lab += shift.astype(np.float32)
    lab[..., 0] = np.clip(lab[..., 0], 0, 100)
    changed: np.ndarray = np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * np.float32(255)
    return changed


def rescaled_stains(
    rgb: UInt8[np.ndarray, "h w 3"], *, source: StainStatistics, target: StainStatistics
) -> Float[np.ndarray, "h w 3"]:
    """The amounts of both stains scaled to the target's most and drawn in its vectors; what neither explains goes.

    White is 255 on both sides, where there is no stain.
    """
    density = cv2.LUT(np.ascontiguousarray(rgb), density_table())
    changed = cv2.transform(density, stain_map(source, target).T.astype(np.float32))
    shown: np.ndarray = np.minimum(cv2.exp(changed * np.float32(-np.log(10))), 1) * np.float32(255)
    return shown


def stain_map(source: StainStatistics, target: StainStatistics) -> Float[np.ndarray, "3 3"]:
    """From a row of optical density to that of the target: one matrix, as the amounts are linear in it."""
    scale = np.clip(np.divide(target.most, source.most), 1 / MOST_STRETCH, MOST_STRETCH)
    amounts = np.linalg.pinv(np.array([source.first, source.second]))
    mapped: np.ndarray = amounts @ np.diag(scale) @ np.array([target.first, target.second])
    return mapped


def tissue_share(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """How much of the change a px takes: 0 for glass, 1 from Macenko's threshold on, linear between."""
    density = cv2.LUT(np.ascontiguousarray(rgb), density_table())
    mean = cv2.transform(density, np.full((1, 3), 1 / 3, np.float32))
    share: np.ndarray = np.clip((mean - GLASS_OD) / (STAINED_OD - GLASS_OD), 0, 1)
    return share


def _unit(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """As OpenCV wants floats: 0 to 1."""
    values: np.ndarray = np.ascontiguousarray(rgb).astype(np.float32) / np.float32(255)
    return values


def _triple(values: Float[np.ndarray, " 3"]) -> Vector:
    one, two, three = (round(float(value), 6) for value in values)
    return one, two, three
