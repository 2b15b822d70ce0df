"""A MIRAX slide, whose canvas is mostly empty: its area with pixels, and what is transparent."""

from pathlib import Path

import numpy as np
import pytest
from slide_files import halves, tissue_picture, write_mrxs

from hepipe.geometry import Box
from hepipe.slides.completeness import is_cut_short
from hepipe.slides.open import open_slide
from hepipe.slides.reader import Slide
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import TissueMasks
from hepipe.stores.provenance import Provenance
from hepipe.tiling.keep import keep_cells


@pytest.fixture
def tile() -> np.ndarray:
    return tissue_picture(64, 64)


@pytest.fixture
def slide(tmp_path: Path, tile: np.ndarray) -> Slide:
    """Tiles in an L: of the four places of the used area, the lower left one is empty."""
    write_mrxs(tmp_path / "a.mrxs", {(2, 2): tile, (3, 2): tile, (3, 3): tile}, across=6, down=4, mpp=0.5)
    return open_slide(tmp_path / "a.mrxs", slide_id="c1-he")


def test_only_the_area_with_pixels_is_the_slide(slide: Slide):
    assert (slide.format, slide.reader, slide.mpp) == ("mirax", "openslide", 0.5)
    assert slide.size_px0 == (128, 128)
    assert slide.origin_px0 == (128, 128)


def test_boxes_count_from_that_area(slide: Slide, tile: np.ndarray):
    np.testing.assert_array_equal(slide.read(Box(0, 0, 64, 64), mpp=0.5, size=(64, 64)), tile)
    np.testing.assert_array_equal(slide.read(Box(64, 64, 64, 64), mpp=0.5, size=(64, 64)), tile)


def test_the_empty_place_is_white_though_the_file_fills_it_black(slide: Slide):
    assert slide.read(Box(0, 64, 64, 64), mpp=0.5, size=(64, 64)).min() == 255
    assert slide.read(Box(-500, -500, 64, 64), mpp=0.5, size=(64, 64)).min() == 255


def test_the_second_level_starts_at_the_same_corner(slide: Slide, tile: np.ndarray):
    assert slide.downsamples == (1.0, 2.0)
    np.testing.assert_array_equal(slide.read(Box(0, 0, 64, 64), mpp=1.0, size=(32, 32)), halves(tile))


def test_an_overview_shows_the_area_with_pixels(slide: Slide):
    overview, mpp = slide.overview(max_px=128)
    assert overview.shape == (128, 128, 3)
    assert mpp == 0.5
    assert overview[64:, :64].min() == 255


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_data_file_cut_short_is_noticed(tmp_path: Path, tile: np.ndarray, kept: float):
    write_mrxs(tmp_path / "a.mrxs", {(0, 0): tile, (1, 1): tile}, across=2, down=2, mpp=0.5)
    assert not is_cut_short(tmp_path / "a.mrxs")
    data = tmp_path / "a/Data0000.dat"
    data.write_bytes(data.read_bytes()[: int(data.stat().st_size * kept)])
    assert is_cut_short(tmp_path / "a.mrxs")
    data.unlink()
    assert is_cut_short(tmp_path / "a.mrxs")


def test_an_index_cut_short_is_noticed(tmp_path: Path, tile: np.ndarray):
    write_mrxs(tmp_path / "a.mrxs", {(0, 0): tile}, across=2, down=2, mpp=0.5)
    index = tmp_path / "a/Index.dat"
    index.write_bytes(index.read_bytes()[:-4])
    assert is_cut_short(tmp_path / "a.mrxs")


def test_a_grid_of_tiles_meets_the_scanners_canvas(slide: Slide, tile: np.ndarray):
    tissue = TissueMasks(Provenance(artefact="tissue", subject="c1"), np.ones((16, 16), bool), 4.0)
    spec = TilingSpec(mpp=0.5, tile_px=48, min_tissue_frac=0.0)
    cells = {(cell.column, cell.row): cell.box_px0 for cell, _ in keep_cells(slide, tissue, spec, case_id="c1").cells}
    # The area with pixels runs from 128 to 256 of the canvas: its first column of tiles starts at 96.
    assert sorted(cells) == [(column, row) for column in (2, 3, 4, 5) for row in (2, 3, 4, 5)]
    assert all((box.x + 128, box.y + 128) == (48 * column, 48 * row) for (column, row), box in cells.items())
    np.testing.assert_array_equal(slide.read(cells[3, 3], mpp=0.5, size=(48, 48)), tile[16:64, 16:64])
    over_the_corner = slide.read(cells[2, 2], mpp=0.5, size=(48, 48))
    assert over_the_corner[:32].min() == over_the_corner[:, :32].min() == 255
    np.testing.assert_array_equal(over_the_corner[32:, 32:], tile[:16, :16])
