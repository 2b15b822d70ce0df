"""Slides that openslide reads: Aperio, Hamamatsu, MIRAX, Leica, Ventana, Philips, Zeiss, DICOM, tiled TIFF."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import openslide
from jaxtyping import UInt8
from PIL import ImageCms

from hepipe.errors import PixelError, SlideError
from hepipe.geometry import GivenMpp
from hepipe.slides.metadata import accept_mpp, family, ome_mpp, refuse_other_samples
from hepipe.slides.picture import NotThisFormat
from hepipe.slides.pyramid import PyramidSlide, on_white


class OpenSlideSlide(PyramidSlide):
    """A slide behind an openslide handle."""

    reader = "openslide"

    def __init__(self, path: Path, *, slide_id: str, mpp: GivenMpp, mpp_tolerance: float = 0.01) -> None:
        """Open the file.

        Args:
            path: A slide that openslide knows.
            slide_id: As in the protocol.
            mpp: From the slide sheet; overrides the file.
            mpp_tolerance: How much finer than level 0 a read may ask.

        Raises:
            NotThisFormat: openslide does not know it, or cannot get past its header.
            SlideError: No believable pixel size, or samples that are not 8-bit RGB.
        """
        try:
            handle = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise NotThisFormat from error
        try:
            refuse_other_samples(slide_id, path)
            properties = handle.properties
            # What OME-XML states wins over the resolution tags.
            stated = ome_mpp(path) if properties.get("openslide.vendor") == "generic-tiff" else (None, None)
            if stated[0] is None:
                x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
                stated = (x, y)
            accepted, source = accept_mpp(slide_id, stated=stated, given=mpp)
        except SlideError:
            handle.close()
            raise
        super().__init__(
            slide_id,
            mpp=accepted,
            mpp_from=source,
            level_sizes=handle.level_dimensions,
            bounds_px0=_bounds(handle),
            format=family(properties.get("openslide.vendor")),
            mpp_tolerance=mpp_tolerance,
        )
        self._path = path
        self._handle = handle
        self._lock = threading.Lock()
        # openslide places a read by this ratio of sizes; ours is `downsamples`.
        self.ratios: tuple[float, ...] = handle.level_downsamples

    def decode(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """A rectangle of a level; openslide interpolates where its level-0 corner is no whole px of the level."""
        corner = (round(x * self.ratios[level]), round(y * self.ratios[level]))
        # A second time, as a damaged tile that another thread met fails all that its handle reads from then on.
        for is_last in (False, True):
            handle = self._handle
            try:
                return on_white(np.asarray(handle.read_region(corner, level, (width, height))))
            except openslide.OpenSlideError as error:
                self._reopen(handle)
                if is_last:
                    text = "some pixels do not decode; the file is damaged or cut short"
                    raise PixelError(self.slide_id, text) from error
        raise AssertionError("a read returns or raises")

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

    def _reopen(self, broken: openslide.OpenSlide) -> None:
        """A new handle in place of one that met damage; that one is closed when no thread reads from it."""
        with self._lock:
            if self._handle is broken:
                try:
                    self._handle = openslide.OpenSlide(self._path)
                except openslide.OpenSlideError as error:
                    raise SlideError(self.slide_id, "the file cannot be opened again") from error


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
