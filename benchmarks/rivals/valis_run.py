"""VALIS on one pair of pictures, run by the interpreter of its own environment.

    FOLDER/bin/python valis_run.py HE IHC POINTS.csv OUT.csv

POINTS.csv has columns x,y: px of the H&E picture; OUT.csv the same points on the IHC picture. The defaults of
`registration.Valis(...).register()`, the H&E picture as reference. VALIS 1.2 fetches the weights of its default matcher
(DISK and LightGlue) while it is imported, and Bio-Formats while it reads. Without a network `--offline` takes the VGG
descriptor and RANSAC by which it sorts slides and by which VALIS 1.0 also placed them; the table names that.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from pathlib import Path


def main() -> None:
    """Register and move the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("he", "ihc", "points", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--offline", action="store_true", help="VGG and RANSAC in place of DISK and LightGlue")
    options = parser.parse_args()
    if options.offline:
        _no_download()
    import numpy as np
    from valis import registration, slide_io

    given = {}
    if options.offline:
        given = {"matcher": registration.DEFAULT_MATCHER_FOR_SORTING}
        # It would ask Bio-Formats, which is fetched, about formats that a picture reader opens.
        slide_io.BF_READABLE_FORMATS = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "slides")
        source.mkdir()
        he, ihc = (source / f"{name}{path.suffix}" for name, path in (("he", options.he), ("ihc", options.ihc)))
        shutil.copy(options.he, he)
        shutil.copy(options.ihc, ihc)
        register = registration.Valis(
            str(source), str(Path(folder, "out")), reference_img_f=str(he), image_type="brightfield", **given
        )
        # The reader that it would choose itself needs Java packages, which it fetches too.
        _, _, error = register.register(reader_cls=slide_io.ImageReader)
        if error is None:
            raise SystemExit("VALIS could not register the pair; its own message stands above")
        with options.points.open(newline="") as file:
            points = np.array([[float(row["x"]), float(row["y"])] for row in csv.DictReader(file)])
        moved = register.get_slide(str(he)).warp_xy_from_to(points, register.get_slide(str(ihc)))
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y"])
        writer.writerows(np.asarray(moved).tolist())


def _no_download() -> None:
    """Let VALIS be imported without its default weights, which `--offline` does not use."""
    import kornia
    import torch

    class Nothing(torch.nn.Module):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__()

    kornia.feature.DISK.from_pretrained = classmethod(lambda cls, *_, **__: Nothing())
    kornia.feature.LightGlueMatcher = Nothing


if __name__ == "__main__":
    main()
