"""The real BCI pairs and DeepLIIF panels, which are no part of the repository."""

import numpy as np
import pytest
from PIL import Image

from hepipe.importers.kinds import open_set
from hepipe.importers.tileset import Inputs
from hepipe.specs.imports import ImportSpec
from hepipe.stores.tiles import TileStore

pytestmark = pytest.mark.real


def test_real_bci_pairs_keep_their_bytes_and_pixels(data_dir, rows_of, tmp_path):
    folder = data_dir / "tiles-bci-he-her2"
    tiles = open_set(folder, ImportSpec(kind="bci", ihc="HER2"), Inputs())
    rows = rows_of(tiles, "bci")
    assert [(row["tile_id"], row["her2_score"], row["mpp"]) for row in rows] == [
        ("test/00345_test_0", "0", 0.46),
        ("test/00820_test_2+", "2+", 0.46),
        ("test/00901_test_1+", "1+", 0.46),
    ]
    store = TileStore(tmp_path / "t.zarr")
    for row in rows:
        for stain, name in (("he", "HE"), ("ihc", "HER2")):
            file = folder / name / f"{row['source_name']}.png"
            assert store.chunk(stain, row["row_in_store"]).endswith(file.read_bytes())
            np.testing.assert_array_equal(store.read(stain, row["row_in_store"]), np.array(Image.open(file)))


def test_real_quarters_put_together_are_the_tile(data_dir, rows_of, tmp_path):
    folder = data_dir / "tiles-bci-he-her2"
    rows = rows_of(open_set(folder, ImportSpec(kind="bci", ihc="HER2", quarter=True), Inputs()), "bci", quarter=True)
    store = TileStore(tmp_path / "t.zarr")
    parts = [store.read("ihc", row["row_in_store"]) for row in rows[:4]]
    whole = np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])
    np.testing.assert_array_equal(whole, np.array(Image.open(folder / "HER2" / "00345_test_0.png")))


def test_real_panels_side_by_side_come_apart(data_dir, rows_of, root, tmp_path):
    with Image.open(data_dir / "tiles-deepliif-ki67/sixpanel/Lung1.png") as found:
        panels = np.array(found.convert("RGB"))
    root.mkdir()
    Image.fromarray(np.hstack([panels[:, 512:1024], panels[:, :512]])).save(root / "Lung1.png")
    tiles = open_set(root, ImportSpec(kind="aligned", mpp=0.25, marker="Ki67"), Inputs())
    (row,) = rows_of(tiles, "aligned", mpp=0.25, marker="Ki67")
    store = TileStore(tmp_path / "t.zarr")
    np.testing.assert_array_equal(store.read("he", row["row_in_store"]), panels[:, 512:1024])
    np.testing.assert_array_equal(store.read("ihc", row["row_in_store"]), panels[:, :512])
