import numpy as np

from hepipe.quality.edge import edge_mask
from hepipe.quality.pen import pen_mask

MPP = 8.0
WHITE = (244.0, 244.0, 244.0)


def overview(od, side=96):
    """Glass with tissue in its middle, and `od` more."""
    tissue = np.zeros((side, side, 3))
    tissue[30:70, 30:70] = (0.12, 0.35, 0.2)
    return np.clip(244 * 10 ** -(tissue + od), 0, 255).astype(np.uint8)


def stroke(color, rows, columns, side=96):
    od = np.zeros((side, side, 3))
    od[rows, columns] = color
    return od


def test_a_red_stroke_over_an_overview_is_found_on_glass_and_on_tissue_and_the_tissue_is_none():
    mask = pen_mask(overview(stroke((0.05, 0.8, 0.7), slice(45, 55), slice(5, 90))), MPP, white=WHITE)
    assert (mask[47:53, 8:88] == 3).all()
    assert not mask[:40].any()
    assert not mask[60:].any()


def test_each_ink_of_an_overview_keeps_its_label():
    for label, ink in ((1, (1.1, 0.62, 0.12)), (2, (0.95, 0.3, 0.8)), (4, (1.0, 1.0, 0.95))):
        mask = pen_mask(overview(stroke(ink, slice(5, 15), slice(5, 90))), MPP, white=WHITE)
        assert (mask[8:12, 10:80] == label).all()


def test_a_long_grey_line_is_a_coverslips_edge_and_a_speck_of_dirt_or_a_coloured_line_is_none():
    line = edge_mask(overview(stroke((0.4, 0.4, 0.4), slice(0, 96), slice(10, 13))), MPP, white=WHITE)
    assert line[:, 10:13].all()
    assert line.sum() == 3 * 96
    speck = edge_mask(overview(stroke((0.4, 0.4, 0.4), slice(10, 16), slice(10, 16))), MPP, white=WHITE)
    assert not speck.any()
    red = edge_mask(overview(stroke((0.1, 0.6, 0.4), slice(0, 96), slice(10, 13))), MPP, white=WHITE)
    assert not red.any()
