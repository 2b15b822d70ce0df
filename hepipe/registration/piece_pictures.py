"""Pieces of tissue drawn on a slide's picture: outlined in the colour of their role, with their number."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.registration.pieces import Piece
from hepipe.sheet import PieceRole

COLORS: dict[PieceRole, tuple[int, int, int]] = {
    "matched": (30, 160, 60),
    "missing": (210, 40, 40),
    "control": (200, 110, 0),
    "extra": (140, 60, 180),
}
CROWDED = 10
"""With more pieces than this those that are matched show their name alone."""
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_pieces(
    rgb: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "lh lw"], table: Sequence[Piece]
) -> UInt8[np.ndarray, "h w 3"]:
    """A slide's picture with its pieces outlined and named: `ihc3 control`, with a star when a person said so.

    Args:
        rgb: The slide at any resolution.
        labels: Its label map; both corners coincide.
        table: The pieces of this slide.
    """
    drawn = rgb.copy()
    grow = np.array([rgb.shape[1] / labels.shape[1], rgb.shape[0] / labels.shape[0]])
    size = max(rgb.shape[:2]) / 1400 + 0.15
    line = max(1, round(max(rgb.shape[:2]) / 500))
    for piece in table:
        here = (labels == piece.number).astype(np.uint8)
        rims, _ = cv2.findContours(here, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outlines = [np.rint((rim + 0.5) * grow).astype(np.int32) for rim in rims]
        cv2.polylines(drawn, outlines, isClosed=True, color=COLORS[piece.role], thickness=line, lineType=cv2.LINE_AA)
    # Names last: no outline runs over them.
    for piece in table:
        rows, columns = np.nonzero(labels == piece.number)
        if len(rows):
            middle = (np.array([columns.mean(), rows.mean()]) + 0.5) * grow
            _write(drawn, _caption(piece, short=len(table) > CROWDED), middle, COLORS[piece.role], size=size, line=line)
    return drawn


def _caption(piece: Piece, *, short: bool) -> str:
    if short and piece.role == "matched" and piece.by == "found":
        return piece.name
    partner = f" = {'ihc' if piece.stain == 'he' else 'he'}{piece.partner}" if piece.partner is not None else ""
    return f"{piece.name} {piece.role}{'*' if piece.by == 'person' else ''}{partner}"


def _write(
    drawn: UInt8[np.ndarray, "h w 3"],
    text: str,
    middle: np.ndarray,
    color: tuple[int, int, int],
    *,
    size: float,
    line: int,
) -> None:
    """Text on a white plate about a place, moved inside the picture."""
    (width, height), below = cv2.getTextSize(text, FONT, size, line)
    x = int(np.clip(middle[0] - width / 2, 2, max(2, drawn.shape[1] - width - 2)))
    y = int(np.clip(middle[1] + height / 2, height + 2, max(height + 2, drawn.shape[0] - below - 2)))
    cv2.rectangle(drawn, (x - 2, y - height - 2), (x + width + 2, y + below + 1), (255, 255, 255), thickness=-1)
    cv2.putText(drawn, text, (x, y), FONT, size, color, line, cv2.LINE_AA)
