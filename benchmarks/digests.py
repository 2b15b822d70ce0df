"""The two digests of a slide, against `sha256sum` of the file, and against two passes with tifffile.

    python benchmarks/digests.py FOLDER [--gb 2] [--runs 3]

A pyramid of JPEG tiles is written into FOLDER, or found there. Every row is the median of its runs, which take turns;
each run is a process of its own. The file lies in the page cache after the first: what is compared is work, not a disk.
The last column is the wall time divided by that of sha256sum in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from bars.child import Ran, run

TILE_PX = 256
OURS = """
import sys
from pathlib import Path
from hepipe.slides.digests import slide_digests
from hepipe.slides.open import open_slide
path = Path(sys.argv[1])
print(slide_digests(path, open_slide(path, slide_id="c1-he", reader="openslide")))
"""
TWO_PASSES = """
import hashlib, sys, tifffile
with open(sys.argv[1], "rb") as file:
    print(hashlib.file_digest(file, "sha256").hexdigest())
with tifffile.TiffFile(sys.argv[1]) as tiff:
    page, handle, found = tiff.pages[0], tiff.filehandle, hashlib.sha256()
    for offset, count in zip(page.dataoffsets, page.databytecounts):
        handle.seek(offset)
        found.update(hashlib.sha256(handle.read(count)).digest())
    print(found.hexdigest())
"""
OPENED = OURS.replace("slide_digests(path, ", "bool(")


def write_slide(path: Path, gb: float) -> None:
    """Level 0 and one smaller level; the tiles are noise, so that they are as large as tissue at 0.25 µm/px."""
    random = np.random.default_rng(1)
    tiles = []
    for _ in range(64):
        coarse = random.integers(60, 230, (TILE_PX // 4, TILE_PX // 4, 3), np.uint8)
        fine = np.kron(coarse, np.ones((4, 4, 1), np.uint8)) + random.integers(0, 24, (TILE_PX, TILE_PX, 3), np.uint8)
        tiles.append(imagecodecs.jpeg8_encode(fine, level=80))
    side = round((gb * 1e9 / np.mean([len(tile) for tile in tiles])) ** 0.5)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number in (side, side // 2):
            writer.write(
                (tiles[place % 64] for place in range(number * number)),
                shape=(number * TILE_PX, number * TILE_PX, 3), dtype="uint8", tile=(TILE_PX, TILE_PX), compression=7,
                photometric="ycbcr", metadata=None, subfiletype=0 if number == side else 1,
                resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
            )  # fmt: skip


def main() -> None:
    """Write the slide, run the three in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    slide = options.folder / f"noise-{options.gb:g}gb.tif"
    if not slide.exists():
        write_slide(slide, options.gb)
    commands = {
        "sha256sum, of the file alone": ["sha256sum", str(slide)],
        "both digests, one pass": [sys.executable, "-c", OURS, str(slide)],
        "both digests, two passes": [sys.executable, "-c", TWO_PASSES, str(slide)],
        "only importing and opening": [sys.executable, "-c", OPENED, str(slide)],
    }
    found: dict[str, list[Ran]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, words in commands.items():
            ran = run(words)
            assert ran.status == 0, ran.last
            found[name].append(ran)
    size = slide.stat().st_size / 1e9
    print(f"{size:.2f} GB")
    print(f"{'':32}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'GB/s':>7}{'ratio':>7}")
    base = statistics.median(ran.wall_s for ran in found["sha256sum, of the file alone"])
    for name, runs in found.items():
        wall, cpu, peak = (
            statistics.median(getattr(ran, field) for ran in runs) for field in ("wall_s", "cpu_s", "peak_mb")
        )
        print(f"{name:32}{wall:8.2f}{cpu:8.2f}{peak:9.0f}{size / wall:7.2f}{wall / base:7.2f}")


if __name__ == "__main__":
    main()
