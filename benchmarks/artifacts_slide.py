"""What the default filters drop of one IHC slide, drawn on its overview: a picture to look at, with counts by reason.

    python benchmarks/artifacts_slide.py SLIDE --mpp 4 --tile-px 64 --picture overlay.png [--min-tissue 0]
        [--without blur_ihc doubling_ihc]

The slide stands for both stains of a pair, so what compares the two says nothing and is left out; limits are those of
the IHC. Each cell has the colour of the first filter that it fails, kept ones a thin green frame. `--min-tissue 0`
judges the glass as well, as if the tissue mask had let everything through. The picture holds tissue: keep it apart.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from hepipe.cli.measuring import case_measures, found_stains
from hepipe.quality.verdict import filter_names, grade
from hepipe.slides.open import open_slide
from hepipe.specs.quality import QualitySpec
from hepipe.specs.slides import TissueSpec
from hepipe.specs.stains import StainsSpec
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import TissueMasks
from hepipe.stores.cases import CaseStains
from hepipe.stores.provenance import Provenance
from hepipe.tiling.keep import keep_cells
from hepipe.tiling.sample import overview_pixels, tissue_pixels
from hepipe.tissue.find import find_tissue

COLORS = (
    (230, 25, 75), (0, 90, 200), (245, 130, 48), (145, 30, 180), (0, 160, 160), (240, 50, 230), (128, 100, 0),
    (120, 0, 0), (90, 140, 0), (0, 0, 0), (250, 190, 0), (110, 110, 110),
)  # fmt: skip
KEPT = (40, 150, 60)
PICTURE_PX = 1600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp", type=float, required=True, help="µm per px of level 0")
    parser.add_argument("--tile-px", type=int, default=64)
    parser.add_argument("--min-tissue", type=float, default=TilingSpec().min_tissue_frac)
    parser.add_argument("--section", choices=("restained", "consecutive"), default="consecutive")
    parser.add_argument("--without", nargs="*", default=[], help="filters to leave out, such as blur_ihc")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="CSV of each cell, its place in px of level 0 and what it fails")
    given = parser.parse_args()

    slide = open_slide(given.slide, slide_id="slide-ihc", mpp=given.mpp)
    tiling = TilingSpec(mpp=given.mpp, tile_px=given.tile_px, min_tissue_frac=given.min_tissue)
    staining = StainsSpec()
    provenance = Provenance(artefact="stains", subject="slide", spec=staining.model_dump(mode="json"))
    overview, mpp = slide.overview(max_px=round(max(slide.size_px0) * slide.mpp / TissueSpec().mpp))
    tissue = TissueMasks(provenance, find_tissue(overview, mpp=mpp, spec=TissueSpec()), mpp)
    pixels = tissue_pixels(slide, tissue, count=staining.sample_tiles, fixed_mpp=slide.mpp)
    stains = {name: found_stains(pixels, overview_pixels(slide), name, staining) for name in ("he", "ihc")}
    record = CaseStains(case_id="slide", provenance=provenance, **stains)
    measures, _ = case_measures(record, given.section)
    cells = [cell for cell, _ in keep_cells(slide, tissue, tiling, case_id="slide").cells]
    cv2.setNumThreads(1)
    tiles = []
    for cell in cells:
        rgb = slide.read(cell.box_px0, mpp=given.mpp, size=(given.tile_px, given.tile_px))
        measured: dict[str, float] = {}
        for measure in measures:
            measured.update(measure(rgb, rgb, given.mpp))
        name = f"{cell.column}-{cell.row}"
        tiles.append({"tile_id": name, "section": given.section, "problem": "", "measurements": measured})
    limits = QualitySpec().limits_of(given.section)
    one = {name: limit.model_dump() for name, limit in limits.items() if name.endswith("_ihc") and "frac" not in name}
    one |= {name: limits[name].model_dump() for name in limits if name.endswith("_frac_ihc") and "outside" not in name}
    one = {name: limit for name, limit in one.items() if name not in {"lost_frac_ihc", *given.without}}
    spec = QualitySpec.model_validate({"limits": {given.section: one}, "alignment": {"drop": []}})
    verdicts = grade(tiles, spec)

    first = Counter(row["reason"] for row in verdicts)
    fail = Counter(name for row in verdicts for name in row["flags"])
    print(f"{len(cells)} cells, {first['']} kept")
    for name in filter_names(spec, given.section):
        print(f"{name:24} limit {one[name]} first {first[name]:4} fail {fail[name]:4}")

    if given.table is not None:
        with given.table.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("x_px0", "y_px0", "flags"))
            for cell, row in zip(cells, verdicts, strict=True):
                rows.writerow((int(cell.box_px0.x), int(cell.box_px0.y), " ".join(row["flags"])))

    factor = PICTURE_PX / max(slide.size_px0)
    drawn, _ = slide.overview(max_px=PICTURE_PX)
    drawn = np.ascontiguousarray(drawn)
    names = [name for name, _ in first.most_common() if name]
    for cell, row in zip(cells, verdicts, strict=True):
        box = cell.box_px0
        corners = [round(value * factor) for value in (box.x, box.y, box.right, box.bottom)]
        left, top, right, bottom = (max(0, value) for value in corners)
        if row["keep"]:
            cv2.rectangle(drawn, (left + 1, top + 1), (right - 2, bottom - 2), KEPT, 1)
            continue
        color = COLORS[names.index(row["reason"]) % len(COLORS)]
        area = drawn[top:bottom, left:right]
        area[:] = (0.7 * area + 0.3 * np.array(color)).astype(np.uint8)
        cv2.rectangle(drawn, (left + 1, top + 1), (right - 2, bottom - 2), color, 2)
    for place, name in enumerate(names):
        at = (drawn.shape[1] // 2 - 60, 30 + 24 * place)
        text = f"{name} {first[name]}"
        cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.7, COLORS[place % len(COLORS)], 2, cv2.LINE_AA)
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(given.picture), drawn[..., ::-1])


if __name__ == "__main__":
    main()
