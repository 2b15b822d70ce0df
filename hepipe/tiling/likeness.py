"""A hash that stays nearly the same when a picture is encoded again, sharpened or shaded."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

_SIDE, _KEPT = 32, 8


def perceptual_hash(rgb: UInt8[np.ndarray, "h w 3"]) -> str:
    """64 bits as 16 hex digits: which of the 8 x 8 lowest cosine coefficients of the grey picture exceed their median.

    Two pictures are the more alike the fewer bits differ; unrelated ones differ in about 32.
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey.astype(np.float32))[:_KEPT, :_KEPT].ravel()
    # The mean grey says nothing of structure.
    low[0] = 0
    return np.packbits(low > np.median(low)).tobytes().hex()
