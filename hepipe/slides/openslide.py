"""Slides that openslide reads: Aperio, Hamamatsu, MIRAX, Leica, Ventana, Philips, Zeiss, DICOM, tiled TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
from jaxtyping import UInt8
from PIL import ImageCms

from hepipe.errors import SlideError
from hepipe.geometry import GivenMpp
from hepipe.slides.metadata import accept_mpp, family, ome_mpp, refuse_other_samples
from hepipe.slides.picture import NotThisFormat
from hepipe.slides.pyramid import PyramidSlide, on_white


class OpenSlideSlide(PyramidSlide):
    """A slide behind an openslide handle."""

    reader = "openslide"

    def __init__(
        self,
        handle: openslide.OpenSlide,
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
            SlideError: No believable pixel size.
        """
        properties = handle.properties
        x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
        accepted, source = accept_mpp(slide_id, stated=(x, y) if ome[0] is None else ome, given=mpp)
        super().__init__(
            slide_id,
            mpp=accepted,
            mpp_from=source,
            level_sizes=handle.level_dimensions,
            bounds_px0=_bounds(handle),
            format=family(properties.get("openslide.vendor")),
            mpp_tolerance=mpp_tolerance,
        )
        self._handle = handle
        # openslide places a read by this ratio of sizes; ours is `downsamples`.
        self._ratios = handle.level_downsamples

    def decode(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """A rectangle of a level; openslide interpolates where its level-0 corner is no whole px of the level."""
        corner = (round(x * self._ratios[level]), round(y * self._ratios[level]))
        try:
            return on_white(np.asarray(self._handle.read_region(corner, level, (width, height))))
        except openslide.OpenSlideError as error:
            raise SlideError(self.slide_id, "some pixels do not decode; the file is damaged or cut short") from error

    def icc_profile(self) -> bytes | None:
        """The colour profile that openslide finds; None too for one that is none of a known form."""
        try:
            profile = self._handle.color_profile
        except (openslide.OpenSlideError, ImageCms.PyCMSError, OSError):
            return None
        return None if profile is None else bytes(profile.tobytes())

    def close(self) -> None:
        """Close the handle."""
        self._handle.close()


def open_openslide(path: Path, *, slide_id: str, mpp: GivenMpp, mpp_tolerance: float) -> OpenSlideSlide:
    """A slide file that openslide knows.

    Raises:
        NotThisFormat: It does not, or cannot get past the file's header.
        SlideError: No believable pixel size, or samples that are not 8-bit RGB.
    """
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise NotThisFormat from error
    try:
        refuse_other_samples(slide_id, path)
        is_plain = handle.properties.get("openslide.vendor") == "generic-tiff"
        ome = ome_mpp(path) if is_plain else (None, None)
        return OpenSlideSlide(handle, slide_id=slide_id, mpp=mpp, ome=ome, mpp_tolerance=mpp_tolerance)
    except SlideError:
        handle.close()
        raise


def _bounds(handle: openslide.OpenSlide) -> tuple[int, int, int, int] | None:
    numbers = [_number(handle.properties.get(f"openslide.bounds-{name}")) for name in ("x", "y", "width", "height")]
    if any(number is None for number in numbers):
        return None
    x, y, width, height = (int(number or 0) for number in numbers)
    return (x, y, width, height) if width > 0 and height > 0 else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
