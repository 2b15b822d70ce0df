"""Tissue of a real slide as amounts of stains: the pixels of the restained cases with real texture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from making.layers import TISSUE_UM, Amounts, as_bytes
from making.staining import EOSIN_LEFT, Stains

from hepipe.geometry import Box
from hepipe.slides.open import closing, open_slide
from hepipe.stains.deconvolution import Separator, density_table
from hepipe.stains.estimate import STAINED_OD, macenko
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, Vector, angle_deg, stain_matrix
from hepipe.synth.noise import Field, blobs, ramp
from hepipe.tissue.otsu import threshold_tissue, white_point

MARGIN_UM = 200.0
"""Glass about the picture, at least."""
PAD_PX = 32
GLASS_OD = 0.03
"""Less than this is glass: the pattern that a scanner leaves on it would move with the tissue, as no scanner's does."""


class Texture:
    """A real picture on a larger canvas of glass, its stains parted by vectors estimated from itself.

    An H&E picture is the H&E slide as it is, and its IHC gets DAB round nuclei in smooth patches; an IHC picture's
    H&E is drawn from its haematoxylin, with eosin in place of DAB and wherever else there is tissue.

    Attributes:
        stain: What the real slide is.
        mpp: µm per px.
        size: Width and height of the canvas, px.
        vectors: Its haematoxylin and eosin or DAB.
        turned_deg: By how much they differ from the usual ones.
        white: Its empty glass.
        tissue: Where it has tissue, on the grid of `TISSUE_UM` over the canvas.
    """

    def __init__(
        self,
        path: Path,
        *,
        stain: Literal["he", "ihc"],
        mpp: float | None,
        crop: Sequence[int] | None,
        rng: np.random.Generator,
        whole_px: int,
    ) -> None:
        """Read the picture.

        Args:
            path: Of the slide.
            stain: What it is.
            mpp: µm per px where the file does not say.
            crop: Left, top, width and height of the part to use, px; None for all.
            rng: For the patches of DAB.
            whole_px: The canvas is a multiple of this.
        """
        slide = open_slide(path, slide_id="texture", mpp=mpp)
        with closing(slide):
            self.mpp = slide.mpp
            left, top, width, height = crop or (0, 0, *slide.size_px0)
            self._rgb = slide.read(Box(left, top, width, height), mpp=slide.mpp, size=(width, height))
        self.stain = stain
        margin = 2 * MARGIN_UM / self.mpp
        wide, high = (int(np.ceil((side + margin) / whole_px)) * whole_px for side in (width, height))
        self.size = (wide, high)
        self._corner = ((wide - width) // 2, (high - height) // 2)
        quarter = 4 * self.mpp / TISSUE_UM
        small = cv2.resize(self._rgb, None, fx=quarter, fy=quarter, interpolation=cv2.INTER_AREA)
        mask = threshold_tissue(small)
        red, green, blue = white_point(small).tolist()  # leaves out pure white, which no scanner shows
        self.white: Vector = (red, green, blue)
        usual = (HAEMATOXYLIN, EOSIN if stain == "he" else DAB)
        self.vectors = _vectors(small[mask], self.white, usual)
        self.turned_deg = [angle_deg(*pair) for pair in zip(self.vectors, usual, strict=True)]
        self._part = Separator(stain_matrix(*self.vectors), self.white)
        cells = (int(np.ceil(high * self.mpp / TISSUE_UM)), int(np.ceil(wide * self.mpp / TISSUE_UM)))
        cell = self.mpp / TISSUE_UM
        onto = np.array([[0.25, 0, self._corner[0] * cell], [0, 0.25, self._corner[1] * cell]])
        onto[:, 2] += 0.5 * 0.25 - 0.5
        placed = cv2.warpAffine(mask.astype(np.float32), onto, cells[::-1], flags=cv2.INTER_LINEAR)
        self.tissue = cv2.GaussianBlur(placed, (0, 0), 0.7) > 0.5
        self._patches = blobs(rng, cells, 150 / TISSUE_UM)
        self._strength = float(rng.uniform(0.3, 0.9))

    def blank(self, x: int, y: int, side: int) -> bool:
        """Whether a square, px, lies beyond the picture."""
        left, top = self._corner
        height, width = self._rgb.shape[:2]
        return x + side <= left or y + side <= top or x >= left + width or y >= top + height

    def pixels(self, x: int, y: int, side: int) -> UInt8[np.ndarray, "h w 3"]:
        """A square of the canvas."""
        out = np.empty((side, side, 3), np.uint8)
        out[:] = np.asarray(self.white, np.float64).round().astype(np.uint8)
        left, top = self._corner
        height, width = self._rgb.shape[:2]
        x0, y0, x1, y1 = max(x, left), max(y, top), min(x + side, left + width), min(y + side, top + height)
        if x1 > x0 and y1 > y0:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = self._rgb[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def draw(self, x: int, y: int, side: int) -> Amounts:
        """The amounts of a square."""
        full = side + 2 * PAD_PX
        first, second = self._part(self.pixels(x - PAD_PX, y - PAD_PX, full))
        first, second = (np.maximum(stain - np.float32(GLASS_OD), 0) for stain in (first, second))
        body = cv2.GaussianBlur(first, (0, 0), 2.0 / self.mpp)
        crop = slice(PAD_PX, PAD_PX + side)
        ihc = np.empty((side, side, 3), np.uint8)
        as_bytes(first[crop, crop], out=ihc[..., 0])
        if self.stain == "he":
            as_bytes(second[crop, crop], out=ihc[..., 1])
            as_bytes(self._rings(first, x - PAD_PX, y - PAD_PX)[crop, crop], out=ihc[..., 2])
            return Amounts(first[crop, crop], second[crop, crop], ihc)
        ihc[..., 1] = 0
        as_bytes(second[crop, crop], out=ihc[..., 2])
        return Amounts(first[crop, crop] ** 1.1 * 1.5, 0.9 * second[crop, crop] + 0.8 * body[crop, crop], ihc)

    def _rings(self, haematoxylin: Field, x: int, y: int) -> Field:
        """DAB about what is a nucleus, in patches: optical density."""
        sharp, broad = (cv2.GaussianBlur(haematoxylin, (0, 0), sigma / self.mpp) for sigma in (0.5, 7.0))
        nucleus = np.clip((sharp - 0.7 * broad - 0.12) / 0.25, 0, 1)
        near = cv2.GaussianBlur(nucleus, (0, 0), 1.6 / self.mpp)
        ring = np.clip(2.2 * near, 0, 1) * (1 - nucleus)
        cell, side = self.mpp / TISSUE_UM, len(nucleus)
        place = np.array([[cell, 0, (x + 0.5) * cell - 0.5], [0, cell, (y + 0.5) * cell - 0.5]])
        patches = cv2.warpAffine(
            self._patches,
            place,
            (side, side),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(self._strength * ring * ramp(patches, 1.2), np.float32)

    def stains(self, drawn: Stains) -> Stains:
        """How the pair looks: the real slide's own vectors and white on its side, a drawn look on the other."""
        vectors = np.array(self.vectors)
        if self.stain == "he":
            real = replace(drawn.he, vectors=vectors, white=self.white, strengths=(1.0, 1.0), noise=1.0)
            rest = EOSIN_LEFT * vectors[1] + 0.06 * drawn.ihc.vectors[0]
            return replace(drawn, he=replace(real, colors=np.eye(3), gamma=1.0), rest=rest)
        real = replace(drawn.ihc, vectors=vectors, white=self.white, strengths=(1.0, 1.0))
        return replace(drawn, ihc=replace(real, colors=np.eye(3), gamma=1.0), faint=(1.0, 1.0))


def _vectors(rgb: UInt8[np.ndarray, "n 3"], white: Vector, usual: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
    """The slide's own stain vectors, haematoxylin first.

    Estimated without the limits of `hepipe.stains.estimate`: a pair of slides needs no plausible DAB, only stains that
    part as they lie on this slide.
    """
    density = density_table(white)[0][rgb, np.arange(3)].astype(np.float64)
    one, two = macenko(density[density.mean(axis=1) > STAINED_OD])
    straight = angle_deg(one, usual[0]) + angle_deg(two, usual[1]) <= angle_deg(two, usual[0]) + angle_deg(
        one, usual[1]
    )
    return (one, two) if straight else (two, one)
