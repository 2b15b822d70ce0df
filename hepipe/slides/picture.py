"""Pictures without a pyramid: arrays, PNG, JPEG and plain TIFF; their pixel size always comes from the sheet."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hepipe.errors import SlideError
from hepipe.geometry import GivenMpp, MppFrom
from hepipe.slides.metadata import accept_mpp, samples_reason
from hepipe.slides.pyramid import PyramidSlide, on_white

MAX_PICTURE_PX = 64_000_000
"""A picture has no levels and is decoded whole, so it has the budget of an overview."""


class NotThisFormat(Exception):
    """A reader does not know a file; the next one may."""


class ArraySlide(PyramidSlide):
    """A slide in memory."""

    reader = "picture"

    def __init__(
        self,
        array: UInt8[np.ndarray, "h w 3"],
        *,
        mpp: float,
        slide_id: str,
        mpp_from: MppFrom = "sheet",
        mpp_tolerance: float = 0.01,
        icc: bytes | None = None,
    ) -> None:
        size = (array.shape[1], array.shape[0])
        super().__init__(
            slide_id,
            mpp=mpp,
            mpp_from=mpp_from,
            level_sizes=[size],
            format="picture",
            mpp_tolerance=mpp_tolerance,
        )
        self._array = array
        self._icc = icc

    def decode(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """A view; the caller copies."""
        return self._array[y : y + height, x : x + width]

    def icc_profile(self) -> bytes | None:
        """The colour profile of the file it came from."""
        return self._icc

    def close(self) -> None:
        """Nothing is open."""


def open_picture(path: Path, *, slide_id: str, mpp: GivenMpp, mpp_tolerance: float) -> ArraySlide:
    """A picture file, told by its content and not by its name.

    Raises:
        NotThisFormat: Neither PNG, JPEG nor TIFF.
        SlideError: No mpp given, too large, not 8-bit RGB, or it does not decode.
    """
    with warnings.catch_warnings():
        # Of large size, which is looked at below, and of metadata that nothing here uses.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path, formats=("PNG", "JPEG", "TIFF"))
        except Image.DecompressionBombError:
            raise SlideError(slide_id, _too_large("more than 178")) from None
        except (OSError, SyntaxError, ValueError, TypeError, KeyError) as error:
            raise NotThisFormat from error
    with image:
        accepted, source = accept_mpp(slide_id, stated=(None, None), given=mpp)
        if image.width * image.height > MAX_PICTURE_PX:
            raise SlideError(slide_id, _too_large(f"{image.width * image.height / 1e6:.0f}"))
        raw_mode = str(image.tile[0][3]) if image.tile else ""
        bits = 16 if "16" in raw_mode or image.mode.startswith("I") else 32 if image.mode == "F" else 8
        if bits != 8 or image.mode not in ("RGB", "RGBA", "P"):
            raise SlideError(slide_id, samples_reason(bits, len(image.getbands())))
        icc = image.info.get("icc_profile")
        try:
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGBA"))
        except (OSError, SyntaxError, ValueError, IndexError) as error:
            raise SlideError(slide_id, "the picture does not decode to its end; copy the file again") from error
    if pixels.shape[2] == 4:
        pixels = on_white(pixels)
    return ArraySlide(
        pixels, mpp=accepted, slide_id=slide_id, mpp_from=source, mpp_tolerance=mpp_tolerance, icc=icc or None
    )


def _too_large(mpx: str) -> str:
    limit = MAX_PICTURE_PX // 1_000_000
    return f"a picture of {mpx} Mpx without levels, at most {limit} are decoded whole; save it as a tiled TIFF pyramid"
