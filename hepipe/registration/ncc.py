"""Local normalised cross-correlation in Gaussian windows, with its gradient.

Written out by hand in OpenCV's blur, so that the built-in registration needs no torch.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from hepipe.registration.overview import lies_on, look

NOISE = 2e-4
"""Added to both variances (features span 0 to 1): a flat window correlates with nothing instead of with its noise."""


def blur(image: Float32[np.ndarray, "h w"], sigma: float) -> Float32[np.ndarray, "h w"]:
    """Gaussian mean; beyond the edge are zeros, so that the blur is its own adjoint."""
    side = 2 * int(2.5 * sigma + 0.5) + 1
    smooth: np.ndarray = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)
    return smooth


class FixedWindows:
    """One fixed picture, prepared for many comparisons."""

    def __init__(self, fixed: Float32[np.ndarray, "h w"], *, sigma: float) -> None:
        self.fixed = fixed
        self.sigma = sigma
        self.mean = blur(fixed, sigma)
        self.variance = np.maximum(blur(fixed * fixed, sigma) - self.mean**2, 0) + NOISE

    def correlation(self, moving: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Local correlation at each px, -1 to 1."""
        mean = blur(moving, self.sigma)
        variance = np.maximum(blur(moving * moving, self.sigma) - mean**2, 0) + NOISE
        shared: np.ndarray = blur(self.fixed * moving, self.sigma) - self.mean * mean
        correlation: np.ndarray = shared / np.sqrt(self.variance * variance)
        return correlation

    def with_gradient(
        self, moving: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"]
    ) -> tuple[float, Float32[np.ndarray, "h w"]]:
        """The weighted sum of the local correlation, and its gradient by each px of `moving`."""
        mean = blur(moving, self.sigma)
        variance = np.maximum(blur(moving * moving, self.sigma) - mean**2, 0) + NOISE
        shared = blur(self.fixed * moving, self.sigma) - self.mean * mean
        by_shared = weight / np.sqrt(self.variance * variance)
        correlation = shared * by_shared
        by_variance = -0.5 * correlation / variance
        gradient = (
            self.fixed * blur(by_shared, self.sigma)
            - blur(by_shared * self.mean, self.sigma)
            + 2 * moving * blur(by_variance, self.sigma)
            - 2 * blur(by_variance * mean, self.sigma)
        )
        return float(correlation.sum(dtype=np.float64)), gradient


def slopes(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "2 h w"]:
    """Central differences in x and y, for a gradient by place."""
    return np.stack(
        [
            cv2.filter2D(image, cv2.CV_32F, kernel)
            for kernel in (np.array([[-0.5, 0, 0.5]]), np.array([[-0.5], [0], [0.5]]))
        ]
    )


class Comparison:
    """Features of a pair at one scale: how well they agree when the moving ones are looked at from given places.

    Attributes:
        fixed: Feature channels of the H&E picture; the last is its soft tissue mask.
        moving: The same of the IHC picture.
        everywhere: Whether glass counts as much as tissue: holes and vessels have their inner rim there.
    """

    def __init__(
        self,
        fixed: Float32[np.ndarray, "c h w"],
        moving: Float32[np.ndarray, "c mh mw"],
        *,
        sigma: float,
        everywhere: bool = False,
    ) -> None:
        self.fixed = fixed
        self.moving = moving
        self.everywhere = everywhere
        self.windows = [FixedWindows(channel, sigma=sigma) for channel in fixed]
        self.slopes = [slopes(channel) for channel in moving]

    def score(self, at: Float32[np.ndarray, "2 h w"]) -> float:
        """Mean local correlation over the tissue of either slide; what the other slide does not show counts 0."""
        seen, weight, total_weight = self._seen(at)
        total = sum(
            float((window.correlation(view) * weight).sum(dtype=np.float64))
            for window, view in zip(self.windows, seen, strict=True)
        )
        return total / max(total_weight * len(self.windows), 1.0)

    def ascend(self, at: Float32[np.ndarray, "2 h w"]) -> tuple[float, Float32[np.ndarray, "2 h w"]]:
        """The score and its gradient by the place of each px; the weight's own change is left out."""
        seen, weight, total_weight = self._seen(at)
        weight = (weight / max(total_weight * len(seen), 1.0)).astype(np.float32)
        gradient = np.zeros_like(at)
        total = 0.0
        for window, view, slope in zip(self.windows, seen, self.slopes, strict=True):
            value, by_view = window.with_gradient(view, weight)
            total += value
            gradient += by_view * np.stack([look(plane, at) for plane in slope])
        return total, gradient

    def _seen(self, at: Float32[np.ndarray, "2 h w"]) -> tuple[list[np.ndarray], Float32[np.ndarray, "h w"], float]:
        """The moving channels from there, the weight of each px, and the sum of weights if the picture had no edge."""
        seen = [look(channel, at) for channel in self.moving]
        valid = lies_on(at, (self.moving.shape[1], self.moving.shape[2]))
        weight = np.ones_like(seen[-1]) if self.everywhere else np.maximum(self.fixed[-1], seen[-1])
        return seen, (weight * valid).astype(np.float32), float(weight.sum(dtype=np.float64))


class Adam:
    """Adam with bias correction (Kingma and Ba 2015), upwards."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.first = np.zeros(shape)
        self.second = np.zeros(shape)
        self.steps = 0

    def step(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        """What to add to the parameters."""
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.99 * self.second + 0.01 * gradient**2
        first = self.first / (1 - 0.9**self.steps)
        second = self.second / (1 - 0.99**self.steps)
        move: np.ndarray = rate * first / (np.sqrt(second) + 1e-12)
        return move
