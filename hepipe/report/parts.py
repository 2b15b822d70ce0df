"""The files that pages are put together from; a page holds their text, so it stands alone."""

from __future__ import annotations

from importlib import resources


def part(name: str) -> str:
    """The text of a file of `pages`."""
    return resources.files("hepipe.report").joinpath("pages", name).read_text(encoding="utf-8")


def style(*names: str) -> str:
    """Style sheets of one page, after the palette that all pages share."""
    return "".join(part(name) for name in ("palette.css", *names))
