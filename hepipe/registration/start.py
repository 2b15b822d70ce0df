"""The start: how the IHC slide lies against the H&E slide, over all rotations and mirror images.

Masked normalised cross-correlation for all shifts at once: Padfield, Masked object registration in the Fourier domain,
IEEE Transactions on Image Processing 2012.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

from hepipe.geometry import scaling, translation
from hepipe.registration.overview import shrink_features

SEARCH_PX = 200
"""Longer side of the searched pictures. The right rotation was among the best two on five real pairs at this size."""
SCALED_SEARCH_PX = 120
"""The same where the size is searched too, in many more tries."""
SCALE_STEP = 1.08
"""Between the sizes tried: half a step moves the rim of a section by 2 px of the searched pictures."""
MIN_OVERLAP = 0.5
"""Share of the smaller picture that both must cover."""
APART_DEG = 15.0
"""Kept starts differ by this much, or by their mirroring: else they are one start found several times."""


@dataclass(frozen=True)
class Start:
    """A placement of the moving picture, perhaps mirrored and resized: `moving_from_fixed` in px of both pictures."""

    moving_from_fixed: Float[np.ndarray, "3 3"]
    correlation: float
    angle_deg: float
    mirrored: bool
    scale: float = 1.0


def search_starts(
    fixed: Float32[np.ndarray, "2 fh fw"],
    moving: Float32[np.ndarray, "2 mh mw"],
    *,
    step_deg: float,
    flips: bool,
    keep: int,
    scale_range: tuple[float, float] = (1.0, 1.0),
) -> list[Start]:
    """The best placements, best first, each unlike the others.

    Args:
        fixed: Features of the H&E picture.
        moving: Features of the IHC picture, same resolution.
        step_deg: Between the rotations tried.
        flips: Try mirror images too.
        keep: Most placements returned.
        scale_range: Smallest and largest size tried, moving px per fixed px, in even steps of the logarithm.
    """
    scales = scales_between(*scale_range)
    longest = SEARCH_PX if len(scales) == 1 else SCALED_SEARCH_PX
    factor = min(1.0, longest / max(*fixed.shape[1:], *moving.shape[1:]))
    target = shrink_features(fixed, factor).mean(axis=0)
    angles = np.arange(0, 360, step_deg)
    found = []
    for scale in scales:
        source = shrink_features(moving, factor / scale).mean(axis=0)
        search = _MaskedSearch(target, longest=math.ceil(math.hypot(*source.shape)) + 1)
        for mirrored, angle in itertools.product((False, True) if flips else (False,), angles):
            start = search.best(source, angle_deg=float(angle), mirrored=mirrored)
            placed = np.linalg.inv(scaling(factor / scale)) @ start.moving_from_fixed @ scaling(factor)
            found.append(replace(start, moving_from_fixed=placed, scale=scale))
    kept: list[Start] = []
    for start in sorted(found, key=lambda one: -one.correlation):
        if len(kept) == keep:
            break
        if all(_differ(start, other) for other in kept):
            kept.append(start)
    return kept


def scales_between(low: float, high: float) -> list[float]:
    """Sizes from the smallest to the largest, in even steps of the logarithm of at most `SCALE_STEP`."""
    count = math.ceil(math.log(high / low) / math.log(SCALE_STEP) - 1e-9) + 1
    return [float(scale) for scale in np.geomspace(low, high, count)]


def _differ(one: Start, other: Start) -> bool:
    apart_deg = abs((one.angle_deg - other.angle_deg + 180) % 360 - 180)
    resized = max(one.scale / other.scale, other.scale / one.scale) > SCALE_STEP**1.5
    return one.mirrored != other.mirrored or apart_deg >= APART_DEG or resized


class _MaskedSearch:
    """All shifts of a turned picture over one target."""

    def __init__(self, target: Float32[np.ndarray, "h w"], *, longest: int) -> None:
        self.longest = longest
        self.height, self.width = target.shape
        self.shape = tuple(scipy.fft.next_fast_len(side + longest - 1, real=True) for side in target.shape)
        self.n_target = target.size
        self.target = self._spectrum(target)
        self.squares = self._spectrum(target * target)
        self.ones = self._spectrum(np.ones_like(target))

    def best(self, source: Float32[np.ndarray, "h w"], *, angle_deg: float, mirrored: bool) -> Start:
        """The best shift of the source, turned by an angle about its middle after mirroring."""
        height, width = source.shape
        side = self.longest
        flip = np.diag([-1.0, 1.0, 1.0]) if mirrored else np.eye(3)
        angle = math.radians(angle_deg)
        turn = np.array(
            [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
        )
        # canvas (the turned picture's square) from source
        placed = translation(side / 2, side / 2) @ turn @ flip @ translation(-width / 2, -height / 2)
        centres = translation(-0.5, -0.5) @ placed @ translation(0.5, 0.5)
        canvas = cv2.warpAffine(source, centres[:2], (side, side), flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(np.ones_like(source), centres[:2], (side, side), flags=cv2.INTER_NEAREST)
        shift, correlation = self._correlate(canvas * mask, mask, smaller=min(source.size, self.n_target))
        # fixed = canvas + shift
        fixed_from_moving = translation(*shift) @ placed
        return Start(np.linalg.inv(fixed_from_moving), correlation, angle_deg, mirrored)

    def _correlate(
        self, canvas: Float32[np.ndarray, "s s"], mask: Float32[np.ndarray, "s s"], *, smaller: int
    ) -> tuple[tuple[float, float], float]:
        moved = np.conj(self._spectrum(canvas))
        moved_squares = np.conj(self._spectrum(canvas * canvas))
        moved_ones = np.conj(self._spectrum(mask))
        count = np.maximum(self._back(self.ones * moved_ones), 1)
        sum_target, sum_moved = self._back(self.target * moved_ones), self._back(self.ones * moved)
        shared = self._back(self.target * moved) - sum_target * sum_moved / count
        var_target = self._back(self.squares * moved_ones) - sum_target**2 / count
        var_moved = self._back(self.ones * moved_squares) - sum_moved**2 / count
        spread = np.sqrt(np.maximum(var_target, 1e-3) * np.maximum(var_moved, 1e-3))
        value = np.where(count >= MIN_OVERLAP * smaller, shared / spread, -1.0)
        row, column = np.unravel_index(int(np.argmax(value)), value.shape)
        # The transform is circular: shifts past the target's end are negative ones.
        y = int(row) - (self.shape[0] if row >= self.height else 0)
        x = int(column) - (self.shape[1] if column >= self.width else 0)
        return (float(x), float(y)), float(value[row, column])

    def _spectrum(self, image: Float32[np.ndarray, "h w"]) -> np.ndarray:
        return np.asarray(scipy.fft.rfft2(image, self.shape))

    def _back(self, spectrum: np.ndarray) -> np.ndarray:
        return np.asarray(scipy.fft.irfft2(spectrum, self.shape))
