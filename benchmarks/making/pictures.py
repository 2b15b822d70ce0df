"""Pictures that drawn tissue is put together from: nuclei, and textures without an end."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import UInt8

from hepipe.synth.noise import Field, blobs

MPP = 0.25
KINDS = ("tumour", "spindle", "lymphocyte")
TONES, PICTURES = 4, 160


def draw_sprites(rng: np.random.Generator, kind: str) -> UInt8[np.ndarray, "t n s s"]:
    """Pictures of nuclei, 150 for an amount of 1: each at several darknesses."""
    mean, spread, aspect, tone, contrast = {
        "tumour": (8.4, 0.14, 1.22, 0.8, 0.24),
        "spindle": (5.4, 0.15, 3.2, 0.85, 0.15),
        "lymphocyte": (5.8, 0.09, 1.08, 1.1, 0.2),
    }[kind]
    reach = {"tumour": 30, "spindle": 32, "lymphocyte": 17}[kind]
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * MPP
    pictures = np.empty((PICTURES, 2 * reach + 1, 2 * reach + 1), np.float32)
    grain = blobs(rng, (1024, 1024), 1.6) + blobs(rng, (1024, 1024), 4.0)
    for picture in pictures:
        diameter = float(np.clip(mean * np.exp(spread * rng.normal()), 4, 11))
        ratio = float(np.clip(aspect * np.exp(0.18 * rng.normal()), 1, 4.2))
        long, short = diameter / 2 * np.sqrt(ratio), diameter / 2 / np.sqrt(ratio)
        turn = rng.uniform(0, np.pi)
        u, v = (x * np.cos(turn) + y * np.sin(turn)) / long, (y * np.cos(turn) - x * np.sin(turn)) / short
        outline = 1 + sum(
            0.04 * rng.normal() * np.cos(order * np.arctan2(v, u) + rng.uniform(0, 6.3)) for order in (2, 3, 4)
        )
        border = (1 - np.hypot(u, v) / outline) * np.sqrt(long * short)
        top, left = rng.integers(0, 1024 - 2 * reach - 1, 2)
        body = tone * (1 + contrast * grain[top : top + 2 * reach + 1, left : left + 2 * reach + 1])
        body += 0.14 * np.exp(-((border - 0.45) ** 2) / 0.32)
        if kind == "tumour" and rng.random() < 0.5:
            body += 0.5 * np.clip(1.4 - np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)), 0, 1)
        picture[:] = np.clip(border / 0.55 + 0.5, 0, 1) * np.clip(body, 0.12, 1.7)
    tones = np.exp(np.linspace(-0.22, 0.22, TONES)).astype(np.float32)[:, None, None, None]
    return np.asarray(np.clip(150 * tones * pictures, 0, 255), np.uint8)


class Textures:
    """Periodic noise pictures of sides that share no common period."""

    _KINDS: ClassVar = {
        "grain": (1000, 1.4, 1.4),
        "mid": (1296, 5.0, 5.0),
        "chromatin": (1350, 1.5, 1.5),
        "fine": (1500, 26.0, 1.3),
        "broad": (1440, 60.0, 4.0),
    }

    def __init__(self, rng: np.random.Generator) -> None:
        self._pictures = {name: _periodic(rng, *kind) for name, kind in self._KINDS.items()}

    def at(self, name: str, x: int, y: int, side: int) -> Field:
        picture = self._pictures[name]
        period = len(picture)
        return picture[np.ix_(np.arange(y, y + side) % period, np.arange(x, x + side) % period)]

    def bent(self, name: str, columns: Field, rows: Field) -> Field:
        """The picture read at places that a map gives."""
        picture = self._pictures[name]
        return np.asarray(
            cv2.remap(
                picture, columns % len(picture), rows % len(picture), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
            )
        )


def _periodic(rng: np.random.Generator, side: int, sigma_x: float, sigma_y: float) -> Field:
    """Gaussian noise of a correlation length along x and y that goes on beyond its edges."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), np.float32))
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    spectrum *= np.exp(-2 * np.pi**2 * ((fx * sigma_x) ** 2 + (fy * sigma_y) ** 2))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (side, side))
    return (field / field.std()).astype(np.float32)
