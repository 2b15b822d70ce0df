import pytest
from small_exports import PLAN, SIDE, mask, pixels, row_of

from hepipe.dataset.card import CardCase, CardSplit, DatasetCard, write_card
from hepipe.specs.tiling import StoreSpec
from hepipe.status import OK
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, write_table
from hepipe.stores.tiles import TileWriter


@pytest.fixture
def make_set(tmp_path):
    def make(plan=PLAN, *, folder="set", warnings=(), codec="greendelta", **changes):
        root = tmp_path / folder
        rows = []
        for store, tiles in plan.items():
            made = Provenance(artefact="tiles", subject=store)
            spec = StoreSpec(codec=codec)
            arrays = {"he": 3, "ihc": 3, "dab_mask": 0}
            path = root / "tiles" / f"{store}.zarr"
            with TileWriter(path, made, mpp=0.5, tile_px=SIDE, arrays=arrays, spec=spec) as writer:
                for number, (tile_id, split) in enumerate(tiles):
                    writer.add(he=pixels(tile_id, "he"), ihc=pixels(tile_id, "ihc"), dab_mask=mask(tile_id))
                    rows.append(row_of(tile_id, store, number, split, **changes))
                writer.finish()
        index = root / "index.parquet"
        write_table(rows, index, INDEX, Provenance(artefact="index", subject=folder))
        card = DatasetCard(
            name=folder,
            fingerprint="f" * 64,
            n_tiles=len(rows),
            n_kept=len(rows),
            cases=(
                CardCase(
                    case_id="c1",
                    patient_id="p1",
                    her2_score="2+",
                    split="train",
                    n_tiles=3,
                    n_kept=3,
                    status=OK,
                ),
            ),
            splits={"train": CardSplit(tiles=3, patients=1, cases=1, by_score={"2+": 1})},
            warnings=tuple(warnings),
            provenance=Provenance(artefact="dataset", subject=folder),
        )
        write_card(root / "dataset.json", card)
        return index

    return make
