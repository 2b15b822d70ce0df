"""A tile set into the store with its files as they are and as pixels, against Pillow decoding it and writing PNG.

    python benchmarks/imports.py FOLDER [--tiles SET] [--pairs 60] [--runs 3] [--listed 21172]

A set in BCI's layout is written into FOLDER from the pictures of SET/HE and SET/IHC (or SET/HER2), each several times,
or from drawn ones. Every row is the median of its runs, which take turns; each run is a process of its own, on one
thread. The ratio is that of CPU seconds to Pillow's. A set of HER2match's size, of links to one picture, is opened too.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import sys
from pathlib import Path

import imagecodecs
import numpy as np
from bars.child import Ran, run
from PIL import Image

SIDE_PX = 1024
LEVELS = ("0", "1+", "2+", "3+")
DECODE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
print(sum(np.asarray(Image.open(path)).size for path in sorted(Path(sys.argv[1]).rglob("*.png"))))
"""
OPEN = """
import sys
from pathlib import Path
from hepipe.importers.kinds import open_set
from hepipe.importers.tileset import Inputs
from hepipe.specs.imports import ImportSpec
print(len(open_set(Path(sys.argv[2]), ImportSpec(kind=sys.argv[1]), Inputs()).pairs))
"""


def drawn(seed: int) -> bytes:
    """A JPEG about as large as one of tissue."""
    random = np.random.default_rng(seed)
    coarse = random.integers(60, 230, (SIDE_PX // 4, SIDE_PX // 4, 3), np.uint8)
    fine = np.kron(coarse, np.ones((4, 4, 1), np.uint8)) + random.integers(0, 24, (SIDE_PX, SIDE_PX, 3), np.uint8)
    return bytes(imagecodecs.jpeg8_encode(fine, level=80))


def write_set(folder: Path, source: Path | None, pairs: int) -> None:
    """A set in BCI's layout, a fifth of it test."""
    sides: dict[str, list[bytes]] = {"HE": [drawn(1), drawn(2)], "IHC": [drawn(3), drawn(4)]}
    if source is not None:
        folders = {"HE": source / "HE", "IHC": source / ("IHC" if (source / "IHC").is_dir() else "HER2")}
        sides = {name: [path.read_bytes() for path in sorted(place.glob("*.*"))] for name, place in folders.items()}
    for name, files in sides.items():
        for number in range(pairs):
            split = "test" if number % 5 == 4 else "train"
            path = folder / name / split / f"{number:05d}_{split}_{LEVELS[number % 4]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[number % len(files)])


def write_links(folder: Path, picture: bytes, pairs: int) -> None:
    """A set in HER2match's layout, all of whose names are links to one file."""
    folder.mkdir(parents=True)
    (folder / "one").write_bytes(picture)
    for name in ("HE", "IHC"):
        (folder / name / "train").mkdir(parents=True)
        for number in range(pairs):
            os.link(
                folder / "one", folder / name / f"train/wsi005_id{number}_x{1024 * (number // 99)}_y{number % 99}.jpg"
            )
    (folder / "one").unlink()


def as_png(folder: Path) -> int:
    """Bytes of the set's pixels in PNG, as Pillow writes it."""
    total, known = 0, {}
    for path in sorted(folder.rglob("*.png")):
        content = path.read_bytes()
        if content not in known:
            file = io.BytesIO()
            Image.open(path).save(file, "PNG")
            known[content] = file.tell()
        total += known[content]
    return total


def bytes_below(folder: Path) -> int:
    """Of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Write the sets, run all in turns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiles", type=Path)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--listed", type=int, default=21172)
    options = parser.parse_args()
    tiles, links = options.folder / "set", options.folder / "links"
    for old in (tiles, links):
        shutil.rmtree(old, ignore_errors=True)
    write_set(tiles, options.tiles, options.pairs)
    write_links(links, next(tiles.rglob("*.png")).read_bytes(), options.listed)
    hepipe = [sys.executable, "-m", "hepipe", "import", "bci", str(tiles), "--out"]
    outs = {name: options.folder / name for name in ("original", "pixels")}
    commands = {
        "Pillow decodes the set": [sys.executable, "-c", DECODE, str(tiles)],
        "opened": [sys.executable, "-c", OPEN, "bci", str(tiles)],
        "imported, files as they are": [*hepipe, str(outs["original"]), "--spec", '{"keep": "original"}'],
        "imported, pixels": [*hepipe, str(outs["pixels"]), "--spec", '{"keep": "pixels"}'],
        f"{options.listed:,} pairs opened": [sys.executable, "-c", OPEN, "her2match", str(links)],
    }
    found: dict[str, list[Ran]] = {name: [] for name in commands}
    for _ in range(options.runs):
        for name, words in commands.items():
            ran = run(words)
            assert ran.status == 0, ran.last
            found[name].append(ran)
    base = statistics.median(ran.cpu_s for ran in found["Pillow decodes the set"])
    print(f"{options.pairs} pairs of {SIDE_PX} px\n{'':32}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'ratio':>8}")
    for name, runs in found.items():
        wall, cpu, peak = (
            statistics.median(getattr(ran, key) for ran in runs) for key in ("wall_s", "cpu_s", "peak_mb")
        )
        print(f"{name:32}{wall:8.1f}{cpu:8.1f}{peak:9.0f}{cpu / base:8.1f}")
    size = bytes_below(tiles)
    sizes = {"the set's files": size, "their pixels in PNG": as_png(tiles)}
    for name, out in outs.items():
        store = out / "tiles/imported.zarr"
        sizes[f"store, {name}"] = bytes_below(store / "he") + bytes_below(store / "ihc")
    print(f"\n{'':32}{'MB':>8}{'ratio':>8}")
    for name, nbytes in sizes.items():
        print(f"{name:32}{nbytes / 1e6:8.1f}{nbytes / size:8.2f}")


if __name__ == "__main__":
    main()
