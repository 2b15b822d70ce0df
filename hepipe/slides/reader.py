"""The reader contract: what every slide file offers, whatever opens it.

Implementations live beside this file (`direct.py`, `openslide.py`, `tiff.py`, `picture.py`); `open_slide` in `open.py`
picks one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from hepipe.geometry import Box, MppFrom


@runtime_checkable
class Slide(Protocol):
    """An open slide: RGB pixels by physical resolution. Transparency is composed on white.

    Attributes:
        slide_id: `<case>-he` or `<case>-ihc`; the only name that errors and artefacts may carry.
        mpp: µm per px at level 0; 1 where it is unknown.
        size_px0: Width and height at level 0, px, of the area that holds pixels (MRXS bounds applied).
        origin_px0: Where that area starts on the scanner's canvas, px at level 0; (0, 0) for most formats. Boxes count
            from there.
        reader: `direct`, `openslide`, `tiffslide` or `picture`.
        not_direct: Why the tiles are not decoded directly; empty where they are.
        from_level0: Reads average px of level 0 in place of those of the nearest finer level, whose making only the
            scanner's maker knows. May be set; costs up to 16 times as much for a tile at 1 µm.
        color: `as_scanned`, with the reason where `srgb` was asked for and cannot be had, or `srgb`.
        mpp_from: Whether the file or the slide sheet says so, or `unknown`.
        format: Family of the file's format, from a closed list.
        downsamples: Px of level 0 per px of each level.
    """

    slide_id: str
    mpp: float
    size_px0: tuple[int, int]
    origin_px0: tuple[int, int]
    reader: str
    not_direct: str
    from_level0: bool
    color: str
    mpp_from: MppFrom
    format: str
    downsamples: tuple[float, ...]

    def read(
        self,
        box_px0: Box,
        *,
        mpp: float,
        size: tuple[int, int],
        out: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a box (px0 of this slide, may reach over the edge) as `size` (width, height) px at `mpp`.

        Reads the nearest finer level and averages areas down. What lies outside the slide is white. With `out` they
        are written there, and that array comes back: a new one for every tile costs as much as a fifth of the reading.

        Raises:
            SlideError: `mpp` finer than level 0 by more than `SlidesSpec.mpp_tolerance`, or undecodable pixels.
            ValueError: `size` and `mpp` contradict the box by more than 1 px and 1 %.
        """

    def overview(self, *, max_px: int) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
        """The whole slide with its longer side at most `max_px`, and its exact mpp.

        Never decodes a level of more than 64 Mpx: a file that offers none smaller is read block by block.
        """

    def icc_profile(self) -> bytes | None:
        """The colour profile that the file carries; recorded, not applied."""

    def properties(self) -> Mapping[str, str | int | float]:
        """Format, vendor family, levels, size, mpp: what may leave; no name, label, macro, free text or date."""

    def close(self) -> None:
        """Give the file back."""
