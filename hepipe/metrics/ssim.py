"""Structural similarity of 8-bit tiles, one flavour per function; float64 throughout.

Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP 2004; the multi-scale
form: Wang et al., Asilomar 2003. The flavours differ in window, sampling of the moments and cropping; two flavours
never share a name, since their values differ in the second decimal.

In all of them L is the data range, C1 = (0.01 L)², C2 = (0.03 L)². Higher is better; at most 1, and 1 for identical
tiles. None of them sees whether the right cells are stained: a blurred picture of the right mean scores well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

K1, K2 = 0.01, 0.03
WINDOW, SIGMA = 11, 1.5
MARGIN = WINDOW // 2
MSSSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of five scales, finest first: Wang et al. 2003, section 3.2."""
MSSSIM_MIN_SIDE = (WINDOW) * 2 ** (len(MSSSIM_WEIGHTS) - 1)
"""176 px: the window still fits on the coarsest scale."""

Tile = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Moments:
    """Local weighted moments of two images around every pixel; variances are never negative."""

    mean_x: Float[np.ndarray, "..."]
    mean_y: Float[np.ndarray, "..."]
    var_x: Float[np.ndarray, "..."]
    var_y: Float[np.ndarray, "..."]
    cov: Float[np.ndarray, "..."]

    def contrast(self, data_range: float) -> Float[np.ndarray, "..."]:
        """Map of contrast and structure, (2 c + C2) / (v_x + v_y + C2)."""
        c2 = (K2 * data_range) ** 2
        contrast: np.ndarray = (2 * self.cov + c2) / (self.var_x + self.var_y + c2)
        return contrast

    def similarity(self, data_range: float) -> Float[np.ndarray, "..."]:
        """Map of SSIM: luminance times contrast and structure."""
        c1 = (K1 * data_range) ** 2
        luminance = (2 * self.mean_x * self.mean_y + c1) / (self.mean_x**2 + self.mean_y**2 + c1)
        similarity: np.ndarray = luminance * self.contrast(data_range)
        return similarity


def gaussian_moments(x: Float[np.ndarray, "h w c"], y: Float[np.ndarray, "h w c"]) -> Moments:
    """Population moments under an 11 x 11 Gaussian of sigma 1.5; borders reflected, so maps have the images' size.

    Raises:
        ValueError: A side shorter than 6 px cannot be reflected by 5.
    """
    assert x.shape == y.shape, (x.shape, y.shape)
    if min(x.shape[:2]) <= MARGIN:
        raise ValueError(f"sides of at least {MARGIN + 1} px expected, found {x.shape[1]} x {x.shape[0]}")
    kernel = _gaussian_kernel()

    def smooth(image: np.ndarray) -> np.ndarray:
        return _three_axes(cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101))

    mean_x, mean_y = smooth(x), smooth(y)
    return Moments(
        mean_x,
        mean_y,
        np.maximum(smooth(x * x) - mean_x**2, 0),
        np.maximum(smooth(y * y) - mean_y**2, 0),
        smooth(x * y) - mean_x * mean_y,
    )


def uniform_moments(x: Float[np.ndarray, "h w c"], y: Float[np.ndarray, "h w c"], *, side: int) -> Moments:
    """Population moments under a flat window, of the places where it fits whole."""
    assert x.shape == y.shape, (x.shape, y.shape)
    if min(x.shape[:2]) < side:
        raise ValueError(f"sides of at least {side} px expected, found {x.shape[1]} x {x.shape[0]}")
    height, width = x.shape[:2]
    left = side // 2

    def smooth(image: np.ndarray) -> np.ndarray:
        flat = _three_axes(cv2.blur(image, (side, side), borderType=cv2.BORDER_REFLECT_101))
        return flat[left : height - side + 1 + left, left : width - side + 1 + left]

    mean_x, mean_y = smooth(x), smooth(y)
    return Moments(
        mean_x,
        mean_y,
        np.maximum(smooth(x * x) - mean_x**2, 0),
        np.maximum(smooth(y * y) - mean_y**2, 0),
        smooth(x * y) - mean_x * mean_y,
    )


@dataclass(frozen=True)
class Similarities:
    """What one set of Gaussian moments yields."""

    ssim: float
    css: float
    msssim: float


def similarities(x: Tile, y: Tile) -> Similarities:
    """SSIM, CSS and MS-SSIM of a pair with the finest moments computed once; MS-SSIM is nan below 176 px."""
    scaled_x, scaled_y = _unit(x), _unit(y)
    moments = gaussian_moments(scaled_x, scaled_y)
    contrast = moments.contrast(1.0)
    return Similarities(
        ssim=float(moments.similarity(1.0).mean()),
        css=float(contrast.mean()),
        msssim=_multi_scale(scaled_x, scaled_y, finest=contrast),
    )


def ssim(fake: Tile, real: Tile) -> float:
    """SSIM, the default flavour: RGB in [0, 1], Gaussian window, the whole map, mean over channels; -1 to 1."""
    return float(gaussian_moments(_unit(fake), _unit(real)).similarity(1.0).mean())


def css(x: Tile, y: Tile) -> float:
    """Contrast-structure similarity: SSIM without its luminance term; -1 to 1.

    `css_he` takes the virtual and the H&E tile (structure kept), `css_ihc` the virtual and the real one. The two are
    not comparable. As CSSP2P defines it: Gaussian window, whole map.
    """
    return float(gaussian_moments(_unit(x), _unit(y)).contrast(1.0).mean())


def css_u5(x: Tile, y: Tile) -> float:
    """Contrast-structure similarity under a flat 5 x 5 window, valid places only, range 255: PC-StainGAN 2021."""
    return float(uniform_moments(x.astype(np.float64), y.astype(np.float64), side=5).contrast(255.0).mean())


def ssim_sk7(fake: Tile, real: Tile) -> float:
    """SSIM as scikit-image computes it by default: flat 7 x 7 window, sample moments, border cropped; -1 to 1.

    Tables of the BCI challenge, ASP and PSPStain hold this flavour.
    """
    moments = uniform_moments(fake.astype(np.float64), real.astype(np.float64), side=7)
    sample = 49 / 48
    unbiased = Moments(
        moments.mean_x, moments.mean_y, sample * moments.var_x, sample * moments.var_y, sample * moments.cov
    )
    return float(unbiased.similarity(255.0).mean())


def msssim(fake: Tile, real: Tile) -> float:
    """Multi-scale SSIM over five scales, 0 to 1; nan for tiles with a side below 176 px.

    Contrast terms of scales 1 to 4 are cropped by 5 px, SSIM of the coarsest is not, and negative terms count as 0:
    the flavour of torchmetrics.
    """
    return _multi_scale(_unit(fake), _unit(real), finest=None)


def _multi_scale(x: np.ndarray, y: np.ndarray, *, finest: np.ndarray | None) -> float:
    if min(x.shape[:2]) < MSSSIM_MIN_SIDE:
        return math.nan
    product, contrast = 1.0, finest
    for weight in MSSSIM_WEIGHTS[:-1]:
        if contrast is None:
            contrast = gaussian_moments(x, y).contrast(1.0)
        inner = contrast[MARGIN:-MARGIN, MARGIN:-MARGIN]
        product *= max(float(inner.mean()), 0.0) ** weight
        x, y, contrast = _halved(x), _halved(y), None
    coarsest = float(gaussian_moments(x, y).similarity(1.0).mean())
    return float(product * max(coarsest, 0.0) ** MSSSIM_WEIGHTS[-1])


def _halved(image: np.ndarray) -> np.ndarray:
    """Mean over 2 x 2 px; an odd last row or column is dropped."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    even = image[:height, :width]
    mean: np.ndarray = (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]) / 4
    return mean


def _gaussian_kernel() -> Float[np.ndarray, " n"]:
    offsets = np.arange(WINDOW) - MARGIN
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel: np.ndarray = weights / weights.sum()
    return kernel


def _unit(tile: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = tile.astype(np.float64) / 255
    return scaled


def _three_axes(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]
