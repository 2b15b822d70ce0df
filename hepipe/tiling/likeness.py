"""A hash that stays nearly the same when a picture is encoded again, sharpened or shaded, and can be turned unseen."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

_SIDE, _KEPT = 32, 8
STRUCTURE = 0.25
"""Least standard deviation of the 63 coefficients that a hash is made of, grey levels at 32 x 32 px (`docs/splits.md`).

An empty tile has less; its signs would be those of noise, and any two would be as alike as chance has it.
"""
EMPTY = "0" * 16
"""Hash of a picture without structure; all others begin with a set bit."""


def perceptual_hash(rgb: UInt8[np.ndarray, "h w 3"]) -> str:
    """64 bits as 16 hex digits: signs of the 8 x 8 lowest cosine coefficients of the grey picture, row by row.

    Two pictures are the more alike the fewer bits differ; unrelated ones differ in about 31. The first bit, of the
    mean grey, is always set; a picture without structure has `EMPTY`. Signs in place of the usual comparison with the
    median let `hepipe.dataset.near` find the hash of a turned or mirrored copy from the bits: a mirror changes the
    sign of every odd coefficient of its axis, a transposition exchanges the axes.
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey.astype(np.float32))[:_KEPT, :_KEPT].ravel() / (_SIDE / 2)
    if float(low[1:].std()) < STRUCTURE:
        return EMPTY
    bits = low > 0
    bits[0] = True
    return np.packbits(bits).tobytes().hex()
