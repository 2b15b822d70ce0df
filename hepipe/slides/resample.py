"""Area-true resampling: an output pixel is the mean of what it covers."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy import sparse

from hepipe.geometry import Box


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
    rows = _shares(box.y, step_y, height, source.shape[0])
    columns = _shares(box.x, step_x, width, source.shape[1])
    tall = (rows @ source.reshape(len(source), -1).astype(np.float32)).reshape(height, -1, 3)
    turned = np.ascontiguousarray(tall.transpose(1, 0, 2)).reshape(source.shape[1], -1)
    mean = (columns @ turned).reshape(width, height, 3).transpose(1, 0, 2)
    out[:] = np.clip(np.rint(mean), 0, 255)


def _shares(start: float, step: float, n_out: int, n_in: int) -> sparse.csr_array:
    """Share of each input px in each output px of one axis; rows add up to 1."""
    edges = start + step * np.arange(n_out + 1)
    edges[np.abs(edges - np.rint(edges)) < 1e-9] = np.rint(edges[np.abs(edges - np.rint(edges)) < 1e-9])
    first = np.floor(edges[:-1]).astype(np.int64)
    span = int(np.max(np.ceil(edges[1:]).astype(np.int64) - first))
    index = first[:, None] + np.arange(span)
    covered: Float[np.ndarray, "n s"] = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
    used = covered > 0
    values = (covered[used] / np.repeat(np.diff(edges), used.sum(axis=1))).astype(np.float32)
    columns = np.clip(index[used], 0, n_in - 1)
    rows = np.repeat(np.arange(n_out), used.sum(axis=1))
    return sparse.csr_array((values, (rows, columns)), shape=(n_out, n_in))
