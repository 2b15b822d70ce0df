"""hs2p on one slide, run by the interpreter of its own environment.

    FOLDER/bin/python hs2p_run.py SLIDE OUT [--tile-px 1024] [--mpp 0.25] [--min-tissue 0.5] [--quality 90]

Its own mask (the default `hsv`), a grid, and a tar of JPEG files in the folder OUT, by its functions as its guide calls
them: libvips reads, one worker, Pillow encodes (its default). The last line is JSON: kept tiles, bytes of the tar.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Cut the slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tile-px", type=int, default=1024)
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--min-tissue", type=float, default=0.5)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--backend", default="vips")
    options = parser.parse_args()
    import dataclasses

    import hs2p
    from hs2p.api import extract_tiles_to_tar

    tiling = hs2p.TilingConfig(
        backend=options.backend,
        requested_spacing_um=options.mpp,
        requested_tile_size_px=options.tile_px,
        tolerance=0.05,
        overlap=0.0,
    )
    masks = dataclasses.replace(hs2p.DEFAULT_MASK_SAMPLING, min_coverage={"tissue": options.min_tissue})
    result = hs2p.tile_slide(
        hs2p.SlideSpec(sample_id="slide", image_path=options.slide),
        tiling=tiling,
        segmentation=hs2p.SegmentationConfig(method="hsv"),
        masks=masks,
    )
    hs2p.save_tiling_result(result, output_dir=options.out)
    tar, kept = extract_tiles_to_tar(result, options.out, jpeg_quality=options.quality, num_workers=1)
    print(json.dumps({"tiles": len(kept.x), "bytes": tar.stat().st_size}))


if __name__ == "__main__":
    main()
