"""What a file says of itself, and what of that is believed: pixel size, format family, kind of samples."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from hepipe.errors import SlideError
from hepipe.geometry import MPP_RANGE, NOMINAL_MPP, GivenMpp, MppFrom

MAX_ANISOTROPY = 0.03
"""Largest relative difference of pixel width and height; beyond it a slide has no one mpp."""

FORMATS = frozenset(
    {
        "aperio",
        "dicom",
        "generic-tiff",
        "hamamatsu",
        "leica",
        "mirax",
        "ome",
        "philips",
        "philips_tiff",
        "sakura",
        "synthetic",
        "trestle",
        "ventana",
        "zeiss",
    }
)
"""Format families that may be named; whatever else a file calls itself is `other`."""


UM_PER = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "inch": 25400.0}
"""Units of length as OME-XML writes them; the two signs for micro are different characters."""


def mpp_column(slide_id: str) -> str:
    """The column of the slide sheet that overrides a slide's pixel size."""
    return "mpp_he" if slide_id.endswith("-he") else "mpp_ihc"


def accept_mpp(slide_id: str, *, stated: tuple[float | None, float | None], given: GivenMpp) -> tuple[float, MppFrom]:
    """µm per px at level 0 and who says so; what is given wins over what the file states.

    Args:
        slide_id: Named in the error.
        stated: Along x and y, as the file says; None or nan where it says nothing.
        given: From the slide sheet; `unknown` stands for `NOMINAL_MPP`, whatever the file states.

    Raises:
        SlideError: Neither is there, or it is implausible; the reason names the column to fill.
    """
    low, high = MPP_RANGE
    column = mpp_column(slide_id)
    remedy = f"fill {column} in its row of the slide sheet, with the word unknown if nobody can tell"
    if given == "unknown":
        return NOMINAL_MPP, "unknown"
    if given is not None:
        if not low <= given <= high:
            raise SlideError(slide_id, f"{column} is {given:g} µm per px, {low:g} to {high:g} expected")
        return float(given), "sheet"
    x, y = stated
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        raise SlideError(slide_id, f"no pixel size in the file; {remedy}")
    if not (low <= x <= high and low <= y <= high):
        raise SlideError(
            slide_id, f"the file states {max(x, y):g} µm per px, {low:g} to {high:g} is plausible; {remedy}"
        )
    if abs(x - y) > MAX_ANISOTROPY * (x + y) / 2:
        raise SlideError(slide_id, f"the file states pixels of {x:.4g} x {y:.4g} µm, square ones expected; {remedy}")
    return (x + y) / 2, "file"


def ome_mpp(path: Path) -> tuple[float | None, float | None]:
    """µm per px along x and y as OME-XML states it, which neither openslide nor tiffslide reads; None for nothing."""
    try:
        with tifffile.TiffFile(path) as file:
            text = file.ome_metadata
        pixels = None if text is None else ElementTree.fromstring(text).find(".//{*}Pixels")
        if pixels is None:
            return None, None
        x, y = (
            float(pixels.attrib[f"PhysicalSize{axis}"]) * UM_PER[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "XY"
        )
    except (tifffile.TiffFileError, ElementTree.ParseError, OSError, ValueError, LookupError, TypeError):
        return None, None
    return x, y


def family(name: object) -> str:
    """The format family if it is one we know: free text of a file never gets further."""
    return name if isinstance(name, str) and name in FORMATS else "other"


def nominal_downsample(size0: tuple[int, int], size: tuple[int, int]) -> float:
    """How many px of level 0 one px of a level covers along an axis.

    Writers halve and cut off the odd row, so that a level of 146 of 4691 rows is 32 times smaller, not 32.13: the
    ratio of the sizes, which openslide reports, would shift its far end by half a px of that level.
    """
    ratio = (size0[0] / size[0] + size0[1] / size[1]) / 2
    whole = float(max(round(ratio), 1))
    return whole if all(abs(a / whole - b) <= 1 for a, b in zip(size0, size, strict=True)) else ratio


def refuse_other_samples(slide_id: str, path: Path) -> None:
    """Stop at a TIFF whose first page is not 8-bit RGB or RGBA: openslide would convert it without a word.

    Raises:
        SlideError: 16-bit, gray or many-channel samples.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            bits, samples = page.bitspersample, page.samplesperpixel
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, TypeError, AttributeError):
        return  # no TIFF: the other formats that openslide reads are 8-bit RGB
    if bits != 8 or samples not in (3, 4):
        raise SlideError(slide_id, samples_reason(int(bits), int(samples)))


def samples_reason(bits: int, samples: int) -> str:
    """Why pixels of another kind are refused."""
    kind = "grayscale" if samples == 1 else f"{samples} channels"
    return f"{bits}-bit {kind} found, 8-bit RGB expected: not a brightfield scan; export it as 8-bit RGB"
