"""Area-true resampling: an output pixel is the mean of what it covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hepipe.geometry import Box

if TYPE_CHECKING:
    from scipy import sparse

STRIP_ROWS = 32
"""Rows made at a time: what they need stays in the processor's cache, four times faster than all at once."""
NEAR_PX = 1e-9
"""What sums of floats may lie beside an edge of a px."""


def average_areas(source: UInt8[np.ndarray, "h w 3"], box: Box, out: UInt8[np.ndarray, "oh ow 3"]) -> None:
    """A rectangle of an array into another, each px the exact mean over the area that it covers.

    At a scale of 1 with a fractional corner this is linear interpolation.

    Args:
        source: Pixels that contain the whole box.
        box: In px of `source`.
        out: Is filled.
    """
    height, width = out.shape[:2]
    step_x, step_y = box.width / width, box.height / height
    if min(step_x, step_y) >= 1 and all(float(v).is_integer() for v in (box.x, box.y, box.width, box.height)):
        part = source[round(box.y) : round(box.bottom), round(box.x) : round(box.right)]
        # The same means, several times faster; it has no other corners than whole px.
        out[:] = part if step_x == step_y == 1 else cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        return
    columns = _shares(box.x, step_x, width, source.shape[1])
    for start in range(0, height, STRIP_ROWS):
        strip = out[start : start + STRIP_ROWS]
        y = box.y + start * step_y
        first = max(0, int(np.floor(y + NEAR_PX)))
        part = source[first : int(np.ceil(y + len(strip) * step_y - NEAR_PX))]
        rows = _shares(y - first, step_y, len(strip), len(part))
        tall = rows @ part.reshape(len(part), -1).astype(np.float32)
        turned = cv2.transpose(tall.reshape(len(strip), -1, 3))
        mean = columns @ turned.reshape(len(turned), -1)
        strip[:] = cv2.transpose(cv2.convertScaleAbs(mean.reshape(width, -1, 3)))


def _shares(start: float, step: float, n_out: int, n_in: int) -> sparse.csr_array:
    """Share of each input px in each output px of one axis; rows add up to 1."""
    from scipy import sparse  # half as long to load as all else here, and most reads need none of it

    edges = start + step * np.arange(n_out + 1)
    edges[np.abs(edges - np.rint(edges)) < NEAR_PX] = np.rint(edges[np.abs(edges - np.rint(edges)) < NEAR_PX])
    first = np.floor(edges[:-1]).astype(np.int64)
    span = int(np.max(np.ceil(edges[1:]).astype(np.int64) - first))
    index = first[:, None] + np.arange(span)
    covered: Float[np.ndarray, "n s"] = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
    used = covered > 0
    values = (covered[used] / np.repeat(np.diff(edges), used.sum(axis=1))).astype(np.float32)
    columns = np.clip(index[used], 0, n_in - 1)
    rows = np.repeat(np.arange(n_out), used.sum(axis=1))
    return sparse.csr_array((values, (rows, columns)), shape=(n_out, n_in))
