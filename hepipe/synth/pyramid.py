"""Tiled JPEG pyramids with resolution tags, as openslide and tiffslide open them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tifffile
from jaxtyping import UInt8

TILE_PX = 256


def write_pyramid(path: Path, pixels: UInt8[np.ndarray, "h w 3"], *, mpp: float, quality: int) -> None:
    """Write a generic tiled TIFF: level 0 first, each further page half as large, until one tile holds it.

    Reduced pages are marked as such (NewSubfileType 1) and each page carries its own resolution: readers take the
    pixel size from the first. No date and no description, so that equal pixels give equal bytes.
    """
    with tifffile.TiffWriter(path) as tiff:
        level = 0
        while True:
            tiff.write(
                pixels,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression="jpeg",
                compressionargs={"level": quality},
                subfiletype=1 if level else 0,
                resolution=(1e4 / (mpp * 2**level), 1e4 / (mpp * 2**level)),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
                maxworkers=1,
            )
            if max(pixels.shape[:2]) <= TILE_PX:
                return
            height, width = (max(1, side // 2) for side in pixels.shape[:2])
            even = pixels[: 2 * height, : 2 * width]
            pixels = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
            level += 1
