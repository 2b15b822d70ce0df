import numpy as np

from hepipe.tissue.pieces import group_pieces, nearest_piece, spread_pieces


def blank(height: int = 100, width: int = 200) -> np.ndarray:
    return np.zeros((height, width), bool)


def test_pieces_are_numbered_by_area_and_ties_from_the_top():
    mask = blank()
    mask[60:80, 10:30] = True
    mask[10:30, 100:120] = True
    mask[40:90, 140:190] = True
    labels = group_pieces(mask)
    assert (labels[50, 150], labels[20, 110], labels[70, 20]) == (1, 2, 3)
    assert ((labels > 0) == mask).all()


def test_parts_with_a_small_gap_are_one_piece():
    mask = blank()
    mask[10:60, 10:50] = True
    mask[10:60, 51:90] = True
    mask[10:60, 120:160] = True
    assert group_pieces(mask).max() == 2


def test_crumbs_have_no_number():
    mask = blank()
    mask[10:70, 10:100] = True
    mask[90:92, 150:152] = True
    labels = group_pieces(mask)
    assert labels.max() == 1
    assert labels[91, 151] == 0


def test_a_slide_of_nothing_but_crumbs_is_one_piece():
    mask = blank()
    mask[::10, ::10] = True
    labels = group_pieces(mask)
    assert labels.max() == 1
    assert ((labels == 1) == mask).all()
    assert not group_pieces(blank()).any()


def test_glass_belongs_to_the_nearest_piece_within_reach():
    labels = blank().astype(np.uint8)
    labels[40:60, 10:20] = 1
    labels[40:60, 60:70] = 2
    spread = spread_pieces(labels)
    assert (spread[50, 30], spread[50, 50], spread[50, 199]) == (1, 2, 0)
    near = spread_pieces(labels, reach_px=3.0)
    assert (near[50, 22], near[50, 30]) == (1, 0)
    assert (near[labels > 0] == labels[labels > 0]).all()


def test_numbers_go_to_a_mask_of_other_resolution():
    labels = blank().astype(np.uint8)
    labels[40:60, 10:20] = 1
    labels[40:60, 60:70] = 2
    fine = nearest_piece(labels, shape=(200, 400), scale=0.5)
    assert fine.shape == (200, 400)
    assert (fine[80:120, 20:40] == 1).all()
    assert (fine[80:120, 120:140] == 2).all()
    # A mask may reach a little beyond the picture; what is there belongs to the nearest piece too.
    assert nearest_piece(labels, shape=(26, 52), scale=4.0)[12, 3] == 1
