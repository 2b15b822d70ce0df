"""Which cells become tiles, with and without outlined regions."""

import numpy as np
import pytest

from hepipe.slides.picture import ArraySlide
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import TissueMasks
from hepipe.stores.provenance import Provenance
from hepipe.tiling.keep import draw, keep_cells
from hepipe.tissue.regions import REGIONS

MADE = Provenance(artefact="tissue", subject="c1")
SPEC = TilingSpec(mpp=1.0, tile_px=32, min_tissue_frac=0.6, outside_frac=1.0)
SIDE = 160
"""Of the slide, px at 1 µm: 5 x 5 tiles; masks have 4 µm a px, so that a tile is 8 x 8 of them."""


def slide(origin=(0, 0)):
    made = ArraySlide(np.zeros((SIDE, SIDE, 3), np.uint8), mpp=1.0, slide_id="c1-he")
    made.origin_px0 = origin
    return made


def masks(tissue=np.s_[:, :], **regions):
    whole = np.zeros((40, 40), bool)
    whole[tissue] = True
    drawn = np.zeros((40, 40), np.uint8)
    for region, where in regions.items():
        drawn[where] = REGIONS.index(region) + 1
    return TissueMasks(MADE, whole, 4.0, drawn if regions else None)


def found(tissue, spec=SPEC, case_id="c1", **options):
    kept = keep_cells(slide(**options), tissue, spec, case_id=case_id)
    return {(cell.column, cell.row): (cell.region, cell.place) for cell, _ in kept.cells}, kept


def test_without_outlines_all_tissue_is_inside_and_of_no_class():
    cells, kept = found(masks(np.s_[:16, :]))
    assert cells == {(x, y): ("", "inside") for x in range(5) for y in range(2)}
    assert kept.told["rule"] == "at least 60% of a tile is tissue on both slides"
    assert (kept.told["n_cells"], kept.told["n_inside"], kept.told["n_outside"]) == (25, 10, 0)


def test_tiles_come_from_the_tumour_and_from_what_is_clear_of_it():
    # 0.5 of column 2 is tumour: neither inside nor clear.
    cells, kept = found(masks(tumour=np.s_[:, :20]))
    places = {place: {x for (x, _), (_, at) in cells.items() if at == place} for place in ("inside", "outside")}
    assert places == {"inside": {0, 1}, "outside": {3, 4}}
    assert {name for name, place in cells.values() if place == "outside"} == {""}
    assert (kept.told["n_inside"], kept.told["n_beside"], kept.told["n_outside"]) == (10, 10, 10)
    assert "within regions tumour" in kept.told["rule"]


def test_a_tile_is_of_the_class_that_most_of_its_tissue_is_in():
    cells, _ = found(masks(invasive=np.s_[:8, :7], in_situ=np.s_[:8, 7:16], normal=np.s_[:8, 24:29]))
    assert cells[0, 0] == ("invasive", "inside")
    assert cells[1, 0] == ("in_situ", "inside")
    assert cells[3, 0] == ("normal", "outside")
    assert cells[4, 0] == ("", "outside")
    assert (2, 0) in cells


def test_inside_a_tile_is_of_a_class_that_it_was_kept_for():
    # 3/8 of each tumour class and 2/8 necrosis, which is none.
    cells, _ = found(masks(invasive=np.s_[:3, :8], in_situ=np.s_[3:5, :8], necrosis=np.s_[5:8, :8]))
    assert cells[0, 0] == ("invasive", "inside")


def test_outlines_of_no_tumour_name_tiles_and_take_none_away():
    cells, _ = found(masks(normal=np.s_[:, :20], necrosis=np.s_[:, 20:40]))
    assert len(cells) == 25
    assert {place for _, place in cells.values()} == {"inside"}
    assert {cells[0, 0][0], cells[4, 0][0]} == {"normal", "necrosis"}


def test_normal_tissue_may_be_trained_on():
    tissue = masks(invasive=np.s_[:, :16], normal=np.s_[:, 16:])
    assert {
        place for _, place in found(tissue, SPEC.model_copy(update={"inside": ("invasive", "normal")}))[0].values()
    } == {"inside"}


def test_the_draw_is_a_cells_own_and_has_its_share():
    spec = SPEC.model_copy(update={"outside_frac": 0.3})
    tissue = masks(tumour=np.s_[:8, :8])
    cells, _ = found(tissue, spec)
    again, _ = found(tissue, spec)
    other, _ = found(tissue, spec, case_id="c2")
    assert cells == again != other
    assert set(cells) == {(0, 0)} | {
        (x, y) for x in range(5) for y in range(5) if (x, y) != (0, 0) and draw("c1", x, y) < 0.3
    }
    drawn = np.mean([draw("c1", x, y) < 0.02 for x in range(200) for y in range(200)])
    assert drawn == pytest.approx(0.02, abs=0.002)


def test_nothing_inside_is_told_with_the_largest_share():
    cells, kept = found(masks(tumour=np.s_[:4, :8]))
    assert {place for _, place in cells.values()} == {"outside"}
    assert kept.most == pytest.approx(0.5)
    assert kept.told["n_inside"] == 0


def test_a_grid_counts_from_the_scanners_canvas():
    kept = keep_cells(slide((1000, 70)), masks(), SPEC, case_id="c1")
    corners = {(cell.box_px0.x + 1000, cell.box_px0.y + 70) for cell, _ in kept.cells}
    assert corners == {(cell.column * 32.0, cell.row * 32.0) for cell, _ in kept.cells}
    # Of 1000 / 32 = 31.25 and 70 / 32 = 2.2 columns and rows before the slide the last reaches into it, by 3/4.
    assert min(cell.column for cell, _ in kept.cells) == 31
    assert min(cell.row for cell, _ in kept.cells) == 2
    assert kept.told["canvas_px0"] == [1000, 70]
    own = keep_cells(slide((1000, 70)), masks(), SPEC.model_copy(update={"origin": "tissue"}), case_id="c1")
    assert own.cells[0][0].box_px0.x == own.cells[0][0].box_px0.y == own.cells[0][0].column == 0
