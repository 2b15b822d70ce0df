"""Both stains of the kept tiles, the second through a transform, against libvips warping that whole slide."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openslide
from bars.table import Table
from tilebars.cutting import ours
from tilebars.rivals import Rival

KEPT, MAX_RATIO = 0.25, 0.25
QUALITY = 89
"""Of libvips: from 90 on it stores colour in full, which ours at 90 does not."""
GRID_PX = 1024
"""Spacing of the displacement field, px of the canvas."""
REACH_PX = 60.0
"""Largest displacement, px."""


def write_transform(path: Path, size: tuple[int, int], *, seed: int = 3) -> None:
    """A turn by 2 degrees about the middle, a shift and a smooth field, as `rivals/vips_warp.py` takes them."""
    turn = np.deg2rad(2.0)
    affine = np.array([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0]])
    middle = np.array(size) / 2
    affine[:, 2] = middle - affine[:, :2] @ middle + (300.0, -200.0)
    shape = tuple(-(-side // GRID_PX) + 1 for side in reversed(size))
    noise = np.random.default_rng(seed).normal(size=(*shape, 2)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), 4.0)
    field *= REACH_PX / np.abs(field).max()
    np.savez(path, affine=affine, field=field, grid_px=GRID_PX, size=size)


def measure(table: Table, he: Path, ihc: Path, rival: Rival, work: Path) -> None:
    """The rows of this bar."""
    name = f"both stains, warp of kept tiles, {KEPT:.0%} kept"
    transform = work / "transform.npz"
    with openslide.OpenSlide(he) as slide:
        write_transform(transform, slide.dimensions)
    mine = ours("pair", he, ihc, transform, out=work / "pair.zarr", options={"kept": KEPT})
    if isinstance(mine, str):
        table.add(name, mine, "a store", False)
        return
    table.add(f"{name}, ours ({mine.reader}, JPEG 90)", str(mine))
    bar = f"CPU ≤ {MAX_RATIO} ×"
    if not rival.works:
        table.add(f"{name}, ours : libvips, whole slide", rival.about, bar)
        return
    out = work / "warped.tif"
    ran, found = rival.run(ihc, out, transform, f"--quality={QUALITY}")
    out.unlink(missing_ok=True)
    if not found:
        table.add(f"{name}, libvips", f"exit {ran.status}: {ran.last[:160]}")
        return
    text = f"{ran.cpu_s:.1f} CPU s, {found['bytes'] / 1e6:.0f} MB, peak {ran.peak_mb:.0f} MB"
    table.add(f"IHC slide warped whole by libvips ({rival.about}), one level, JPEG {QUALITY}", text)
    share = mine.ran.cpu_s / ran.cpu_s
    table.add(f"{name}, ours : libvips, whole slide", f"CPU {share:.2f}", bar, share <= MAX_RATIO)
