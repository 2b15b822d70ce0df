"""A slide's own white point and stain vectors, from windows of its tissue.

Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009.
Vahadane et al., Structure-preserving color normalization and sparse stain separation, IEEE TMI 2016.

What is implausible gives way to the vectors that the config gives for the slide's staining batch, or else to the fixed
ones, with a note in the record that says what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from hepipe.specs.stains import BatchStains, StainsSpec
from hepipe.stains.deconvolution import WHITE, density_table, separate
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, Vector, angle_deg, stain_matrix

Stain = Literal["he", "ihc"]
Method = Literal["fixed", "macenko", "vahadane", "batch"]
WhiteFrom = Literal["slide", "batch", "fixed"]

BACKGROUND_OD = 0.12
"""A pixel at most this dark in each channel, white being 255, and nearly grey may be glass."""
MIN_BACKGROUND_PX = 500
MIN_STAINED_PX = 1000
MAX_PIXELS = 40_000
"""Both estimates settle far below this (vectors move less than 0.3 degrees between 20,000 and 200,000 px)."""
STAINED_OD = 0.15
"""Macenko's beta: px with less optical density than this say nothing about the direction."""
DAB_PRESENT_OD = 0.2
MAX_TURN_DEG = 25.0
"""How far an estimate may lie from the fixed vector of its stain; published slides stay within about 20."""
MAX_DAB_TURN_DEG = 10.0
"""DAB is one chromogen, whose hue varies little. On 16 synthetic slides sound estimates lay within 8 degrees; those
beyond 11 had taken a mixture with haematoxylin for DAB and gave masks with half the Dice of the fixed vector."""
MIN_APART_DEG = 12.0


@dataclass(frozen=True)
class Estimate:
    """How a slide's stains are separated, and how that was found.

    Attributes:
        first: Haematoxylin.
        second: Eosin (H&E) or DAB (IHC).
        white: Of an empty slide, per channel.
        white_from: The slide's own glass, its batch in the config, or 255.
        method: What gave the vectors in the end.
        notes: What was tried and given up, in words.
        n_pixels: Stained pixels looked at.
        dab_frac: Share of stained pixels with DAB by the fixed vectors; None for H&E.
    """

    first: Vector
    second: Vector
    white: Vector
    white_from: WhiteFrom
    method: Method
    notes: tuple[str, ...]
    n_pixels: int
    dab_frac: float | None


def white_point(pixels: UInt8[np.ndarray, "n 3"]) -> Vector | None:
    """The 99th percentile of what looks like glass, per channel; None when there is hardly any.

    Pure white is what scanners fill unscanned parts with, often most of a sparse slide: it counts only where there is
    too little other glass.
    """
    values = pixels.astype(np.int16)
    darkest, brightest = values.min(1), values.max(1)
    glass = (darkest >= 255 * 10**-BACKGROUND_OD) & (brightest - darkest <= 14)
    scanned = pixels[glass & (darkest < 255)]
    glass = scanned if len(scanned) >= MIN_BACKGROUND_PX else pixels[glass]
    if len(glass) < MIN_BACKGROUND_PX:
        return None
    red, green, blue = np.percentile(glass, 99, axis=0)
    return float(red), float(green), float(blue)


def pooled(windows: Sequence[UInt8[np.ndarray, "h w 3"]], *, most: int = 4_000_000) -> UInt8[np.ndarray, "n 3"]:
    """The pixels of all windows as one list, every k-th when there are more than `most`."""
    if not windows:
        return np.zeros((0, 3), np.uint8)
    total = sum(window.shape[0] * window.shape[1] for window in windows)
    step = -(-total // most)
    return np.concatenate([window.reshape(-1, 3)[::step] for window in windows])


def estimate(
    tissue: UInt8[np.ndarray, "n 3"],
    *,
    stain: Stain,
    spec: StainsSpec,
    white: Vector | None = None,
    batch: str | None = None,
) -> Estimate:
    """The stain vectors of one slide.

    An IHC slide with almost no DAB, or whose estimate is implausible, takes what `spec` gives for its batch.

    Args:
        tissue: Pixels of windows of tissue, pooled over the slide, in a fixed order.
        stain: Which of the two slides.
        spec: Which method.
        white: The slide's white point; None when it could not be found.
        batch: In which it was stained, as the sheet says; None where that is not known.
    """
    notes = []
    given: BatchStains | None = None
    if stain == "ihc" and batch is not None:
        given = spec.batches.get(batch)
    white_from: WhiteFrom = "slide"
    if white is None:
        white, white_from = WHITE, "fixed"
        if spec.white == "auto" and given is not None and given.white is not None:
            white, white_from = given.white, "batch"
            notes.append("white point of its batch: too little empty glass to measure its own")
        elif spec.white == "auto":
            notes.append("white point 255: too little empty glass to measure it")
    table = density_table(white)[0]
    density = table[tissue, np.arange(3)].astype(np.float64)
    stained = density[density.min(1) > 0.01]
    stained = _thinned(stained[stained.mean(1) > STAINED_OD])
    fixed = (HAEMATOXYLIN, EOSIN if stain == "he" else DAB)
    dab_frac = None
    if stain == "ihc":
        amounts = separate(stained, stain_matrix(*fixed))
        dab_frac = float((amounts[:, 1] >= DAB_PRESENT_OD).mean()) if len(stained) else 0.0
    vectors: tuple[Vector, Vector] = fixed
    method: Method = spec.vectors
    problem = ""
    if spec.vectors != "fixed":
        if len(stained) < MIN_STAINED_PX:
            problem = f"{len(stained)} stained px, {MIN_STAINED_PX} needed"
        elif dab_frac is not None and dab_frac < spec.min_dab_frac:
            problem = f"DAB in {dab_frac:.2%} of the tissue, {spec.min_dab_frac:.2%} needed"
        else:
            found = macenko(stained) if spec.vectors == "macenko" else vahadane(stained, start=fixed)
            vectors = _named(found, fixed)
            problem = implausible(vectors, fixed)
    if problem and given is not None:
        notes.append(f"vectors of its batch in place of {spec.vectors}: {problem}")
        vectors, method = (given.haematoxylin, given.dab), "batch"
    elif problem:
        none = "; the config gives none for its batch" if spec.batches else ""
        notes.append(f"fixed vectors in place of {spec.vectors}: {problem}{none if stain == 'ihc' else ''}")
        vectors, method = fixed, "fixed"
    first, second = (_unit(v) for v in vectors)
    return Estimate(first, second, white, white_from, method, tuple(notes), len(stained), dab_frac)


def macenko(density: Float[np.ndarray, "n 3"], *, alpha: float = 1.0) -> tuple[Vector, Vector]:
    """The two extreme directions of the plane that holds most of the optical density.

    Args:
        density: Of stained pixels.
        alpha: Percentile of angles that counts as extreme, from either side.
    """
    _, axes = np.linalg.eigh(density.T @ density)
    plane = axes[:, [2, 1]]
    plane = plane * np.where(plane.sum(0) < 0, -1.0, 1.0)
    along = density @ plane
    angles = np.arctan2(along[:, 1], along[:, 0])
    low, high = np.percentile(angles, [alpha, 100 - alpha])
    ends = [plane @ np.array([np.cos(angle), np.sin(angle)]) for angle in (low, high)]
    return _vector(ends[0]), _vector(ends[1])


def vahadane(
    density: Float[np.ndarray, "n 3"],
    *,
    start: tuple[Vector, Vector],
    sparsity: float = 0.1,
    iterations: int = 150,
) -> tuple[Vector, Vector]:
    """Two vectors whose non-negative, sparse amounts explain the optical density best.

    Equation 4 of the paper: min |V - W H|^2 / 2 + sparsity |H|_1, W and H non-negative, columns of W of unit length;
    by multiplicative updates from `start`, so the result is the same every time.
    """
    small = 1e-9
    values = np.maximum(density, 0).T
    vectors = np.stack([np.asarray(_unit(v)) for v in start], axis=1)
    amounts = np.maximum(np.linalg.lstsq(vectors, values, rcond=None)[0], 1e-3)
    for _ in range(iterations):
        amounts *= (vectors.T @ values) / (vectors.T @ vectors @ amounts + sparsity + small)
        vectors *= (values @ amounts.T) / (vectors @ (amounts @ amounts.T) + small)
        vectors = np.maximum(vectors, small)
        length = np.linalg.norm(vectors, axis=0)
        vectors /= length
        amounts *= length[:, None]
    return _vector(vectors[:, 0]), _vector(vectors[:, 1])


def implausible(found: tuple[Vector, Vector], fixed: tuple[Vector, Vector]) -> str:
    """What is wrong with a pair of vectors; empty when nothing is."""
    if min(map(min, found)) < 0:
        return "a vector has negative optical density"
    apart = angle_deg(*found)
    if apart < MIN_APART_DEG:
        return f"the two vectors are {apart:.1f} degrees apart, {MIN_APART_DEG:g} needed"
    for name, own, usual in zip(("first", "second"), found, fixed, strict=True):
        turn = angle_deg(own, usual)
        allowed = MAX_DAB_TURN_DEG if usual == DAB else MAX_TURN_DEG
        if turn > allowed:
            return f"the {name} vector lies {turn:.1f} degrees from the usual one, {allowed:g} allowed"
    return ""


def _named(found: tuple[Vector, Vector], fixed: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
    """The pair in the order of the fixed one: whichever order turns less in all."""
    straight = angle_deg(found[0], fixed[0]) + angle_deg(found[1], fixed[1])
    crossed = angle_deg(found[1], fixed[0]) + angle_deg(found[0], fixed[1])
    return found if straight <= crossed else (found[1], found[0])


def _thinned(rows: Shaped[np.ndarray, "n 3"]) -> Shaped[np.ndarray, "m 3"]:
    """At most MAX_PIXELS rows, evenly spread."""
    if len(rows) <= MAX_PIXELS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_PIXELS).astype(np.int64)]


def _unit(values: Sequence[float]) -> Vector:
    return _vector(np.asarray(values, np.float64) / np.linalg.norm(values))


def _vector(values: np.ndarray) -> Vector:
    red, green, blue = (round(float(v), 6) for v in values)
    return red, green, blue
