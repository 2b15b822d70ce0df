"""Pairs of slides of any size whose true transform is known: what the registration bars are measured on.

    python benchmarks/cases.py KIND FOLDER --seed N [--side-px 10240] [--tissue-mm2 A] [--pieces P] [--lost 0.1]
    python benchmarks/cases.py real FOLDER --seed N --texture SLIDE --stain he|ihc [--mpp X] [--crop …] [--turn-deg 180]

KIND is one of
    restained    drawn tissue at 0.25 µm, the same section stained again: any turn, warp up to 150 µm, cells lost
    consecutive  the same with the neighbouring section: other nuclei, nearly the same shapes
    sparse       restained on a huge canvas (100,352 px) with a few mm² of tissue, for memory
    real         the texture of a real slide, of `--stain`, whose stains are parted and exchanged

FOLDER gets he.tif, ihc.tif (tiled JPEG pyramids), truth.zarr (`ihc_from_he` as `registration.py` reads it, and
`tissue`: 1 tissue, 2 tissue lost on the IHC, at attribute `tissue_mpp` from the H&E's corner) and facts.json.
Equal arguments give equal bytes. Memory does not grow with a drawn slide's size (about 0.4 GB).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from making.layers import TISSUE_UM, Amounts, Layers, without
from making.pictures import MPP
from making.pieces import draw_shapes
from making.pyramid import BLOCK_PX, StreamedPyramid
from making.section import Section
from making.staining import QUALITY, Stains, draw_stains, glass
from making.texture import Texture
from making.truth import Inverse, draw_warp, placed, turn, write_truth

from hepipe.geometry import Transform
from hepipe.specs.synth import SynthSpec
from hepipe.synth.noise import Field, blobs, generator
from hepipe.synth.plan import Plan, plan_case
from hepipe.synth.scanner import scan

Key = tuple[int | str, ...]
Pixels = UInt8[np.ndarray, "h w 3"]
MARGIN_UM = 100.0
"""Glass about the tissue on the IHC slide."""
SMALL_PX = 16_384
"""Canvases up to this side hold one piece on about half of them; larger ones one to four on a sixth."""


@dataclass(frozen=True)
class Subject:
    """What is on the slides, in the frame of the H&E.

    Attributes:
        mpp: µm per px, of both slides.
        size: Of the H&E slide, px.
        tissue: On the grid of `TISSUE_UM`.
        stains: How both slides look.
        draw: Amounts of a block; None for glass.
        show: H&E pixels of a block where they are not to be drawn from the amounts.
        facts: To be recorded.
    """

    mpp: float
    size: tuple[int, int]
    tissue: Bool[np.ndarray, "h w"]
    stains: Stains
    draw: Callable[[int, int, int], Amounts | None]
    show: Callable[[int, int, int], Pixels] | None
    facts: dict[str, Any]


def drawn_subject(
    kind: str, key: Key, plan: Plan, *, side_px: int, area_um2: float | None, pieces: int | None
) -> Subject:
    """A section of drawn tissue and itself, or its neighbour, stained again."""
    rng = generator(*key, "case")
    side_um = side_px * MPP
    small = side_px <= SMALL_PX
    if area_um2 is None:
        area_um2 = side_um**2 * float(rng.uniform(0.46, 0.56) if small else rng.uniform(0.13, 0.18))
    pieces = pieces or (1 if small else int(rng.integers(1, 5)))
    outline = draw_shapes(generator(*key, "shapes"), side_um, pieces=pieces, area=area_um2)
    cells_lost = float(rng.uniform(0.05, 0.1))
    section = Section(outline, side_um, plan.biology, key, lost=cells_lost)
    other = Section(outline, side_um, plan.biology, key, slice_key="next", lost=0) if kind == "consecutive" else None

    def draw(x: int, y: int, side: int) -> Amounts | None:
        here = section.draw(x, y, side)
        if other is None:
            return here
        there = other.draw(x, y, side)
        if here is None or there is None:
            nothing = np.zeros((side, side), np.float32)
            blank = Amounts(nothing, nothing, np.zeros((side, side, 3), np.uint8))
            if here is None and there is None:
                return None
            here, there = here or blank, there or blank
        return Amounts(here.haematoxylin, here.eosin, there.ihc)

    stains = draw_stains(plan, key, side_um=side_um, mpp=MPP)
    facts = {"score": plan.biology.score, "pieces": pieces, "cells_lost": None if other else round(cells_lost, 4)}
    return Subject(MPP, (side_px, side_px), section.tissue(side_px, TISSUE_UM), stains, draw, None, facts)


def real_subject(
    key: Key, plan: Plan, *, path: Path, stain: Literal["he", "ihc"], mpp: float | None, crop: Sequence[int] | None
) -> Subject:
    """A real slide's texture with its stains exchanged."""
    texture = Texture(path, stain=stain, mpp=mpp, crop=crop, rng=generator(*key, "dab"), whole_px=512)
    side_um = max(texture.size) * texture.mpp
    stains = texture.stains(draw_stains(plan, key, side_um=side_um, mpp=texture.mpp))
    facts = {
        "texture": stain,
        "vectors": [[round(v, 4) for v in vector] for vector in texture.vectors],
        "vectors_from_usual_deg": [round(angle, 1) for angle in texture.turned_deg],
        "white": list(texture.white),
    }

    def draw(x: int, y: int, side: int) -> Amounts | None:
        return None if texture.blank(x, y, side) else texture.draw(x, y, side)

    show = texture.pixels if stain == "he" else None
    return Subject(texture.mpp, texture.size, texture.tissue, stains, draw, show, facts)


def lost_places(key: Key, tissue: Bool[np.ndarray, "h w"], share: float) -> Field:
    """Where the IHC lost its tissue: positive (about µm) in blobs on `share` of the tissue; grid of `TISSUE_UM`."""
    field = blobs(generator(*key, "lost"), tissue.shape, 90 / TISSUE_UM)
    if share == 0:
        return np.full_like(field, -1000)
    return np.asarray((field - np.quantile(field[tissue], 1 - share)) * 90, np.float32)


def draw_transform(
    key: Key, subject: Subject, *, turn_deg: float
) -> tuple[Transform, tuple[int, int], dict[str, float]]:
    """The true transform, the size of the IHC slide, and the numbers of its affine part."""
    rng = generator(*key, "place")
    angle = float(rng.uniform(-turn_deg, turn_deg))
    scale = 1 + float(rng.uniform(-0.015, 0.015)) + rng.uniform(-0.005, 0.005, 2)
    linear = turn(angle, float(scale[0]), float(scale[1]), float(rng.uniform(-0.01, 0.01)))
    mpp = subject.mpp
    grid_um = 8.0 if max(subject.size) * mpp <= 16_000 else 16.0
    size_um = (subject.size[0] * mpp, subject.size[1] * mpp)
    field = draw_warp(generator(*key, "warp"), size_um, grid_um=grid_um, peak_um=float(rng.uniform(90, 150)))
    rows, columns = np.nonzero(subject.tissue)
    points = (np.stack([columns, rows], axis=1) + 0.5) * (TISSUE_UM / mpp)
    transform, size = placed(
        Transform(linear, mpp, mpp, field, grid_um),
        points,
        margin_px=MARGIN_UM / mpp,
        whole_px=BLOCK_PX if max(subject.size) > 8192 else 256,
        least_px=max(subject.size) if max(subject.size) > SMALL_PX else 0,
    )
    aim = transform(points)
    still = np.linalg.norm(points - aim, axis=1) * mpp
    local = np.linalg.norm(aim - points @ transform.affine[:2, :2].T - transform.affine[:2, 2], axis=1) * mpp
    return (
        transform,
        size,
        {
            "rotation_deg": round(angle, 3),
            "scale": round(float(np.sqrt(np.linalg.det(linear[:2, :2]))), 5),
            "median_displacement_um": round(float(np.median(still)), 2),
            "warp_median_um": round(float(np.median(local)), 2),
            "warp_rms_um": round(float(np.sqrt((local**2).mean())), 2),
            "warp_peak_um": round(float(local.max()), 2),
        },
    )


def write_pair(folder: Path, key: Key, subject: Subject, *, turn_deg: float, lost_share: float) -> dict[str, Any]:
    """Draw both slides and store the truth; the case's facts."""
    folder.mkdir(parents=True, exist_ok=True)
    lost = lost_places(key, subject.tissue, lost_share)
    tissue = np.where(subject.tissue, np.where(lost > 0, 2, 1), 0).astype(np.uint8)
    transform, size, placing = draw_transform(key, subject, turn_deg=turn_deg)
    stains, inverse, layers = subject.stains, Inverse(transform), Layers(folder)

    def he_block(x: int, y: int, side: int) -> Pixels | None:
        drawn = subject.draw(x, y, side)
        if drawn is None:
            return None
        layers.put(x, y, without(drawn.ihc, lost, x, y, mpp=subject.mpp))
        if subject.show is not None:
            return subject.show(x, y, side)
        return scan(stains.he_density(drawn.haematoxylin, drawn.eosin, x, y), stains.he, generator(*key, "he", x, y))

    def ihc_block(x: int, y: int, side: int) -> Pixels | None:
        pad = 16  # what blurs reach
        amounts = layers.pull(inverse, x - pad, y - pad, side + 2 * pad)
        if amounts is None:
            return None
        shown = scan(stains.ihc_density(amounts, x - pad, y - pad), stains.ihc, generator(*key, "ihc", x, y))
        return shown[pad:-pad, pad:-pad]

    for name, extent, look, block in (("he", subject.size, stains.he, he_block), ("ihc", size, stains.ihc, ihc_block)):
        empty = glass(look, generator(*key, "glass", name))
        with StreamedPyramid(folder / f"{name}.tif", extent, mpp=subject.mpp, quality=QUALITY, glass=empty) as pyramid:
            pyramid.fill(block)
    layers.close()
    write_truth(folder / "truth.zarr", transform, tissue, tissue_mpp=TISSUE_UM)
    covered = float((tissue > 0).sum())
    return {
        "mpp": subject.mpp,
        "he_px": list(subject.size),
        "ihc_px": list(size),
        "tissue_mm2": round(covered * TISSUE_UM**2 / 1e6, 4),
        "tissue_share": round(covered / tissue.size, 4),
        "lost_share": round(float((tissue == 2).sum()) / max(covered, 1), 4),
        **placing,
        **subject.facts,
    }


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Make the case that the options name; its facts, which are also written."""
    kind, seed = options.kind, options.seed
    plan = plan_case(SynthSpec(seed=seed), 1 + seed % 4)
    if kind == "real":
        key: Key = (seed, "real", options.stain)
        subject = real_subject(key, plan, path=options.texture, stain=options.stain, mpp=options.mpp, crop=options.crop)
    else:
        side_px = options.side_px or (100_352 if kind == "sparse" else 10_240)
        area_mm2 = options.tissue_mm2 or (6.0 if kind == "sparse" else None)
        key = (seed, kind, side_px)
        subject = drawn_subject(
            kind,
            key,
            plan,
            side_px=side_px,
            area_um2=None if area_mm2 is None else area_mm2 * 1e6,
            pieces=options.pieces or (3 if kind == "sparse" else None),
        )
    facts = write_pair(options.folder, key, subject, turn_deg=options.turn_deg, lost_share=options.lost)
    facts = {"kind": kind, "seed": seed, **facts}
    (options.folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("kind", choices=["restained", "consecutive", "sparse", "real"])
    words.add_argument("folder", type=Path)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--side-px", type=int, help="of the H&E canvas, a multiple of 256; 10240, for sparse 100352")
    words.add_argument("--tissue-mm2", type=float, help="area of all pieces; by the canvas when not given")
    words.add_argument("--pieces", type=int, help="of tissue; by the canvas when not given")
    words.add_argument("--lost", type=float, default=0.1, help="share of the tissue that the IHC lost")
    words.add_argument("--turn-deg", type=float, default=180.0, help="largest turn either way")
    words.add_argument("--texture", type=Path, help="the real slide")
    words.add_argument("--stain", choices=["he", "ihc"], help="of the real slide")
    words.add_argument("--crop", type=int, nargs=4, metavar="PX", help="left, top, width, height of the part to use")
    words.add_argument("--mpp", type=float, help="of the real slide, when its file does not say")
    return words


def main() -> None:
    options = parser().parse_args()
    if options.kind == "real" and (options.texture is None or options.stain is None):
        raise SystemExit("real: give the slide with --texture and what it is with --stain he or --stain ihc")
    cv2.setNumThreads(1)
    began = time.process_time()
    facts = make(options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(facts), f"CPU {time.process_time() - began:.1f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
