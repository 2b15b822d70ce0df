"""DAB and haematoxylin of one tile into given buffers, against scikit-image's `rgb2hed`.

    python benchmarks/tilebars/stains.py SLIDE

A child of its own: prints JSON. CPU seconds are the best of several rounds, the two in turn: with buffers that are
still in the processor's cache, as a run of calls leaves them, and with buffers that the other has driven out of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

TILE_PX, ROUNDS, IN_A_ROW = 1024, 30, 5
MAX_RATIO, MAX_APART = 0.10, 1e-5
WHITE = (243.0, 241.0, 238.0)
"""Of an ordinary slide: the constant of the products is then at work."""


def measure(table: Any, slide: Path) -> None:
    """The row of this bar."""
    from bars.child import run
    from tilebars.rivals import said

    ran = run([sys.executable, str(Path(__file__)), str(slide)])
    found = said(ran)
    if not found:
        table.add("DAB and haematoxylin, 1024 px", f"exit {ran.status}: {ran.last[:120]}", "a figure", False)
        return
    table.add(
        "DAB and haematoxylin of a 1024 tile into given buffers : skimage rgb2hed",
        f"CPU {found['ratio']:.3f} ({found['ours_ms']:.2f} : {found['theirs_ms']:.1f} ms; "
        f"{found['cold']:.3f} with cold buffers), "
        f"{found['apart']:.1e} OD from the exact formula",
        f"≤ {MAX_RATIO:.2f} at ≤ {MAX_APART:g} OD",
        found["ratio"] <= MAX_RATIO and found["apart"] <= MAX_APART,
    )


def main() -> None:
    """Measure on the tile in the middle of the slide's tissue."""
    from skimage.color import rgb2hed

    from hepipe.stains.deconvolution import Separator
    from hepipe.stains.matrices import DAB, HAEMATOXYLIN, stain_matrix

    cv2.setNumThreads(1)
    tile = coloured_tile(Path(sys.argv[1]))
    matrix = stain_matrix(HAEMATOXYLIN, DAB)
    separator = Separator(matrix, WHITE)
    out = np.zeros((2, TILE_PX, TILE_PX), np.float32)
    works: list[Callable[[], object]] = [lambda: separator(tile, out), lambda: rgb2hed(tile)]
    cold, of_cold = in_turn(works, rounds=ROUNDS)
    ours, theirs = in_turn(works, rounds=ROUNDS, in_a_row=IN_A_ROW)
    density = -np.log10(np.maximum(tile.astype(np.float64), 1) / np.asarray(WHITE))
    exact = np.maximum(density @ np.linalg.inv(matrix), 0)[..., :2]
    apart = float(np.abs(np.moveaxis(exact, -1, 0) - out).max())
    found = {"ratio": ours / theirs, "ours_ms": 1e3 * ours, "theirs_ms": 1e3 * theirs, "cold": cold / of_cold}
    print(json.dumps({**found, "apart": apart}))


def in_turn(works: list[Callable[[], object]], *, rounds: int, in_a_row: int = 1) -> list[float]:
    """The least CPU seconds of a call of each, in turn so that a busy moment of the machine meets each of them."""
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for place, work in enumerate(works):
            for _ in range(in_a_row):
                began = time.process_time()
                work()
                best[place] = min(best[place], time.process_time() - began)
    return best


def coloured_tile(path: Path) -> np.ndarray:
    """The tile of a grid whose overview is the most coloured."""
    import openslide

    with openslide.OpenSlide(path) as slide:
        side = TILE_PX // 16
        small = np.asarray(slide.get_thumbnail([max(1, n // 16) for n in slide.dimensions]).convert("RGB"))
        colour = cv2.boxFilter(np.ptp(small, axis=2).astype(np.float32), -1, (side, side), anchor=(0, 0))
        colour = colour[: small.shape[0] - side + 1, : small.shape[1] - side + 1]
        y, x = np.unravel_index(int(colour.argmax()), colour.shape)
        corner = (16 * int(x), 16 * int(y))
        return np.ascontiguousarray(np.asarray(slide.read_region(corner, 0, (TILE_PX, TILE_PX)))[..., :3])


if __name__ == "__main__":
    main()
