"""libvips warping a whole slide, run by the interpreter of its own environment.

    FOLDER/bin/python vips_warp.py SLIDE OUT.tif TRANSFORM.npz [--quality 90]

TRANSFORM.npz: `affine` (2, 3) from px of the canvas to px of the slide, `field` (h, w, 2) further px on a grid of
`grid_px` over the canvas, `size` of the canvas. Px centres lie at halves, a node of the grid in the middle of its cell.
The coordinates of every px of the canvas are libvips images too, `mapim` looks them up with bilinear weights and one
tiled JPEG level is written, without the further levels that a viewer would want. The last line is JSON: its bytes.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    """Warp the slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("slide", "out", "transform"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--quality", type=int, default=90)
    options = parser.parse_args()
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    import numpy as np
    import pyvips

    given = np.load(options.transform)
    (a, b, left), (c, d, top) = given["affine"].tolist()
    width, height = map(int, given["size"])
    at = pyvips.Image.xyz(width, height) + 0.5
    x, y = at[0], at[1]
    x, y = x * a + y * b + (left - 0.5), x * c + y * d + (top - 0.5)
    field = pyvips.Image.new_from_array(np.ascontiguousarray(given["field"], np.float32))
    shift = field.resize(float(given["grid_px"]), kernel="linear").crop(0, 0, width, height)
    index = x.bandjoin(y) + shift
    slide = pyvips.Image.new_from_file(str(options.slide))
    if slide.bands > 3:
        slide = slide[:3]
    warped = slide.mapim(index, interpolate=pyvips.Interpolate.new("bilinear"), background=255, extend="background")
    warped.tiffsave(
        str(options.out),
        compression="jpeg",
        Q=options.quality,
        tile=True,
        tile_width=512,
        tile_height=512,
        bigtiff=True,
    )
    print(json.dumps({"bytes": options.out.stat().st_size}))


if __name__ == "__main__":
    main()
