"""What all readers share: from a box and an mpp to a level, blocks of it, and pixels."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from hepipe.errors import PixelError, SlideError
from hepipe.geometry import Box, MppFrom
from hepipe.slides.color import AS_SCANNED, SRGB, NoConversion, SrgbFrom
from hepipe.slides.metadata import nominal_downsample
from hepipe.slides.resample import average_areas

BLOCK_PX = 2304
"""Side of the largest piece of a level that is decoded at once: 5 Mpx, far below the 64 Mpx that a read may hold, and
enough for a tile of 1,024 px at a little more than twice the level's mpp."""


class PyramidSlide(abc.ABC):
    """A slide as levels; a reader adds how one rectangle of one level is decoded."""

    reader: str

    def __init__(
        self,
        slide_id: str,
        *,
        mpp: float,
        mpp_from: MppFrom,
        level_sizes: Sequence[tuple[int, int]],
        bounds_px0: tuple[int, int, int, int] | None = None,
        format: str = "other",
        mpp_tolerance: float = 0.01,
    ) -> None:
        """Describe the levels.

        Args:
            slide_id: As in the protocol.
            mpp: µm per px at level 0.
            mpp_from: Who says so.
            level_sizes: Width and height of each level, the largest first.
            bounds_px0: x, y, width, height of the part of level 0 that holds pixels; None for all.
            format: Family of the format.
            mpp_tolerance: How much finer than level 0 a read may ask.
        """
        width, height = level_sizes[0]
        x, y, used_width, used_height = bounds_px0 or (0, 0, width, height)
        self.slide_id = slide_id
        self.mpp = mpp
        self.mpp_from = mpp_from
        self.size_px0 = (used_width, used_height)
        self.origin_px0 = (x, y)
        self.format = format
        self.level_sizes = tuple(level_sizes)
        self.downsamples = tuple(nominal_downsample((width, height), size) for size in level_sizes)
        self.mpp_tolerance = mpp_tolerance
        self.not_direct = ""
        self.from_level0 = False
        self.color = AS_SCANNED
        self._srgb: SrgbFrom | None = None

    @abc.abstractmethod
    def decode(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """A rectangle that lies inside a level, px of that level, transparency on white.

        Raises:
            SlideError: The pixels do not decode.
        """

    def decode_into(self, level: int, x: int, y: int, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """As `decode`, into an array that is there.

        Raises:
            SlideError: The pixels do not decode.
        """
        height, width = out.shape[:2]
        pixels = self.decode(level, x, y, width, height)
        if pixels.shape != out.shape:
            raise PixelError(self.slide_id, "a part of the pixels is missing; copy the file again")
        out[:] = pixels

    @abc.abstractmethod
    def close(self) -> None:
        """Give the file back."""

    def icc_profile(self) -> bytes | None:
        """The colour profile that the file carries."""
        return None

    def convert_to_srgb(self) -> None:
        """Convert what `read` and `overview` return, where the file carries a profile; `color` says which it is."""
        try:
            self._srgb = SrgbFrom(self.icc_profile())
            self.color = SRGB
        except NoConversion as error:
            self.color = f"{AS_SCANNED}: {error}"

    def read(
        self,
        box_px0: Box,
        *,
        mpp: float,
        size: tuple[int, int],
        out: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """As in the protocol."""
        if out is None:
            out = np.empty((size[1], size[0], 3), np.uint8)
        elif out.shape != (size[1], size[0], 3):
            raise ValueError(f"an array of shape {out.shape} for {size[0]} x {size[1]} px")
        if mpp < self.mpp * (1 - self.mpp_tolerance):
            raise SlideError(
                self.slide_id,
                f"{mpp:g} µm per px asked for, finer than its level 0 ({self.mpp:.4g}); ask for a coarser resolution",
            )
        for side, px in ((box_px0.width, size[0]), (box_px0.height, size[1])):
            if abs(side * self.mpp / mpp - px) > 1 + 0.01 * px:
                raise ValueError(f"{side:g} px0 at {mpp:g} µm per px are {side * self.mpp / mpp:g} px, not {px}")
        level = self._level(min(box_px0.width / size[0], box_px0.height / size[1]))
        down = self.downsamples[level]
        box = Box(box_px0.x + self.origin_px0[0], box_px0.y + self.origin_px0[1], box_px0.width, box_px0.height)
        self._resample(level, box.scaled(1 / down), out)
        return out

    def overview(self, *, max_px: int) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
        """As in the protocol."""
        step = max(1.0, max(self.size_px0) / max_px)
        width, height = (max(1, round(side / step)) for side in self.size_px0)
        mpp = self.mpp * step
        return self.read(Box(0, 0, width * step, height * step), mpp=mpp, size=(width, height)), mpp

    def properties(self) -> Mapping[str, str | int | float]:
        """As in the protocol."""
        width, height = self.size_px0
        return {
            "reader": self.reader,
            "format": self.format,
            "mpp": self.mpp,
            "mpp_from": self.mpp_from,
            "width_px0": width,
            "height_px0": height,
            "levels": len(self.level_sizes),
        }

    def _level(self, step_px0: float) -> int:
        """The coarsest level that is no coarser than `step_px0` px of level 0 per output px; 0 where that is wanted."""
        if self.from_level0:
            return 0
        finer = [i for i, down in enumerate(self.downsamples) if down <= step_px0 * (1 + self.mpp_tolerance)]
        return max(finer, key=lambda i: self.downsamples[i], default=0)

    def _resample(self, level: int, box: Box, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """A box in px of a level into an array, block by block."""
        height, width = out.shape[:2]
        # What sums of floats leave beside a whole px would cost the fast ways.
        box = Box(*(_whole_if_near(value) for value in (box.x, box.y, box.width, box.height)))
        step_x, step_y = box.width / width, box.height / height
        columns, rows = (max(1, int(BLOCK_PX / max(step, 1e-6))) for step in (step_x, step_y))
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                block = out[top : top + rows, left : left + columns]
                n_rows, n_columns = block.shape[:2]
                part = Box(box.x + left * step_x, box.y + top * step_y, n_columns * step_x, n_rows * step_y)
                self._block(level, part, block)

    def _block(self, level: int, box: Box, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """One block resampled; white where nothing of the slide lies."""
        level_width, level_height = self.level_sizes[level]
        left, top = int(np.floor(box.x)), int(np.floor(box.y))
        # An edge that rounding has put a hair past a px boundary must not ask for one more px.
        right, bottom = int(np.ceil(box.right - 1e-9)), int(np.ceil(box.bottom - 1e-9))
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(right, level_width), min(bottom, level_height)
        if x0 >= x1 or y0 >= y1:
            out[:] = 255
            return
        height, width = out.shape[:2]
        as_it_is = (left, top, width, height) == (box.x, box.y, box.width, box.height)
        pixels = out if as_it_is else np.empty((bottom - top, right - left, 3), np.uint8)
        if (x0, y0, x1, y1) != (left, top, right, bottom):
            pixels[:] = 255
        inside = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
        self.decode_into(level, x0, y0, inside)
        if self._srgb is not None:
            self._srgb.convert(inside)
        if not as_it_is:
            average_areas(pixels, Box(box.x - left, box.y - top, box.width, box.height), out)


def _whole_if_near(px: float) -> float:
    return float(round(px)) if abs(px - round(px)) < 1e-7 else px


def on_white(pixels: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """RGBA (not premultiplied) composed on white."""
    alpha = pixels[..., 3:]
    color = pixels[..., :3]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(color)
    share = alpha.astype(np.uint16)
    return ((color * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
