"""A small data set to curate, written as the pipeline leaves it."""

import hashlib

import numpy as np

from hepipe.specs.quality import QualitySpec
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import TILES, VERDICTS, write_table
from hepipe.stores.tiles import TileWriter

LIMITS = {"blur_he": {"max": 0.75}, "pen_he": {"max": 0.02}}


def write_set(
    folder, cases=("a", "b"), n_tiles=12, tile_px=16, drop=lambda case, number: number % 6 == 5, changes=None
):
    """Tables and stores of a few cases; the H&E of tile n is of the grey 10 + n, its IHC of the brown 200 - n."""
    spec = QualitySpec.model_validate({"limits": {"restained": LIMITS}}).model_dump(mode="json")
    for case in cases:
        rows, verdicts = [], []
        made = Provenance(artefact="tiles", subject=case)
        path = folder / "tiles" / f"{case}.zarr"
        with TileWriter(path, made, mpp=0.5, tile_px=tile_px, arrays={"he": 3, "ihc": 3}) as store:
            for number in range(n_tiles):
                he = np.full((tile_px, tile_px, 3), (10 + number) % 256, np.uint8)
                ihc = np.full((tile_px, tile_px, 3), (200 - number, 150, 90), np.uint8)
                store.add(he=he, ihc=ihc)
                keep = not drop(case, number)
                tile_id = f"{case}/{number}-0"
                shift = np.nan if number == 3 else number / 10
                blur = 0.2 + 0.003 * number if keep else 0.9
                rows.append(
                    {field.name: None if field.nullable else "" for field in TILES}
                    | {
                        "tile_id": tile_id, "case_id": case, "patient_id": f"p{case}", "row_in_store": number,
                        "mpp": 0.5, "her2_score": "2+", "score_level": "slide", "section": "restained",
                        "tissue_frac": 0.5 + number / 100, "place": "inside", "warped_stain": "ihc",
                        "he_sha256": hashlib.sha256(f"{case}{number}".encode()).hexdigest(),
                        "ihc_sha256": hashlib.sha256(ihc.tobytes()).hexdigest(),
                        "measurements": {"blur_he": blur, "pen_he": 0.0, "shift_um": shift},
                    }
                    | (changes or {}).get(tile_id, {})
                )  # fmt: skip
                flags = [] if keep else ["blur_he"]
                verdicts.append(
                    {"tile_id": tile_id, "keep": keep, "reason": "".join(flags), "flags": flags, "alignment": "aligned"}
                )
            store.finish()
        write_table(rows, folder / "tiles" / f"{case}.parquet", TILES, made)
        graded = Provenance(artefact="verdict", subject=case, spec=spec)
        write_table(verdicts, folder / "verdict" / f"{case}.parquet", VERDICTS, graded)
    return folder
