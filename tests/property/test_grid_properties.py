import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.specs.tiling import TilingSpec
from hepipe.tiling.grid import cut_grid, tissue_fracs

sides = st.integers(20, 400)


@st.composite
def tilings(draw):
    tile_px = draw(st.integers(8, 96))
    return TilingSpec(
        mpp=draw(st.sampled_from([0.25, 0.5, 1.0])), tile_px=tile_px, overlap_px=draw(st.integers(0, tile_px - 1)) // 2
    )


@given(sides, sides, st.sampled_from([0.21, 0.25, 0.5]), tilings())
@settings(max_examples=80, deadline=None)
def test_tiles_cover_the_slide_and_none_comes_twice(width, height, level0_mpp, spec):
    cells = cut_grid((width, height), level0_mpp=level0_mpp, spec=spec)
    assert len({(cell.column, cell.row) for cell in cells}) == len(cells)
    assert len({(cell.box_px0.x, cell.box_px0.y) for cell in cells}) == len(cells)
    seen = np.zeros((height, width), bool)
    for cell in cells:
        box = cell.box_px0
        assert box.x == int(box.x)
        # Corners are whole px, so neighbours of a fractional side may leave a part of one px between them.
        seen[int(box.y) : int(np.ceil(box.bottom)), int(box.x) : int(np.ceil(box.right))] = True
        assert box.x < width
        assert box.y < height
    assert seen.all()


@given(st.integers(1, 9), st.integers(1, 9), tilings(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_tissue_of_a_grid_without_overlap_adds_up_to_the_mask(width, height, spec, seed):
    spec = spec.model_copy(update={"overlap_px": 0, "mpp": 0.5})
    tissue = np.random.default_rng(seed).random((height, width)) < 0.5
    cells = cut_grid((width * 16, height * 16), level0_mpp=0.5, spec=spec)
    boxes = [cell.box_px0 for cell in cells]
    areas = np.array([box.width * box.height for box in boxes])
    shares = tissue_fracs(boxes, tissue, level0_mpp=0.5, mask_mpp=8.0)
    np.testing.assert_allclose((shares * areas).sum(), tissue.sum() * 256, rtol=1e-9)
