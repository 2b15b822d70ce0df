"""Tiles of 1,024 px read as hepipe reads them, against openslide-python; and the scanner's own JPEGs passed through.

    python benchmarks/tilebars/reading.py SLIDE

A child of its own for each slide: prints JSON. Orders are

    scan     the grid row by row from the first tile on, decoded neighbours kept; of a large slide a part in its middle
    random   places drawn at random; both forget their decoded tiles before each, which a large slide would push out
    passing  the compressed tiles of the random, aligned places, packed for a store

each aligned to the source tiles and off them. Both readers return the same pixels, which is looked at first. Their CPU
seconds are sums over the places, of each the least of several rounds, the two readers in turn.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TILE_PX, ROUNDS = 1024, 9
OFF_PX = (77, 45)
COLUMNS, ROWS, RANDOM = 8, 5, 32
SCAN, ALIGNED, RANDOM_ALIGNED, PASSED = 0.22, 0.25, 0.38, 0.08
OPENSLIDE_CACHE = 32 << 20
"""Its default."""

Place = tuple[int, int]


def measure(table: Any, slides: Sequence[Path]) -> None:
    """The rows of these slides."""
    from bars.child import run
    from tilebars.rivals import said

    for slide in slides:
        ran = run([sys.executable, str(Path(__file__)), str(slide)])
        found = said(ran)
        if not found:
            table.add(f"reading {slide.name}", f"exit {ran.status}: {ran.last[:160]}", "figures", False)
            continue
        side = found["tile"]
        about = f"{slide.name}, {side}-px {found['color']} JPEG"
        bars = {
            "scan, aligned": SCAN,
            "scan, off the tiles": SCAN,
            "random, aligned": ALIGNED if side == 256 else RANDOM_ALIGNED,
            "random, off the tiles": RANDOM_ALIGNED,
            "passing": PASSED,
        }
        for order, (ours, theirs, count) in found["orders"].items():
            what = "scanner's JPEGs passed through" if order == "passing" else f"1024-px tiles, {order}"
            table.add(
                f"{what} : openslide-python ({about})",
                f"CPU {ours / theirs:.3f} ({1e3 * ours / count:.2f} : {1e3 * theirs / count:.1f} ms of {count})"
                + ("" if order == "passing" else ", pixels identical"),
                f"≤ {bars[order]:.2f}",
                ours / theirs <= bars[order],
            )


def main() -> None:
    """Measure one slide."""
    import openslide

    from hepipe.slides.direct import DirectSlide
    from hepipe.slides.openslide import OpenSlideSlide
    from hepipe.slides.parity import difference

    path = Path(sys.argv[1])
    slide = DirectSlide(path, slide_id="bars-he", mpp=0.25)
    differs = difference(slide, OpenSlideSlide(path, slide_id="bars-he", mpp=0.25))
    if differs:
        raise SystemExit(differs)
    across, down = slide.grids[0].tile
    orders: dict[str, tuple[float, float, int]] = {}
    for order, places in orders_of(slide.level_sizes[0], (across, down)).items():
        same(slide, openslide.OpenSlide(path), places[:6])
        passing = order == "passing"

        def ours(places: Sequence[Place] = places, order: str = order) -> list[float]:
            reader = DirectSlide(path, slide_id="bars-he", mpp=0.25)
            work = packed(reader) if order == "passing" else read(reader)
            seconds = timed(work, places, None if order.startswith("scan") else reader.tiles.clear)
            reader.close()
            return seconds

        def theirs(places: Sequence[Place] = places, order: str = order) -> list[float]:
            with openslide.OpenSlide(path) as reader:

                def forget(reader: Any = reader) -> None:
                    reader.set_cache(openslide.OpenSlideCache(OPENSLIDE_CACHE))

                def work(at: Place, reader: Any = reader) -> object:
                    return np.asarray(reader.read_region(at, 0, (TILE_PX, TILE_PX)))

                return timed(work, places, None if order.startswith("scan") else forget)

        if passing and (TILE_PX % across or TILE_PX % down):
            continue
        rounds = [(ours(), theirs()) for _ in range(ROUNDS)]
        mine, other = (float(np.min([both[k] for both in rounds], axis=0).sum()) for k in (0, 1))
        orders[order] = (mine, other, len(places))
    print(json.dumps({"tile": across, "color": slide.grids[0].color, "orders": orders}))


def orders_of(size: tuple[int, int], tile: tuple[int, int]) -> dict[str, list[Place]]:
    """Corners of the tiles to read, by order."""
    rng = np.random.default_rng(1)
    free = [side - TILE_PX for side in size]
    drawn = [(int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))) for _ in range(RANDOM)]
    aligned = [(x // tile[0] * tile[0], y // tile[1] * tile[1]) for x, y in drawn]
    return {
        "scan, aligned": scan(size, (0, 0)),
        "scan, off the tiles": scan(size, OFF_PX),
        "random, aligned": aligned,
        "random, off the tiles": drawn,
        "passing": aligned,
    }


def scan(size: tuple[int, int], first: Place) -> list[Place]:
    """A grid row by row; the part in the middle where there is more than `COLUMNS` by `ROWS`."""
    counts = [(side - start) // TILE_PX for side, start in zip(size, first, strict=True)]
    columns, rows = (min(count, most) for count, most in zip(counts, (COLUMNS, ROWS), strict=True))
    left, top = ((count - part) // 2 for count, part in zip(counts, (columns, rows), strict=True))
    return [
        (first[0] + TILE_PX * (left + column), first[1] + TILE_PX * (top + row))
        for row in range(rows)
        for column in range(columns)
    ]


def read(slide: Any) -> Callable[[Place], object]:
    """How a tile is cut: through the reader's one way in."""
    from hepipe.geometry import Box

    size = (TILE_PX, TILE_PX)
    out = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    return lambda at: slide.read(Box(*at, *size), mpp=slide.mpp, size=size, out=out)


def packed(slide: Any) -> Callable[[Place], object]:
    """How the scanner's JPEGs of a tile are taken."""
    from hepipe.geometry import Box
    from hepipe.tiling.passing import pass_through

    passed = pass_through(slide, [], mpp=slide.mpp, tile_px=TILE_PX)
    if isinstance(passed, str):
        raise SystemExit(passed)
    return lambda at: passed.chunk(Box(*at, TILE_PX, TILE_PX))


def same(slide: Any, truth: Any, places: Sequence[Place]) -> None:
    """Stop where pixels differ, or the JPEGs that are passed through decode to others."""
    work = read(slide)
    grid = slide.grids[0]
    for at in places:
        expected = np.asarray(truth.read_region(at, 0, (TILE_PX, TILE_PX)))[..., :3]
        if not np.array_equal(work(at), expected):
            raise SystemExit(f"pixels differ at {at}")
        if not (TILE_PX % grid.tile[0] or at[0] % grid.tile[0] or at[1] % grid.tile[1]):
            passed = packed(slide)
            out = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
            passed_codec(slide).decode(passed(at), out)
            if not np.array_equal(out, expected):
                raise SystemExit(f"what is passed through differs at {at}")


def passed_codec(slide: Any) -> Any:
    """How a store reads what is passed through."""
    from hepipe.tiling.passing import pass_through

    return pass_through(slide, [], mpp=slide.mpp, tile_px=TILE_PX).codec


def timed(
    work: Callable[[Place], object], places: Sequence[Place], before: Callable[[], object] | None = None
) -> list[float]:
    """CPU seconds of each place."""
    seconds = []
    for at in places:
        if before is not None:
            before()
        began = time.process_time()
        work(at)
        seconds.append(time.process_time() - began)
    return seconds


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a file, it finds only what lies beside it
    main()
