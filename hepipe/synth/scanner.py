"""From amounts of substance to what a scanner writes: stains, light, optics, sensor."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hepipe.synth.noise import Field, blobs
from hepipe.synth.plan import Look


def stain_he(layers: Mapping[str, Field], look: Look, rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Optical density of red, green and blue of an H&E section."""
    nuclei, cytoplasm = layers["nuclei"], layers["cytoplasm"]
    covered = np.clip(nuclei, 0, 1)
    hematoxylin = 0.95 * nuclei + (0.125 * cytoplasm + 0.035 * layers["ground"]) * (1 - covered)
    eosin = (
        0.2 * cytoplasm * (1 - 0.35 * covered)
        + 0.31 * layers["fibre"] * (1 - 0.6 * covered)
        + 0.035 * layers["ground"]
        + 0.12 * covered
    )
    thick = _thickness(nuclei.shape, look, rng)
    od = _mix(hematoxylin * thick * look.strengths[0], eosin * thick * look.strengths[1], look)
    # Red cells take eosin and keep haemoglobin's orange: less red, more blue absorbed.
    return _add(od, layers["blood"] * thick, (0.1, 0.5, 0.42))


def stain_ihc(layers: Mapping[str, Field], look: Look, rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Optical density of red, green and blue of a section with haematoxylin and DAB.

    DAB precipitate scatters: dense deposits darken every channel alike, so their colour turns from yellow brown to
    nearly black and the sum is no mixture of two vectors that an unmixing could invert.
    """
    thick = _thickness(layers["dab"].shape, look, rng)
    tissue = layers["cytoplasm"] + layers["fibre"]
    hematoxylin = 0.4 * layers["nuclei_ihc"] + 0.045 * layers["cytoplasm"] + 0.04 * layers["fibre"]
    dab = layers["dab"] * thick
    od = _mix(hematoxylin * thick * look.strengths[0], dab, look)
    _add(od, np.float32(0.24) * dab**2 / (1 + dab), (1.0, 0.75, 0.35))
    return _add(od, 0.02 * tissue + 0.06 * layers["blood"], (0.5, 0.75, 1.0))


def scan(od: Float[np.ndarray, "h w 3"], look: Look, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Grey values: light through the section, blurred by the optics, coloured and noisy by the sensor."""
    light = cv2.exp(od * np.float32(-np.log(10)))
    light = cv2.GaussianBlur(light, (0, 0), look.blur_px)
    light *= np.float32(0.992)
    light += np.float32(0.008)  # flare: no scanner sees true black
    light = cv2.transform(light, look.colors.astype(np.float32))
    np.clip(light, 0, None, out=light)
    cv2.pow(light, look.gamma, light)
    light *= np.array(look.white, np.float32)
    noise = rng.standard_normal(light.shape[:2], np.float32)
    light += (np.float32(look.noise) * noise)[..., None]
    return np.asarray(np.clip(light + np.float32(0.5), 0, 255), np.uint8)


def _thickness(shape: tuple[int, int], look: Look, rng: np.random.Generator) -> Field:
    return np.asarray(np.clip(1 + look.thickness * blobs(rng, shape, 120.0), 0.6, 1.5), np.float32)


def _mix(first: Field, second: Field, look: Look) -> Float[np.ndarray, "h w 3"]:
    od = np.empty((*first.shape, 3), np.float32)
    for channel, (one, two) in enumerate(look.vectors.T.astype(np.float32)):
        od[..., channel] = first * one + second * two
    return od


def _add(
    od: Float[np.ndarray, "h w 3"], amount: Field, color: tuple[float, float, float]
) -> Float[np.ndarray, "h w 3"]:
    """A substance of one colour more, in place: three-channel temporaries are what fills the memory."""
    for channel, part in enumerate(color):
        od[..., channel] += amount * np.float32(part)
    return od
