"""Three stores: case a in train, case b in val, and an imported set whose tiles are of case c and of nobody's."""

import numpy as np
import pytest

from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, write_table
from hepipe.stores.tiles import TileWriter

PLAN = {
    "a": [("a", "p1", "train")] * 5,
    "b": [("b", "p1", "val")] * 3,
    "imported": [("c", None, "train"), (None, None, "test"), ("c", None, "test")],
}
"""Store to case, patient and split of each of its tiles."""


def noise(random, store, number, stain):
    """A picture of nothing."""
    return random.integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture
def make_cohort(tmp_path):
    """A factory of indices; gives the index and the tiles by id."""

    def make(*, masks=True, folder="set", plan=PLAN, paint=noise, **changes):
        random = np.random.default_rng(7)
        rows, tiles = [], {}
        for store, cases in plan.items():
            arrays = {"he": 3, "ihc": 3} | ({"dab_mask": 0} if masks else {})
            path = tmp_path / folder / "tiles" / f"{store}.zarr"
            provenance = Provenance(artefact="tiles", subject=store)
            tile_px = len(paint(random, store, 0, "he"))
            with TileWriter(path, provenance, mpp=0.5, tile_px=tile_px, arrays=arrays) as writer:
                for number, (case_id, patient_id, split) in enumerate(cases):
                    pixels = {stain: paint(random, store, number, stain) for stain in ("he", "ihc")}
                    if masks:
                        pixels["dab_mask"] = pixels["ihc"][..., 0] < 40 * (number + 1)
                    writer.add(**pixels)
                    tile_id = f"{store}/{number}"
                    tiles[tile_id] = pixels
                    rows.append(
                        {
                            **dict.fromkeys(INDEX.names, ""),
                            **dict.fromkeys(("x_px0", "y_px0", "canvas_x_px0", "canvas_y_px0"), 0),
                            "tile_id": tile_id,
                            "case_id": case_id,
                            "patient_id": patient_id,
                            "row_in_store": number,
                            "mpp": 0.5,
                            "her2_score": None,
                            "marker": "HER2",
                            "section": "restained",
                            "source_split": None,
                            "tissue_frac": 0.5 + number / 8,
                            "place": "outside" if tile_id == "a/3" else "inside",
                            "slide_id": None,
                            "batch": None,
                            "score_level": "slide",
                            "source_set": "",
                            "source_name": "",
                            "warped_stain": "ihc",
                            "he_phash": None,
                            "ihc_phash": None,
                            "problem": "",
                            "he_sha256": f"{number}",
                            "measurements": {},
                            "store": f"tiles/{store}.zarr",
                            "split": split,
                            "fold": None,
                            "alignment": "aligned",
                            **changes,
                        }
                    )
                writer.finish()
        index = tmp_path / folder / "index.parquet"
        write_table(rows[::-1], index, INDEX, Provenance(artefact="index", subject="set"))
        return index, tiles

    return make
