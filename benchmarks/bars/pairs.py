"""What is registered: pairs with points whose place on the IHC slide is known, each with its bars."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

LUNG_MPP, KIDNEY_MPP = 3.5, 5.0
"""Nominal (a twentieth of the scans); the files state none, and errors of these pairs are shares of the diagonal."""


@dataclass(frozen=True)
class Pair:
    """Two pictures and corresponding points.

    Attributes:
        name: In the table.
        he: The fixed picture.
        ihc: The moving picture.
        mpp: As the options take it.
        section: The same section or the next.
        he_px: Points (n, 2).
        ihc_px: Their partners.
        diagonal_px: Of the IHC picture.
        max_rtre: Bar of the median, share of the diagonal; None where none is set for the pair alone.
        min_robustness: Bar of the share of points that come closer.
    """

    name: str
    he: Path
    ihc: Path
    mpp: str
    section: str
    he_px: np.ndarray
    ihc_px: np.ndarray
    diagonal_px: float
    max_rtre: float | None = None
    min_robustness: float | None = None


LUNG = (("CD31-3", 1.0), ("Cc10-5", 0.93), ("proSPC-4", 1.0), ("Ki67-7", 0.88))
LUNG_MEAN = 0.0065
"""Bar of the mean of the four medians."""


def landmark_pairs(data: Path) -> Iterator[Pair]:
    """The four lung pairs and the kidney."""
    lung, kidney = data / "reg-lung-lesion-3", data / "reg-rat-kidney"
    for marker, robust in LUNG:
        files = lung / "landmarks-px" / "He.csv", lung / "landmarks-px" / f"{marker}.csv"
        yield _pair(f"lung {marker}", lung / "He.jpg", lung / f"{marker}.jpg", files, LUNG_MPP, None, robust)
    files = kidney / "HE.csv", kidney / "PanCytokeratin.csv"
    yield _pair("kidney", kidney / "HE.jpg", kidney / "PanCytokeratin.jpg", files, KIDNEY_MPP, 0.0020, None)


def _pair(
    name: str,
    he: Path,
    ihc: Path,
    files: tuple[Path, Path],
    mpp: float,
    max_rtre: float | None,
    robust: float | None,
) -> Pair:
    from PIL import Image

    one, other = (_points(path) for path in files)
    shared = [key for key in one if key in other]
    with Image.open(ihc) as picture:
        diagonal = math.hypot(*picture.size)
    return Pair(
        name=name,
        he=he,
        ihc=ihc,
        mpp=str(mpp),
        section="consecutive",
        he_px=np.array([one[key] for key in shared]),
        ihc_px=np.array([other[key] for key in shared]),
        diagonal_px=diagonal,
        max_rtre=max_rtre,
        min_robustness=robust,
    )


def _points(path: Path) -> dict[str, tuple[float, float]]:
    with path.open(newline="") as file:
        return {row[""]: (float(row["X"]), float(row["Y"])) for row in csv.DictReader(file)}


def best_affine(pair: Pair) -> float:
    """Median relative error of the affine that fits the landmarks themselves: what no affine beats by much."""
    design = np.column_stack([pair.he_px, np.ones(len(pair.he_px))])
    solution, *_ = np.linalg.lstsq(design, pair.ihc_px, rcond=None)
    return float(np.median(np.linalg.norm(design @ solution - pair.ihc_px, axis=1))) / pair.diagonal_px


@dataclass(frozen=True)
class Scans:
    """One slide on two scanners: the similarity between them was measured with local features, level-0 px."""

    name: str
    he: Path
    ihc: Path
    scale: float
    rotation_deg: float
    shift: tuple[float, float]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points of the first scan on the second."""
        angle = math.radians(self.rotation_deg)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        moved: np.ndarray = self.scale * points @ turn.T + np.array(self.shift)
        return moved


SCANS = (
    ("reg-four-scanner-574162", "574162_1", "N1", "ndpi", 0.667, 0.04, (905, 502)),
    ("reg-four-scanner-574162", "574162_1", "N2", "ndpi", 0.946, -0.20, (148, -32)),
    ("reg-four-scanner-574162", "574162_1", "Z", "tif", 0.855, -0.54, (510, 405)),
    ("reg-three-scanner-568381", "568381_1", "N1", "ndpi", 0.871, 0.04, (-5, 372)),
    ("reg-three-scanner-568381", "568381_1", "N2", "ndpi", 1.036, -0.20, (-140, -239)),
)
"""From the Aperio scan, as the sets' SOURCE.md states it; three decimals of the scale are up to 2.5 px far away."""


def scanner_pairs(data: Path) -> Iterator[Scans]:
    """The Aperio scan of each slide with each other one."""
    for folder, slide, other, suffix, scale, turn, shift in SCANS:
        place = data / folder
        yield Scans(
            f"{slide[:6]} A to {other}",
            place / f"A_BB_{slide}.svs",
            place / f"{other}_BB_{slide}.{suffix}",
            scale,
            turn,
            shift,
        )


def affine_by_features(pair: Scans, *, level: int = 2) -> np.ndarray:
    """A 2 x 3 affine, px0 to px0, through SIFT matches that one similarity explains within 8 px.

    The NanoZoomer 2.0HT stretches by 0.4 % more along x than along y, so no similarity is its truth: the one that was
    measured is 2 to 3 px (median) from its own matches.
    """
    import openslide

    seen = []
    for path in (pair.he, pair.ihc):
        slide = openslide.OpenSlide(str(path))
        size = slide.level_dimensions[level]
        grey = cv2.cvtColor(np.array(slide.read_region((0, 0), level, size).convert("RGB")), cv2.COLOR_RGB2GRAY)
        seen.append((*cv2.SIFT_create(8000).detectAndCompute(grey, None), np.divide(slide.dimensions, size)))
    (one, ones, large), (other, others, larger) = seen
    pairs = [best for best, next_ in cv2.BFMatcher().knnMatch(ones, others, 2) if best.distance < 0.8 * next_.distance]
    here = (np.array([one[match.queryIdx].pt for match in pairs]) + 0.5) * large
    there = (np.array([other[match.trainIdx].pt for match in pairs]) + 0.5) * larger
    cv2.setRNGSeed(0)
    _, kept = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=8, maxIters=20000)
    kept = kept.ravel() > 0
    design = np.column_stack([here[kept], np.ones(kept.sum())])
    return np.linalg.lstsq(design, there[kept], rcond=None)[0].T
