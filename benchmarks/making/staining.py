"""From amounts to what a scanner shows, block by block: both slides' stains, their slow drift, and empty glass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from making.layers import AMOUNT
from making.pyramid import TILE_PX
from making.truth import Waves

from hepipe.synth.noise import Field, generator
from hepipe.synth.plan import Look, Plan
from hepipe.synth.scanner import scan

QUALITY = 80
NOISE = 3.0
"""Grey values on the IHC slide; half of it on the H&E."""
EOSIN_LEFT = 0.06
FAINT = (0.6, 0.9)
"""Haematoxylin of the IHC is the H&E's to the power of the second times the first."""


@dataclass(frozen=True)
class Stains:
    """How both slides look, and how staining drifts over each.

    Attributes:
        he: Of the H&E slide.
        ihc: Of the IHC slide.
        drift: Relative staining over either slide, H&E first.
        mpp: µm per px.
        faint: Factor and power of the IHC's haematoxylin.
        rest: Optical density of one unit of tissue without nuclei on the IHC: left eosin, pale haematoxylin.
    """

    he: Look
    ihc: Look
    drift: tuple[Waves, Waves]
    mpp: float
    faint: tuple[float, float]
    rest: Float[np.ndarray, " 3"]

    def he_density(self, h: Field, e: Field, x: int, y: int) -> Float[np.ndarray, "h w 3"]:
        """Optical density of a block of the H&E slide."""
        drift = self._drift(0, x, y, len(h))
        h, e = h * (drift * np.float32(self.he.strengths[0])), e * (drift * np.float32(self.he.strengths[1]))
        return np.stack([h * np.float32(a) + e * np.float32(b) for a, b in self.he.vectors.T], axis=-1)

    def ihc_density(self, amounts: UInt8[np.ndarray, "h w 3"], x: int, y: int) -> Float[np.ndarray, "h w 3"]:
        """Optical density of a block of the IHC slide; dense deposits of DAB darken all channels alike."""
        table = np.arange(256, dtype=np.float32) / np.float32(AMOUNT)
        faint = (self.faint[0] * self.ihc.strengths[0] * table ** self.faint[1]).astype(np.float32)
        h, rest, dab = (
            cv2.LUT(np.ascontiguousarray(amounts[..., k]), values) for k, values in enumerate((faint, table, table))
        )
        drift = self._drift(1, x, y, len(h))
        h, dab = h * drift, dab * drift
        dense = np.float32(0.24) * dab**2 / (1 + dab)
        return np.stack(
            [
                h * np.float32(a) + dab * np.float32(b) + dense * np.float32(c) + rest * np.float32(d)
                for a, b, c, d in zip(*self.ihc.vectors, (1.0, 0.75, 0.35), self.rest, strict=True)
            ],
            axis=-1,
        )

    def _drift(self, slide: int, x: int, y: int, side: int) -> Field:
        """A factor about 1 over a block."""
        at = np.arange(-8, side + 24, 16) + 0.5
        coarse = 1 + self.drift[slide].on((x + at) * self.mpp, (y + at) * self.mpp)
        fine = cv2.resize(coarse.astype(np.float32), None, fx=16, fy=16, interpolation=cv2.INTER_LINEAR)
        return np.clip(fine[16 : 16 + side, 16 : 16 + side], 0.5, 1.6)


def draw_stains(plan: Plan, key: tuple[int | str, ...], *, side_um: float, mpp: float) -> Stains:
    """The looks of a plan with the noise and quality of the bars, the IHC a little blurred, its staining drifting."""
    rng = generator(*key, "stains")
    sharp = float(rng.uniform(1.0, 1.4)) * 0.25 / mpp
    drift = [Waves.draw(rng, shortest_um=800, longest_um=max(4000.0, side_um), rms=rms, count=8) for rms in (0.06, 0.1)]
    he = replace(plan.he, noise=0.5 * NOISE, quality=QUALITY)
    ihc = replace(plan.ihc, noise=NOISE, quality=QUALITY, blur_px=max(sharp, 0.6))
    rest = EOSIN_LEFT * he.vectors[1] + 0.12 * ihc.vectors[0] + 0.04 * np.array([0.5, 0.75, 1.0])
    return Stains(he, ihc, (drift[0], drift[1]), mpp, FAINT, rest)


def glass(look: Look, rng: np.random.Generator) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Tiles of empty glass: the scanner's white with its noise."""
    return [scan(np.zeros((TILE_PX, TILE_PX, 3), np.float32), look, rng) for _ in range(8)]
