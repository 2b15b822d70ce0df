import numpy as np
import pytest

from hepipe.geometry import Box
from hepipe.specs.tiling import TilingSpec
from hepipe.tiling.grid import cut_grid, sample_windows, tissue_fracs, tissue_start_um


def test_a_slide_of_whole_tiles_is_cut_without_a_border():
    cells = cut_grid((1024, 512), level0_mpp=0.25, spec=TilingSpec(mpp=0.5, tile_px=128))
    assert len(cells) == 4 * 2
    assert cells[-1].box_px0 == Box(768, 256, 256, 256)


def test_border_tiles_reach_over_the_edge():
    cells = cut_grid((300, 100), level0_mpp=0.5, spec=TilingSpec(mpp=0.5, tile_px=128))
    assert [cell.box_px0.x for cell in cells] == [0, 128, 256]


def test_overlap_shortens_the_step():
    cells = cut_grid((256, 64), level0_mpp=0.5, spec=TilingSpec(mpp=0.5, tile_px=64, overlap_px=16))
    assert [cell.box_px0.x for cell in cells] == [0, 48, 96, 144, 192]


def test_a_grid_may_start_at_the_tissue():
    tissue = np.zeros((10, 20), bool)
    tissue[3:5, 4:9] = True
    assert tissue_start_um(tissue, 8.0) == (32.0, 24.0)
    cells = cut_grid((320, 160), level0_mpp=0.5, spec=TilingSpec(tile_px=64), start_um=(32.0, 24.0))
    assert (cells[0].box_px0.x, cells[0].box_px0.y) == (64, 48)


def test_tissue_share_is_exact_within_mask_px():
    tissue = np.zeros((4, 4), bool)
    tissue[1, 1] = True
    boxes = [Box(0, 0, 16, 16), Box(8, 8, 8, 8), Box(12, 12, 8, 8), Box(24, 24, 16, 16)]
    shares = tissue_fracs(boxes, tissue, level0_mpp=1.0, mask_mpp=8.0)
    np.testing.assert_allclose(shares, [0.25, 1.0, 0.25, 0.0])


def test_windows_are_spread_over_the_tissue_and_bounded():
    tissue = np.zeros((64, 64), bool)
    tissue[:, 32:] = True
    boxes = sample_windows(tissue, mask_mpp=8.0, level0_mpp=0.5, side_um=64.0, count=10)
    assert len(boxes) == 10
    assert all(box.x >= 512 for box in boxes)
    assert len({(box.x, box.y) for box in boxes}) == 10
    assert max(box.y for box in boxes) - min(box.y for box in boxes) >= 6 * 128


def test_little_tissue_still_gives_windows_and_none_gives_none():
    tissue = np.zeros((64, 64), bool)
    assert sample_windows(tissue, mask_mpp=8.0, level0_mpp=0.5, side_um=64.0, count=4) == []
    tissue[5, 5] = True
    boxes = sample_windows(tissue, mask_mpp=8.0, level0_mpp=0.5, side_um=64.0, count=4)
    assert boxes == [Box(0, 0, 128, 128)]


def test_the_share_of_a_box_over_the_edge_counts_all_of_it():
    whole = np.ones((4, 4), bool)
    np.testing.assert_allclose(tissue_fracs([Box(3, 3, 2, 2)], whole, level0_mpp=1.0, mask_mpp=1.0), [0.25])
    assert pytest.approx(1.0) == tissue_fracs([Box(0, 0, 4, 4)], whole, level0_mpp=1.0, mask_mpp=1.0)[0]
