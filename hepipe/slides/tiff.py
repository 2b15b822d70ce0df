"""TIFF that openslide does not read: strips, OME-TIFF, levels in SubIFDs."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import tifffile
import tiffslide
from jaxtyping import UInt8

from hepipe.errors import PixelError, SlideError
from hepipe.geometry import GivenMpp
from hepipe.slides.metadata import accept_mpp, family, ome_mpp, samples_reason
from hepipe.slides.picture import NotThisFormat
from hepipe.slides.pyramid import PyramidSlide, on_white

MAX_SEGMENT_PX = 64_000_000
"""Largest strip or tile, px: a strip is decoded whole, and some writers put the whole slide into one."""

BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
"""What tifffile, zarr and the codecs raise at damaged bytes; no error of ours is among them."""


class TiffSlideSlide(PyramidSlide):
    """A slide behind a tiffslide handle."""

    reader = "tiffslide"

    def __init__(
        self,
        handle: tiffslide.TiffSlide,
        *,
        slide_id: str,
        mpp: GivenMpp,
        ome: tuple[float | None, float | None] = (None, None),
        mpp_tolerance: float = 0.01,
    ) -> None:
        """Take over an open handle.

        Args:
            handle: It is closed with the slide.
            slide_id: As in the protocol.
            mpp: From the slide sheet; overrides the file.
            ome: µm per px as OME-XML states it, which wins over the resolution tags.
            mpp_tolerance: How much finer than level 0 a read may ask.

        Raises:
            SlideError: Not 8-bit RGB, or no believable pixel size.
        """
        properties = handle.properties
        page = _first_page(handle)
        if (
            properties["tiffslide.series-axes"] != "YXS"
            or page.bitspersample != 8
            or page.samplesperpixel not in (3, 4)
        ):
            raise SlideError(slide_id, samples_reason(int(page.bitspersample), _channels(handle)))
        segment = page.chunks[0] * page.chunks[1]
        if segment > MAX_SEGMENT_PX:
            raise SlideError(
                slide_id,
                f"one strip of {segment / 1e6:.0f} Mpx, which would be decoded whole; save it as a tiled TIFF pyramid",
            )
        tags = (_number(properties.get("tiffslide.mpp-x")), _number(properties.get("tiffslide.mpp-y")))
        stated = tags if ome[0] is None else ome
        accepted, source = accept_mpp(slide_id, stated=stated, given=mpp)
        vendor = properties.get("tiffslide.vendor") or ("ome" if handle.ts_tifffile.is_ome else "generic-tiff")
        super().__init__(
            slide_id,
            mpp=accepted,
            mpp_from=source,
            level_sizes=handle.level_dimensions,
            format=family(vendor),
            mpp_tolerance=mpp_tolerance,
        )
        self._handle = handle

    def decode(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """A rectangle of a level, from the zarr view of the file: `read_region` only takes px of level 0."""
        try:
            pixels = np.asarray(self._handle.zarr_group[str(level)][y : y + height, x : x + width])
        except BROKEN as error:
            raise PixelError(self.slide_id, "some pixels do not decode; the file is damaged or cut short") from error
        return on_white(pixels) if pixels.shape[2] == 4 else pixels

    def icc_profile(self) -> bytes | None:
        """The profile in the first page's tag."""
        tag = _first_page(self._handle).tags.get("InterColorProfile")
        return None if tag is None else bytes(tag.value)

    def close(self) -> None:
        """Close the handle."""
        self._handle.close()


def open_tiff(path: Path, *, slide_id: str, mpp: GivenMpp, mpp_tolerance: float) -> TiffSlideSlide:
    """A TIFF that tifffile knows.

    Raises:
        NotThisFormat: No TIFF, or of a structure that tiffslide has no reading for.
        SlideError: No believable pixel size, samples that are not 8-bit RGB, bytes missing at the end.
    """
    with warnings.catch_warnings():
        # Partial vendor metadata: all that is taken from it is the pixel size, which is checked.
        warnings.simplefilter("ignore", UserWarning)
        try:
            handle = tiffslide.TiffSlide(path)
        except (tifffile.TiffFileError, *BROKEN) as error:
            raise NotThisFormat from error
        try:
            _ = handle.level_dimensions
        except BROKEN as error:  # NotImplementedError, a RuntimeError, among them
            handle.close()
            raise NotThisFormat from error
        try:
            return TiffSlideSlide(handle, slide_id=slide_id, mpp=mpp, ome=ome_mpp(path), mpp_tolerance=mpp_tolerance)
        except SlideError:
            handle.close()
            raise


def _first_page(handle: tiffslide.TiffSlide) -> tifffile.TiffPage:
    file = handle.ts_tifffile
    return file.series[handle.properties.get("tiffslide.series-index", 0)].keyframe


def _channels(handle: tiffslide.TiffSlide) -> int:
    series = handle.ts_tifffile.series[handle.properties.get("tiffslide.series-index", 0)]
    return int(np.prod([n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YX"]))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float | np.number) else None
