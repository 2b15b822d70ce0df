import numpy as np
import pytest

from hepipe.errors import StoreError
from hepipe.evaluation.pairs import PairedTiles
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, write_table
from hepipe.stores.tiles import TileWriter


def index_row(tile_id, row, split="test"):
    return {
        "tile_id": tile_id,
        "case_id": "C1",
        "patient_id": "P1",
        "row_in_store": row,
        "x_px0": 0,
        "y_px0": 0,
        "canvas_x_px0": 0,
        "canvas_y_px0": 0,
        "mpp": 0.5,
        "her2_score": "1+",
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
        "he_sha256": "a",
        "ihc_sha256": "b",
        "measurements": {},
        "store": "tiles/C1.zarr",
        "split": split,
        "alignment": "aligned",
        "he_reader": None,
        "ihc_reader": None,
        "fold": None,
    }


def write_store(path, artefact, *, side, mpp, **arrays):
    made = Provenance(artefact=artefact, subject="x")
    with TileWriter(path, made, mpp=mpp, tile_px=side, arrays=dict.fromkeys(arrays, 3)) as writer:
        for row in range(len(next(iter(arrays.values())))):
            writer.add(**{name: np.full((side, side, 3), values[row], np.uint8) for name, values in arrays.items()})
        writer.finish()


@pytest.fixture
def results(tmp_path):
    write_store(tmp_path / "tiles" / "C1.zarr", "tiles", side=16, mpp=0.5, he=[10, 11, 12], ihc=[20, 21, 22])
    beside = {**index_row("C1/d", 1), "place": "outside"}
    rows = [index_row("C1/b", 0), index_row("C1/a", 2), index_row("C1/c", 1, "train"), beside]
    write_table(rows, tmp_path / "index.parquet", INDEX, Provenance(artefact="index", subject="d"))
    return tmp_path


def predict(results, ids, values, *, side=16, mpp=0.5):
    path = results / "virtual.zarr"
    made = Provenance(artefact="virtual", subject="r")
    more = {"tile_ids": ids}
    with TileWriter(path, made, mpp=mpp, tile_px=side, arrays={"virtual": 3}, attributes=more) as writer:
        for value in values:
            writer.add(virtual=np.full((side, side, 3), value, np.uint8))
        writer.finish()
    return path


def test_pairs_meet_by_id_whatever_the_order(results):
    path = predict(results, ["C1/b", "C1/a"], [30, 32])
    found = [
        (p.tile_id, p.he[0, 0, 0], p.real[0, 0, 0], p.fake[0, 0, 0])
        for p in PairedTiles(results / "index.parquet", "test", path)
    ]
    assert found == [("C1/a", 12, 22, 32), ("C1/b", 10, 20, 30)]


def test_a_coarser_run_is_compared_at_its_own_resolution(results):
    path = predict(results, ["C1/a", "C1/b"], [1, 2], side=8, mpp=1.0)
    pair = next(iter(PairedTiles(results / "index.parquet", "test", path)))
    assert pair.real.shape == pair.fake.shape == (8, 8, 3)
    assert pair.mpp == 1.0


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["C1/a"], "1 tiles without a prediction.*C1/b"),
        (["C1/a", "C1/b", "C1/x"], "1 tiles predicted that are not.*C1/x"),
    ],
)
def test_tiles_of_one_side_only_are_refused_by_name(results, ids, message):
    with pytest.raises(StoreError, match=message):
        PairedTiles(results / "index.parquet", "test", predict(results, ids, range(len(ids))))


def test_tiles_of_another_area_are_refused(results):
    with pytest.raises(StoreError, match="tiles of 4 µm, those of"):
        PairedTiles(results / "index.parquet", "test", predict(results, ["C1/a", "C1/b"], [1, 2], side=8))
