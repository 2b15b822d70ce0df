"""Opening a slide file with the first reader that knows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from hepipe.errors import SlideError
from hepipe.geometry import GivenMpp
from hepipe.slides.picture import NotThisFormat
from hepipe.slides.pyramid import PyramidSlide
from hepipe.slides.reader import Slide
from hepipe.slides.source_tiles import NotDirect
from hepipe.specs.slides import SlidesSpec


def open_slide(
    path: Path,
    *,
    slide_id: str,
    mpp: GivenMpp = None,
    spec: SlidesSpec = SlidesSpec(),  # noqa: B008 (frozen)
    reader: str | None = None,
) -> PyramidSlide:
    """An open slide; `slide.reader` says which reader it is.

    Args:
        path: The file; appears in no error.
        slide_id: `<case>-he` or `<case>-ihc`.
        mpp: µm per px at level 0 from the slide sheet; overrides the file. `unknown`: reads as 1 µm per px.
        spec: Readers in the order they are tried, and the tolerance of reads.
        reader: The one reader to use, as recorded when the slide was checked: its pixels are not compared again.

    Raises:
        SlideError: Missing, of no known format, not 8-bit RGB, or without a believable pixel size.
    """
    if not path.exists():
        raise SlideError(slide_id, "there is no such file; correct its row of the slide sheet")
    if not path.is_file():
        raise SlideError(slide_id, "a folder, not a file; correct its row of the slide sheet")
    if path.stat().st_size == 0:
        raise SlideError(slide_id, "the file is empty; copy it again")
    names = spec.readers if reader is None else (reader,)
    not_direct = "" if "direct" in names else "not among the readers to try"
    for name in names:
        try:
            slide = _open_with(
                name, path, slide_id=slide_id, mpp=mpp, mpp_tolerance=spec.mpp_tolerance, compare=reader is None
            )
        except NotDirect as error:
            not_direct = str(error)
            continue
        except NotThisFormat:
            continue
        slide.not_direct = not_direct
        if spec.icc == "srgb":
            slide.convert_to_srgb()
        return slide
    raise SlideError(slide_id, f"no slide or picture that can be opened (tried {', '.join(names)}); is it damaged?")


def decoder_of(slide: Slide) -> str:
    """Name and version of the library that decodes a slide, which may explain other pixels of the same slide."""
    if slide.reader == "openslide":
        import openslide

        return f"openslide {openslide.__library_version__}"
    package = {"direct": "imagecodecs", "tiffslide": "tifffile", "picture": "pillow"}[slide.reader]
    return f"{package} {version(package)}"


@contextlib.contextmanager
def closing(*slides: Slide) -> Iterator[None]:
    """Close the slides when the block ends."""
    try:
        yield
    finally:
        for slide in slides:
            slide.close()


def _open_with(
    name: str, path: Path, *, slide_id: str, mpp: GivenMpp, mpp_tolerance: float, compare: bool
) -> PyramidSlide:
    # A reader's libraries are only loaded when its turn comes.
    if name == "direct":
        from hepipe.slides.parity import open_direct

        return open_direct(path, slide_id=slide_id, mpp=mpp, mpp_tolerance=mpp_tolerance, compare=compare)
    if name == "openslide":
        from hepipe.slides.openslide import OpenSlideSlide

        return OpenSlideSlide(path, slide_id=slide_id, mpp=mpp, mpp_tolerance=mpp_tolerance)
    if name == "tiffslide":
        from hepipe.slides.tiff import open_tiff

        return open_tiff(path, slide_id=slide_id, mpp=mpp, mpp_tolerance=mpp_tolerance)
    if name == "picture":
        from hepipe.slides.picture import open_picture

        return open_picture(path, slide_id=slide_id, mpp=mpp, mpp_tolerance=mpp_tolerance)
    raise ValueError(f"no reader {name!r}")
