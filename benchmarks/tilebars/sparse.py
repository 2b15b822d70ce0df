"""A canvas of 100,000 x 200,000 px that is nearly all empty."""

from __future__ import annotations

from pathlib import Path

import openslide
from bars.table import Table
from tilebars.cutting import ours
from tilebars.warping import write_transform

MAX_PEAK_MB = 300.0


def measure(table: Table, he: Path, ihc: Path | None, work: Path) -> None:
    """One stain, and both with a warp where there is a second slide."""
    with openslide.OpenSlide(he) as slide:
        width, height = slide.dimensions
        write_transform(work / "sparse.npz", (width, height))
    canvas = f"sparse pyramid, {width} x {height} px"
    rows = [(f"{canvas}, one stain", ours("cut", he, out=work / "s.zarr"))]
    if ihc is not None:
        found = ours("pair", he, ihc, work / "sparse.npz", out=work / "s.zarr", options={"kept": 0.005})
        rows.append((f"{canvas}, both stains, 0.5 % kept", found))
    for name, found in rows:
        fine = not isinstance(found, str) and found.ran.peak_mb <= MAX_PEAK_MB
        table.add(name, str(found), f"completes, peak ≤ {MAX_PEAK_MB:.0f} MB", fine)
