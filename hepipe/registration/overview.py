"""What registration looks at: both slides as small pictures of one resolution, and a picture seen through a transform.

A point (x, y) of a small picture is the point (x, y) * mpp / slide mpp of its slide at level 0: corners coincide, so a
transform between the slides is one between the pictures with both resolutions replaced.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from hepipe.geometry import Transform, scaling
from hepipe.registration.transform import from_mapping
from hepipe.slides.reader import Slide
from hepipe.tissue.otsu import is_ink, mean_od, threshold_tissue

SMOOTH_UM = 3.0
"""Gaussian before the tissue threshold, about a nucleus; at least 1 px. With 8 µm the 90th percentile of the error on
drawn restained cases was up to twice as large."""

FAINT_OD = 0.05
"""Mean optical density at which a px surely is tissue."""


@dataclass(frozen=True)
class Pictures:
    """The two slides of a case at one resolution.

    Attributes:
        mpp: µm per px of both pictures.
        fixed: H&E.
        moving: IHC.
        fixed_mpp: µm per px of the H&E slide's level 0.
        moving_mpp: µm per px of the IHC slide's level 0.
        free_scale: Whether nobody knows what a px measures, so that sections may differ in size on the pictures.
    """

    mpp: float
    fixed: UInt8[np.ndarray, "fh fw 3"]
    moving: UInt8[np.ndarray, "mh mw 3"]
    fixed_mpp: float
    moving_mpp: float
    free_scale: bool = False

    def small(self, ihc_from_he: Transform) -> Transform:
        """A transform between the slides as one between the pictures."""
        return rescale(ihc_from_he, fixed_mpp=self.mpp, moving_mpp=self.mpp)

    def large(self, small: Transform) -> Transform:
        """A transform between the pictures as one between the slides."""
        return rescale(small, fixed_mpp=self.fixed_mpp, moving_mpp=self.moving_mpp)


def rescale(transform: Transform, *, fixed_mpp: float, moving_mpp: float) -> Transform:
    """The same transform for pictures of the same slides with other resolutions."""
    affine = scaling(transform.moving_mpp / moving_mpp) @ transform.affine @ scaling(fixed_mpp / transform.fixed_mpp)
    return Transform(affine, fixed_mpp, moving_mpp, transform.field_um, transform.grid_um)


def read_pictures(he: Slide, ihc: Slide, *, max_px: int) -> Pictures:
    """Both slides at one mpp, the longer side of the larger at most `max_px`."""
    extents = [max(slide.size_px0) * slide.mpp for slide in (he, ihc)]
    budgets = [max(64, round(max_px * extent / max(extents))) for extent in extents]
    (fixed, fixed_mpp), (moving, moving_mpp) = (
        slide.overview(max_px=budget) for slide, budget in zip((he, ihc), budgets, strict=True)
    )
    mpp = max(fixed_mpp, moving_mpp)
    return Pictures(
        mpp=mpp,
        fixed=resample(fixed, fixed_mpp / mpp),
        moving=resample(moving, moving_mpp / mpp),
        fixed_mpp=he.mpp,
        moving_mpp=ihc.mpp,
        free_scale="unknown" in (he.mpp_from, ihc.mpp_from),
    )


def resample(picture: np.ndarray, factor: float) -> np.ndarray:
    """A picture with `factor` times as many px per length, its corner where it was; what is beyond repeats the edge.

    `cv2.resize` would round the factor to whole sizes and so stretch the picture by up to half a px.
    """
    if factor == 1.0:
        return picture
    height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
    source = picture
    if factor < 1.0:
        # Anti-aliasing: what is averaged below spans 1 / factor px.
        source = cv2.GaussianBlur(picture, (0, 0), 0.5 * np.sqrt(max(1 / factor**2 - 1, 1e-6)))
    x = ((np.arange(width) + 0.5) / factor - 0.5).astype(np.float32)
    y = ((np.arange(height) + 0.5) / factor - 0.5).astype(np.float32)
    map_x, map_y = np.meshgrid(x, y)
    made: np.ndarray = cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return made


def positions(transform: Transform, *, shape: tuple[int, int], top: int = 0) -> Float32[np.ndarray, "2 h w"]:
    """Where each px centre of a fixed picture, from row `top` on, lies on the moving one, in its px, not centres."""
    height, width = shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 0.5, np.arange(top, top + height, dtype=np.float32) + 0.5)
    a = transform.affine
    moved = np.stack([a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]]).astype(np.float32)
    if transform.field_um is not None:
        step = transform.fixed_mpp / transform.grid_um
        for axis in range(2):
            plane = np.asarray(transform.field_um[axis] / transform.moving_mpp, np.float32)
            moved[axis] += cv2.remap(
                plane, x * step - 0.5, y * step - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
    return moved


def look(
    picture: np.ndarray, at: Float32[np.ndarray, "2 h w"], *, outside: float | tuple[float, ...] = 0.0
) -> np.ndarray:
    """A picture sampled at positions in its px, bilinear; beyond it the value `outside`."""
    value = outside if isinstance(outside, tuple) else (outside,) * 4
    seen: np.ndarray = cv2.remap(
        picture, at[0] - 0.5, at[1] - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=value
    )
    return seen


def lies_on(at: Float32[np.ndarray, "2 h w"], shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Which positions lie on a picture of this (height, width)."""
    inside: np.ndarray = (at[0] >= 0) & (at[1] >= 0) & (at[0] <= shape[1]) & (at[1] <= shape[0])
    return inside


def features(rgb: UInt8[np.ndarray, "h w 3"], *, mpp: float) -> Float32[np.ndarray, "2 h w"]:
    """What two stains have in common: root of the optical density, and a soft tissue mask; both 0 on glass, up to 1.

    The mask is smoothed a little, so that it follows structure and not grain. The root keeps dense DAB from
    outweighing everything else; its 99.5th percentile is 1.
    """
    density = np.sqrt(np.maximum(mean_od(rgb), 0)).astype(np.float32)
    scale = float(np.percentile(density, 99.5))
    mask = cv2.GaussianBlur(threshold_tissue(rgb, smooth_px=max(1.0, SMOOTH_UM / mpp)).astype(np.float32), (0, 0), 1.0)
    # Glass is not quite black in density: grain and shading below the tissue threshold are taken away.
    return np.stack([np.clip(density / max(scale, 1e-3), 0, 1) * np.clip(mask * 2, 0, 1), mask]).astype(np.float32)


def faint_features(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "2 h w"]:
    """Root of the optical density, and how near it comes to that of tissue; both 0 on clean glass and ink, up to 1.

    No threshold: alveolar walls, fat and pale stroma keep their contrast, which bends a field more truly (five real
    pairs) and needs no exact mask. Glass is not cut off either, so these are for steps that start near the truth.
    """
    # A px beside ink is half ink.
    ink = cv2.dilate(is_ink(rgb).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    density = np.where(ink, 0, mean_od(rgb)).astype(np.float32)
    root = np.sqrt(density)
    scale = float(np.percentile(root, 99.5))
    return np.stack([np.clip(root / max(scale, 1e-3), 0, 1), np.clip(density / FAINT_OD, 0, 1)]).astype(np.float32)


def shrink_features(channels: Float32[np.ndarray, "c h w"], factor: float) -> Float32[np.ndarray, "c sh sw"]:
    """Feature channels at `factor` of their resolution."""
    return np.stack([resample(channel, factor) for channel in channels])


def sample(field: Float32[np.ndarray, "2 h w"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """A dense field at points in its px, bilinear; beyond it the value at its edge."""
    # OpenCV's remap takes at most 32,767 rows or columns.
    parts = []
    for some in np.array_split(points, max(1, -(-len(points) // 16_384))):
        x, y = (some[:, axis].astype(np.float32)[None] - 0.5 for axis in range(2))
        parts.append([cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0] for plane in field])
    shift: np.ndarray = np.concatenate([np.stack(part, axis=1) for part in parts]).astype(np.float64)
    return shift


def on_top(start: Transform, shift: Float32[np.ndarray, "2 h w"], *, size: tuple[int, int]) -> Transform:
    """`start` after a displacement of the fixed picture's px, as one field of a quarter of its resolution."""
    return from_mapping(
        lambda points: start(points + sample(shift, points)),
        start.affine,
        fixed_size_px0=size,
        fixed_mpp=start.fixed_mpp,
        moving_mpp=start.moving_mpp,
        grid_um=4.0 * start.fixed_mpp,
    )
