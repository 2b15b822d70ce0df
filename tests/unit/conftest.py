from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, write_table
from hepipe.stores.tiles import TileWriter

MakeIndex = Callable[..., Path]


def made_index(
    parent: Path,
    counts: Mapping[str, int],
    *,
    tile_px: int = 16,
    mpp: float = 0.5,
    masks: bool = True,
    score: str | None = "2+",
    folder: str = "set",
) -> Path:
    """Write a data set: tiles whose IHC is the H&E with inverted colours, so that there is something to learn."""
    random = np.random.default_rng(5)
    root = parent / folder
    arrays = {"he": 3, "ihc": 3} | ({"dab_mask": 0} if masks else {})
    rows = []
    made = Provenance(artefact="tiles", subject="c")
    with TileWriter(root / "tiles" / "c.zarr", made, mpp=mpp, tile_px=tile_px, arrays=arrays) as writer:
        for split, count in counts.items():
            for number in range(count):
                colour = random.integers(40, 216, size=3)
                he = np.clip(colour + random.integers(-40, 41, size=(tile_px, tile_px, 3)), 0, 255).astype(np.uint8)
                tiles = {"he": he, "ihc": 255 - he}
                if masks:
                    tiles["dab_mask"] = he[..., 0] > colour[0]
                row = writer.add(**tiles)
                rows.append(
                    {
                        "tile_id": f"{split}/{number:03d}",
                        "case_id": "c",
                        "patient_id": "p",
                        "row_in_store": row,
                        "x_px0": 0,
                        "y_px0": 0,
                        "canvas_x_px0": 0,
                        "canvas_y_px0": 0,
                        "mpp": mpp,
                        "her2_score": score,
                        "marker": "HER2",
                        "section": "restained",
                        "source_split": None,
                        "tissue_frac": 1.0,
                        "region": "",
                        "place": "inside",
                        "slide_id": None,
                        "batch": None,
                        "score_level": "slide",
                        "source_set": "",
                        "source_name": "",
                        "warped_stain": "ihc",
                        "he_phash": None,
                        "ihc_phash": None,
                        "problem": "",
                        "he_sha256": "",
                        "ihc_sha256": "",
                        "measurements": {},
                        "store": "tiles/c.zarr",
                        "split": split,
                        "alignment": "aligned",
                        "he_reader": None,
                        "ihc_reader": None,
                        "fold": None,
                    }
                )
        writer.finish()
    index = root / "index.parquet"
    write_table(rows, index, INDEX, Provenance(artefact="index", subject="set"))
    return index


@pytest.fixture
def make_index(tmp_path: Path) -> MakeIndex:
    """A factory of data sets in the test's own folder."""
    return partial(made_index, tmp_path)


@pytest.fixture(scope="session")
def make_index_in() -> MakeIndex:
    """A factory of data sets in a folder that several tests share, given first."""
    return made_index
