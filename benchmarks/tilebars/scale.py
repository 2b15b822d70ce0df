"""What a set of HER2match's size takes, from the rates of one slide pair's tiles measured here.

    python benchmarks/tilebars/scale.py HE IHC TRANSFORM.npz [--tiles 48] [--canvas SPARSE]

A child of its own: prints JSON, CPU seconds and bytes per pair of tiles by step.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLIDES, PAIRS, CURATED = 34, 36_209, 21_172
TILE_PX, MPP = 1024, 0.25
CODECS: Mapping[str, Mapping[str, Any]] = {
    "greendelta": {"codec": "greendelta"},
    "jxl": {"codec": "jxl"},
    "zstd": {"codec": "zstd"},
    "jpeg 90": {"codec": "jpeg", "quality": 90},
    "raw": {"codec": "raw"},
}
READERS = ("direct", "openslide")


@dataclass(frozen=True)
class Rates:
    """CPU seconds and bytes of one pair of tiles of 1024 px.

    Attributes:
        read: H&E and warped IHC read, by reader.
        hash: Both tiles.
        encode: Both tiles, by codec.
        size: Bytes of both, by codec.
        mask: Tissue of one whole slide.
        tiles: How many pairs were measured.
    """

    read: Mapping[str, float]
    hash: float
    encode: Mapping[str, float]
    size: Mapping[str, float]
    mask: float
    tiles: int


@dataclass(frozen=True)
class Projected:
    """Of one codec.

    Attributes:
        core_h: By reader.
        size: Bytes of all pairs.
        curated: Bytes of the curated ones.
    """

    core_h: Mapping[str, float]
    size: float
    curated: float


def project(rates: Rates, codec: str, *, slides: int = SLIDES, pairs: int = PAIRS, curated: int = CURATED) -> Projected:
    """A whole set, without registration and the measurements of quality."""
    each = rates.hash + rates.encode[codec]
    hours = {name: (pairs * (each + read) + slides * rates.mask) / 3600 for name, read in rates.read.items()}
    return Projected(hours, pairs * rates.size[codec], curated * rates.size[codec])


def lines(rates: Rates) -> list[str]:
    """A table in Markdown, as the docs show it."""
    rows = [f"| codec | {' | '.join(f'core-h, {name}' for name in rates.read)} | store | MB a pair | curated |"]
    rows.append("| --- " * (len(rates.read) + 4) + "|")
    for codec in rates.encode:
        found = project(rates, codec)
        hours = " | ".join(f"{found.core_h[name]:.2f}" for name in rates.read)
        rows.append(
            f"| `{codec}` | {hours} | {found.size / 1e9:.0f} GB | {rates.size[codec] / 1e6:.2f} "
            f"| {found.curated / 1e9:.0f} GB |"
        )
    return rows


def measure(table: Any, he: Path, ihc: Path, transform: Path, canvas: Path | None) -> None:
    """The rows of this bar, and the table for the docs."""
    from bars.child import run
    from tilebars.rivals import said

    words = [str(he), str(ihc), str(transform), *(() if canvas is None else ("--canvas", str(canvas)))]
    ran = run([sys.executable, str(Path(__file__)), *words])
    found = said(ran)
    name = f"HER2match's scale: {SLIDES} slides, {PAIRS:,} pairs of {TILE_PX} px"
    if not found:
        table.add(name, f"exit {ran.status}: {ran.last[:160]}", "a projection", False)
        return
    rates = Rates(**found)
    for codec in rates.encode:
        one = project(rates, codec)
        hours = ", ".join(f"{one.core_h[reader]:.2f} core-h ({reader})" for reader in rates.read)
        table.add(f"{name}, {codec}", f"{hours}, {one.size / 1e9:.0f} GB")
    print("\n".join(["", *lines(rates), ""]), flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("he", "ihc", "transform"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--tiles", type=int, default=48)
    parser.add_argument("--canvas", type=Path, help="the slide whose mask is timed; HE when not given")
    given = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    print(json.dumps(vars(rates_of(given.he, given.ihc, given.transform, given.canvas or given.he, given.tiles))))


def rates_of(he: Path, ihc: Path, transform: Path, canvas: Path, count: int) -> Rates:
    """Rates of the library's own functions on `count` kept cells in reading order."""
    from tilebars.ours import both, cutter, kept_cells, transform_of

    from hepipe.slides.open import closing, open_slide
    from hepipe.specs.tiling import StoreSpec, TilingSpec
    from hepipe.stores.arrays import content_digest
    from hepipe.stores.tiles import codec_for

    spec = TilingSpec(mpp=MPP, tile_px=TILE_PX, min_tissue_frac=0.5)
    timer = Timer()
    whole = open_slide(canvas, slide_id="bar-he", reader=READERS[0])
    with closing(whole):
        timer("mask", lambda: kept_cells(whole, spec, share=None))
    pairs: list[dict[str, Any]] = []
    for reader in READERS:
        slides = [
            open_slide(path, slide_id=f"bar-{stain}", reader=reader) for path, stain in ((he, "he"), (ihc, "ihc"))
        ]
        with closing(*slides):
            read = both(cutter(slides[0], spec), slides[1], transform_of(transform, slides[1].mpp), spec)
            cells = kept_cells(slides[0], spec, share=None)[:count]
            pairs = []
            for cell, _ in cells:
                found = timer(reader, functools.partial(read, cell))
                pairs.append({name: tile.copy() for name, tile in found.items()})
    sizes = dict.fromkeys(CODECS, 0)
    codecs = {name: codec_for(StoreSpec(**settings)) for name, settings in CODECS.items()}
    for pair in pairs:
        for tile in pair.values():
            timer("hash", functools.partial(content_digest, tile))
            for name, codec in codecs.items():
                sizes[name] += len(timer(name, functools.partial(codec.encode, tile)))
    spent = {name: seconds / len(pairs) for name, seconds in timer.spent.items()}
    return Rates(
        read={name: spent[name] for name in READERS},
        hash=spent["hash"],
        encode={name: spent[name] for name in CODECS},
        size={name: size / len(pairs) for name, size in sizes.items()},
        mask=timer.spent["mask"],
        tiles=len(pairs),
    )


class Timer:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns, its time added up."""
        began = time.process_time()
        done = work()
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - began
        return done


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a file, it finds only what lies beside it
    main()
