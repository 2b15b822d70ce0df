"""The DAB mask of ATST-Net (Zhang et al., IJCAI 2025, section 3.2), step by step as its released script makes it.

    mask = Closing(Dilation²(Erosion²(Otsu(G_σ(grey(DAB picture))))))

The stains are Ruifrok and Johnston's haematoxylin, eosin and DAB by the ratio of natural logarithms that scikit-image
uses: vectors that are not of unit length, and eosin that takes a part of DAB. `hepipe.stains.dab` has our own chain.

Otsu finds two classes in every tile, so one without DAB gets a mask of its darker half too. That is the recipe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from hepipe.stains.morphology import close

RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Rows: haematoxylin, eosin, DAB."""
GREY = np.array([0.2125, 0.7154, 0.0721])
"""Of red, green and blue, as scikit-image weighs them."""
DARKEST = 1e-6
BINS = 256

RECIPE_UM = 0.4661
"""What a px of MIST measures, on which the recipe's px were chosen."""
SIGMA_PX = 1
STEPS = 2
"""Erosions, and as many dilations, by 3x3 px."""


@dataclass(frozen=True)
class AtstMask:
    """A mask and what it came from.

    Attributes:
        mask: The result, True where positive.
        grey: Of the picture with nothing but DAB, 0 (much) to 1 (none).
        smooth: The same after the Gaussian.
        threshold: Otsu's, of `smooth`.
        dark: Not above the threshold.
        opened: After erosions and dilations.
    """

    mask: Bool[np.ndarray, "h w"]
    grey: Float[np.ndarray, "h w"]
    smooth: Float[np.ndarray, "h w"]
    threshold: float
    dark: Bool[np.ndarray, "h w"]
    opened: Bool[np.ndarray, "h w"]


def dab_grey(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """The picture with DAB alone as a grey picture, 0 to 1.

    Amounts are log(rgb) / log(1e-6) by the inverse of the vectors, at least 0; a picture is exp of minus as much.
    """
    share = np.log(np.maximum(np.arange(256) / 255, DARKEST)) / math.log(DARKEST)
    weights = np.linalg.inv(RUIFROK)[:, 2]
    amount = np.zeros(rgb.shape[:2])
    for channel in range(3):
        amount += (share * weights[channel])[rgb[..., channel]]
    np.maximum(amount, 0, out=amount)
    grey = np.zeros_like(amount)
    for weight, absorbed in zip(GREY, RUIFROK[2], strict=True):
        grey += weight * np.minimum(np.exp(amount * (math.log(DARKEST) * absorbed)), 1.0)
    return grey


def otsu(grey: Float[np.ndarray, "h w"]) -> float:
    """Otsu's threshold as scikit-image finds it: the centre of one of 256 bins between the least and the largest value.

    A picture of one value has that value.
    """
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        return low
    counts, edges = np.histogram(grey, bins=BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    moments = counts * centres
    # The first and last bin hold a px each at least: no sum below the line is 0.
    mean_below = np.cumsum(moments) / below
    mean_above = (np.cumsum(moments[::-1]) / above[::-1])[::-1]
    between = below[:-1].astype(np.float64) * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[int(np.argmax(between))])


def atst_mask(
    rgb: UInt8[np.ndarray, "h w 3"], *, close_px: int, sigma_px: int = SIGMA_PX, steps: int = STEPS
) -> AtstMask:
    """The mask of one IHC tile.

    Args:
        rgb: The tile.
        close_px: Radius of the disk that closes it: the recipe's knob for misalignment, 30 on MIST.
        sigma_px: Of the Gaussian.
        steps: Erosions by 3x3 px, and dilations after them. Beyond the border is neither foreground nor background.
    """
    grey = dab_grey(rgb)
    smooth = ndimage.gaussian_filter(grey, sigma_px, mode="nearest", truncate=4.0)
    threshold = otsu(smooth)
    dark = ~(smooth > threshold)
    square = np.ones((3, 3), np.uint8)
    eroded = cv2.erode(dark.astype(np.uint8), square, iterations=steps)
    opened = cv2.dilate(eroded, square, iterations=steps).astype(bool)
    return AtstMask(close(opened, close_px), grey, smooth, threshold, dark, opened)


def atst_px(mpp: float) -> tuple[int, int]:
    """Sigma and steps of the recipe at another resolution, in whole px: 1 and 2 at 0.46, 0.4661 and 0.5 µm/px."""
    return max(1, round(SIGMA_PX * RECIPE_UM / mpp)), max(1, round(STEPS * RECIPE_UM / mpp))
