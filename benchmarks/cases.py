"""Pairs of slides of any size whose true transform is known: what the registration bars are measured on.

    python benchmarks/cases.py KIND FOLDER --seed N [--side-px 10240] [--texture SLIDE] [--mpp X] [--tissue-mm2 A]

KIND is one of
    restained    drawn tissue at 0.25 µm, the same section stained again: any turn, warp up to 150 µm, cells lost
    consecutive  the same with the neighbouring section: other nuclei, nearly the same shapes
    sparse       restained on a huge canvas (100,352 px) with a few mm² of tissue, for memory

FOLDER gets he.tif, ihc.tif (tiled JPEG pyramids), truth.zarr (`ihc_from_he` as `registration.py` reads it, and
`tissue`: 1 tissue, 2 tissue lost on the IHC, at attribute `tissue_mpp` from the H&E's corner) and facts.json.
Equal arguments give equal bytes. Memory does not grow with the slide (below 1 GB at 40,960 px).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from drawing import AMOUNT, MAP_UM, MPP, Section, shapes
from jaxtyping import Float, UInt8
from streamed import BLOCK_PX, TILE_PX, StreamedPyramid
from truth import Inverse, Waves, draw_warp, placed, turn, write_truth

from hepipe.config import SynthSpec
from hepipe.geometry import Transform
from hepipe.synth.noise import Field, blobs, generator, ramp
from hepipe.synth.plan import Look, Plan, plan_case
from hepipe.synth.scanner import scan

QUALITY = 80
NOISE = 3.0
TISSUE_UM = 16.0
EOSIN_LEFT = 0.06
CONSECUTIVE_TURN = 0.1


class Glass:
    """Tiles of empty glass: the scanner's white with its noise."""

    def __init__(self, look: Look, rng: np.random.Generator) -> None:
        od = np.zeros((TILE_PX, TILE_PX, 3), np.float32)
        self.tiles = [scan(od, look, rng) for _ in range(8)]


class Layers:
    """The IHC section's amounts in the H&E's frame: written block by block as the H&E is drawn, read anywhere."""

    def __init__(self, folder: Path, *, held: int = 40) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        self._recent: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._held = held

    def put(self, x: int, y: int, amounts: UInt8[np.ndarray, "h w 3"]) -> None:
        self._places[x // BLOCK_PX, y // BLOCK_PX] = (self._file.tell(), len(amounts))
        self._file.write(np.ascontiguousarray(amounts).data)

    def read(self, x0: int, y0: int, x1: int, y1: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """A rectangle, px; None when none of its blocks has tissue."""
        blocks = [
            (column, row)
            for row in range(y0 // BLOCK_PX, -(-y1 // BLOCK_PX))
            for column in range(x0 // BLOCK_PX, -(-x1 // BLOCK_PX))
            if (column, row) in self._places
        ]
        if not blocks:
            return None
        out = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        for block in blocks:
            pixels = self._block(block)
            left, top = block[0] * BLOCK_PX, block[1] * BLOCK_PX
            ax, ay = max(x0, left), max(y0, top)
            bx, by = min(x1, left + len(pixels)), min(y1, top + len(pixels))
            if bx > ax and by > ay:
                out[ay - y0 : by - y0, ax - x0 : bx - x0] = pixels[ay - top : by - top, ax - left : bx - left]
        return out if out.any() else None

    def _block(self, block: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        if block not in self._recent:
            place, side = self._places[block]
            self._file.seek(place)
            pixels = np.frombuffer(self._file.read(side * side * 3), np.uint8).reshape(side, side, 3)
            self._recent[block] = pixels
            if len(self._recent) > self._held:
                self._recent.popitem(last=False)
        self._recent.move_to_end(block)
        return self._recent[block]

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Stains:
    """How both slides look, and how staining drifts over each."""

    he: Look
    ihc: Look
    he_drift: Waves
    ihc_drift: Waves

    def he_density(self, h: Field, e: Field, x: int, y: int) -> Float[np.ndarray, "h w 3"]:
        drift = _drift(self.he_drift, x, y, len(h))
        h, e = h * (drift * np.float32(self.he.strengths[0])), e * (drift * np.float32(self.he.strengths[1]))
        return np.stack([h * np.float32(a) + e * np.float32(b) for a, b in self.he.vectors.T], axis=-1)

    def ihc_density(self, amounts: UInt8[np.ndarray, "h w 3"], x: int, y: int) -> Float[np.ndarray, "h w 3"]:
        """Fainter haematoxylin, a little eosin left, DAB whose dense deposits darken all channels alike."""
        table = np.arange(256, dtype=np.float32) / np.float32(AMOUNT)
        faint = (0.55 * self.ihc.strengths[0] * table**0.9).astype(np.float32)
        h, other, dab = (
            cv2.LUT(np.ascontiguousarray(amounts[..., k]), values) for k, values in enumerate((faint, table / 2, table))
        )
        drift = _drift(self.ihc_drift, x, y, len(h))
        h, dab = h * drift, dab * drift
        dense = np.float32(0.24) * dab**2 / (1 + dab)
        left = EOSIN_LEFT * self.he.vectors[1] + 0.12 * self.ihc.vectors[0] + 0.04 * np.array([0.5, 0.75, 1.0])
        return np.stack(
            [
                h * np.float32(a) + dab * np.float32(b) + dense * np.float32(c) + other * np.float32(d)
                for a, b, c, d in zip(*self.ihc.vectors, (1.0, 0.75, 0.35), left, strict=True)
            ],
            axis=-1,
        )


def _drift(waves: Waves, x: int, y: int, side: int) -> Field:
    """A factor about 1 over a block."""
    at = np.arange(-8, side + 24, 16)
    coarse = 1 + waves.on((x + at + 0.5) * MPP, (y + at + 0.5) * MPP)
    fine = cv2.resize(coarse.astype(np.float32), None, fx=16, fy=16, interpolation=cv2.INTER_LINEAR)
    return np.clip(fine[16 : 16 + side, 16 : 16 + side], 0.5, 1.6)


def stains_of(plan: Plan, key: tuple[int | str, ...], side_um: float) -> Stains:
    rng = generator(*key, "stains")
    he = replace(plan.he, noise=0.5 * NOISE, quality=QUALITY)
    ihc = replace(plan.ihc, noise=NOISE, quality=QUALITY, blur_px=float(rng.uniform(1.0, 1.4)))
    drifts = [
        Waves.draw(rng, shortest_um=800, longest_um=max(4000.0, side_um), rms=rms, count=8) for rms in (0.06, 0.1)
    ]
    return Stains(he, ihc, *drifts)


def tissue_map(section: Section, lost: Field, side_px: int) -> UInt8[np.ndarray, "h w"]:
    """0 glass, 1 tissue, 2 tissue that the IHC lost, on a grid of `TISSUE_UM`."""
    cells = int(np.ceil(side_px * MPP / TISSUE_UM))
    times = round(TISSUE_UM / MAP_UM)
    share = np.zeros((cells * times, cells * times), np.float32)
    for piece in section.pieces:
        present = (np.minimum(piece.tissue, -piece.hole) > 0).astype(np.float32)
        place = share[piece.row : piece.row + len(present), piece.column : piece.column + present.shape[1]]
        np.maximum(place, present[: len(place), : place.shape[1]], out=place)
    share = cv2.resize(share, (cells, cells), interpolation=cv2.INTER_AREA)
    return np.where(share < 0.5, 0, np.where(lost[:cells, :cells] > 0, 2, 1)).astype(np.uint8)


def lost_places(rng: np.random.Generator, section: Section, side_px: int, share: float) -> Field:
    """Where the IHC lost its tissue: positive in blobs that take `share` of the tissue; grid of `TISSUE_UM`."""
    cells = int(np.ceil(side_px * MPP / TISSUE_UM))
    field = blobs(rng, (cells, cells), 90 / TISSUE_UM)
    tissue = tissue_map(section, np.zeros_like(field), side_px) > 0
    return np.asarray((field - np.quantile(field[tissue], 1 - share)) * 90, np.float32)


def draw_pair(
    kind: str, folder: Path, *, seed: int, side_px: int, area_um2: float | None, pieces: int | None, lost_share: float
) -> dict[str, object]:
    """Draw and write a synthetic case; its facts."""
    key: tuple[int | str, ...] = (seed, kind if kind != "sparse" else "restained", side_px)
    rng = generator(*key, "case")
    plan = plan_case(SynthSpec(seed=seed), 1 + seed % 4)
    side_um = side_px * MPP
    if area_um2 is None:
        small = side_px <= 16_384
        area_um2 = side_um**2 * float(rng.uniform(0.46, 0.56) if small else rng.uniform(0.13, 0.18))
        pieces = pieces or (1 if small else int(rng.integers(1, 5)))
    outline = shapes(generator(*key, "shapes"), side_um, pieces=pieces or 3, area=area_um2)
    cells_lost = float(rng.uniform(0.05, 0.1))
    section = Section(outline, side_um, plan.biology, key, lost=cells_lost)
    other = section
    if kind == "consecutive":
        other = Section(outline, side_um, plan.biology, key, slice_key="next", lost=0.0)
    lost = lost_places(generator(*key, "lost"), section, side_px, lost_share)
    tissue = tissue_map(section, lost if lost_share else np.full_like(lost, -1), side_px)

    angle, swelling = float(rng.uniform(0, 360)), float(rng.uniform(-0.015, 0.015))
    linear = turn(angle, *(1 + swelling + rng.uniform(-0.005, 0.005, 2)), float(rng.uniform(-0.01, 0.01)))
    grid_um = 8.0 if side_px <= 65_536 else 16.0
    field = draw_warp(
        generator(*key, "warp"),
        (side_um, side_um),
        grid_um=grid_um,
        peak_um=float(rng.uniform(90, 150)),
    )
    rows, columns = np.nonzero(tissue)
    points = (np.stack([columns, rows], axis=1) + 0.5) * (TISSUE_UM / MPP)
    transform, size = placed(
        Transform(linear, MPP, MPP, field, grid_um), points, margin_px=400, whole_px=BLOCK_PX if side_px > 4096 else 512
    )
    stains = stains_of(plan, key, side_um)
    layers = Layers(folder)

    def he_block(x: int, y: int, side: int) -> UInt8[np.ndarray, "h w 3"] | None:
        drawn = section.draw(x, y, side)
        if drawn is None:
            return None
        on_ihc = drawn if other is section else other.draw(x, y, side)
        if on_ihc is not None:
            layers.put(x, y, _without(on_ihc.ihc, lost, x, y) if lost_share else on_ihc.ihc)
        return scan(stains.he_density(drawn.haematoxylin, drawn.eosin, x, y), stains.he, generator(*key, "he", x, y))

    inverse = Inverse(transform)

    def ihc_block(x: int, y: int, side: int) -> UInt8[np.ndarray, "h w 3"] | None:
        pad = 16
        amounts = _pulled(layers, inverse, x - pad, y - pad, side + 2 * pad)
        if amounts is None:
            return None
        shown = scan(stains.ihc_density(amounts, x - pad, y - pad), stains.ihc, generator(*key, "ihc", x, y))
        return shown[pad:-pad, pad:-pad]

    for name, extent, look, block in (
        ("he", (side_px, side_px), stains.he, he_block),
        ("ihc", size, stains.ihc, ihc_block),
    ):
        glass = Glass(look, generator(*key, "glass", name)).tiles
        with StreamedPyramid(folder / f"{name}.tif", extent, mpp=MPP, quality=QUALITY, glass=glass) as pyramid:
            pyramid.fill(block)
    layers.close()
    write_truth(folder / "truth.zarr", transform, tissue, tissue_mpp=TISSUE_UM)
    aim = transform(points)
    still = np.linalg.norm(points * MPP - aim * MPP, axis=1)
    local = np.linalg.norm((aim - points @ transform.affine[:2, :2].T - transform.affine[:2, 2]) * MPP, axis=1)
    return {
        "score": plan.biology.score,
        "mpp": MPP,
        "he_px": [side_px, side_px],
        "ihc_px": list(size),
        "tissue_mm2": round(float((tissue > 0).sum()) * TISSUE_UM**2 / 1e6, 4),
        "tissue_share": round(float((tissue > 0).mean()), 4),
        "lost_share": round(float((tissue == 2).sum() / max((tissue > 0).sum(), 1)), 4),
        "cells_lost": round(cells_lost, 4),
        "pieces": len(outline),
        "rotation_deg": round(angle, 3),
        "scale": round(float(np.sqrt(np.linalg.det(linear[:2, :2]))), 5),
        "median_displacement_um": round(float(np.median(still)), 2),
        "warp_um": {
            "median": round(float(np.median(local)), 2),
            "rms": round(float(np.sqrt((local**2).mean())), 2),
            "peak": round(float(local.max()), 2),
        },
    }


def _without(amounts: UInt8[np.ndarray, "h w 3"], lost: Field, x: int, y: int) -> UInt8[np.ndarray, "h w 3"]:
    """The amounts with the lost places cleared, soft over some µm."""
    side = len(amounts)
    times = round(TISSUE_UM / MPP)
    place = np.array([[1 / times, 0, (x + 0.5) / times - 0.5], [0, 1 / times, (y + 0.5) / times - 0.5]])
    fine = cv2.warpAffine(
        lost, place, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    if float(fine.max()) < -6:
        return amounts
    return np.asarray(amounts * (1 - ramp(fine, 8.0))[..., None] + np.float32(0.5), np.uint8)


def _pulled(layers: Layers, inverse: Inverse, x: int, y: int, side: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """A square of the IHC's frame read from the H&E's by one bicubic interpolation."""
    map_x, map_y = inverse.grid(x, y, side)
    x0, y0 = int(map_x.min()) - 4, int(map_y.min()) - 4
    x1, y1 = int(map_x.max()) + 5, int(map_y.max()) + 5
    source = layers.read(max(x0, 0), max(y0, 0), max(x1, 1), max(y1, 1))
    if source is None:
        return None
    map_x = (map_x - max(x0, 0) - 0.5).astype(np.float32)
    map_y = (map_y - max(y0, 0) - 0.5).astype(np.float32)
    moved = cv2.remap(source, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(moved) if moved.any() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["restained", "consecutive", "sparse"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side-px", type=int, help="of the H&E canvas; 10240, for sparse 100352")
    parser.add_argument("--tissue-mm2", type=float, help="area of all pieces; by the canvas when not given")
    parser.add_argument("--pieces", type=int)
    parser.add_argument("--lost", type=float, default=0.1, help="share of the tissue that the IHC lost")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    sparse = options.kind == "sparse"
    area = options.tissue_mm2 or (6.0 if sparse else None)
    began = time.process_time()
    facts = draw_pair(
        options.kind,
        options.folder,
        seed=options.seed,
        side_px=options.side_px or (100_352 if sparse else 10_240),
        area_um2=area and area * 1e6,
        pieces=options.pieces,
        lost_share=options.lost,
    )
    facts = {"kind": options.kind, "seed": options.seed, **facts}
    (options.folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(facts), f"CPU {time.process_time() - began:.1f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
