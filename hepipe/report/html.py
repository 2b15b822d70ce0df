"""Building HTML: every text is escaped where it enters, so what a file holds stays text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

JPEG_QUALITY = 82


@dataclass(frozen=True)
class Html:
    """Markup that is ready to stand in the page."""

    markup: str

    def __str__(self) -> str:
        return self.markup


Content = Html | str | int | float | None


def safe(content: Content) -> str:
    """Markup as it is; anything else escaped."""
    if content is None:
        return ""
    return content.markup if isinstance(content, Html) else html.escape(str(content), quote=True)


def tag(name: str, *content: Content, **attributes: str | int | bool) -> Html:
    """An element. `class_` is class, underscores become hyphens, a true attribute stands without value."""
    return Html(f"<{name}{_attributes(attributes)}>{''.join(safe(part) for part in content)}</{name}>")


def join(parts: Iterable[Content], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(html.escape(between).join(safe(part) for part in parts))


def image(pixels: UInt8[np.ndarray, "h w 3"], *, alt: str, longest_px: int, smooth: bool = True) -> Html:
    """A picture inside the page, JPEG without metadata, its longer side at most `longest_px`."""
    height, width = pixels.shape[:2]
    factor = min(1.0, longest_px / max(height, width))
    if factor < 1:
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smooth else cv2.INTER_NEAREST)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    attributes = {"src": source, "alt": alt, "width": pixels.shape[1], "height": pixels.shape[0]}
    return Html(f'<img{_attributes(attributes)} loading="lazy" decoding="async">')


def figure(picture: Content, caption: Content, **attributes: str | int | bool) -> Html:
    """A picture with its caption."""
    return tag("figure", picture, tag("figcaption", caption), **attributes)


def table(
    head: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    *,
    caption: Content = None,
    numeric_from: int = 1,
    sortable: bool = False,
) -> Html:
    """A table that scrolls sideways where the page is narrow; columns from `numeric_from` on are numbers.

    With `sortable` a click on the head of a column orders the rows by it.
    """

    def cells(name: str, row: Sequence[Content]) -> Html:
        return join(
            tag(name, cell, **({"class_": "n"} if place >= numeric_from else {})) for place, cell in enumerate(row)
        )

    body = join(tag("tr", cells("td", row)) for row in rows)
    titled = tag("caption", caption) if caption is not None else Html("")
    kind = {"class_": "sortable"} if sortable else {}
    whole = tag("table", titled, tag("thead", tag("tr", cells("th", head))), tag("tbody", body), **kind)
    return tag("div", whole, class_="scroll")


def facts(pairs: Mapping[str, Content]) -> Html:
    """A list of names and values; empty values are left out."""
    return tag(
        "dl",
        join(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs.items() if value not in (None, "")),
        class_="facts",
    )


def fold(summary: Content, *content: Content, is_open: bool = False) -> Html:
    """A part that opens on a click."""
    return tag("details", tag("summary", summary), *content, **({"open": True} if is_open else {}))


def missing(reason: str) -> Html:
    """A remark in place of what is not there."""
    return tag("p", reason, class_="missing")


def _attributes(attributes: Mapping[str, str | int | bool]) -> str:
    parts = []
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f" {name}")
        elif value is not False:
            parts.append(f' {name}="{html.escape(str(value), quote=True)}"')
    return "".join(parts)
