"""The two slides of a checked case, opened as they were when it was checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hepipe.errors import ConfigError, SlideError
from hepipe.stores.cases import CheckedCase

if TYPE_CHECKING:
    from hepipe.slides.reader import Slide


@contextlib.contextmanager
def open_pair(he: Path, ihc: Path, checked: CheckedCase, *, from_level0: bool = False) -> Iterator[tuple[Slide, Slide]]:
    """The H&E and the IHC slide, with the recorded readers and pixel sizes.

    Args:
        he: The H&E slide's file.
        ihc: The IHC slide's.
        checked: What is known of them.
        from_level0: Coarser pixels are made of level 0 and of no other.

    Raises:
        SlideError: The case has failed its check, or a file is no longer what it was then.
    """
    from hepipe.slides.open import open_slide
    from hepipe.specs.slides import SlidesSpec

    spec = SlidesSpec.model_validate(checked.provenance.spec)
    with contextlib.ExitStack() as opened:
        slides = []
        for path, facts, stain in ((he, checked.he, "he"), (ihc, checked.ihc, "ihc")):
            if facts is None:
                raise SlideError(f"{checked.case_id}-{stain}", "failed its check; there is nothing to open")
            slide = open_slide(
                path, slide_id=facts.slide_id, mpp=checked.mpp_to_open(facts), spec=spec, reader=facts.reader
            )
            opened.callback(slide.close)
            slide.from_level0 = from_level0
            if slide.size_px0 != facts.size_px0:
                raise SlideError(
                    facts.slide_id, f"{slide.size_px0} px now, {facts.size_px0} when it was checked; run check again"
                )
            slides.append(slide)
        yield slides[0], slides[1]


@contextlib.contextmanager
def open_given(he: Path, ihc: Path, mpp_he: str, mpp_ihc: str) -> Iterator[tuple[Slide, Slide]]:
    """Two slides without a record, with the pixel sizes given or the files' own; one unknown leaves none to go by.

    Raises:
        ConfigError: A pixel size that is none.
        SlideError: A slide that does not open.
    """
    from hepipe.sheet import parse_mpp
    from hepipe.slides.open import closing, open_slide

    given = []
    for option, value in (("--mpp-he", mpp_he), ("--mpp-ihc", mpp_ihc)):
        try:
            given.append(parse_mpp(value))
        except ValueError as error:
            raise ConfigError(f"{option} is {value!r}; {error}") from None
    if "unknown" in given:
        given = ["unknown", "unknown"]
    fixed = open_slide(he, slide_id="case-he", mpp=given[0])
    moving = open_slide(ihc, slide_id="case-ihc", mpp=given[1])
    with closing(fixed, moving):
        yield fixed, moving
