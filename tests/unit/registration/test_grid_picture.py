"""The picture of tissue, regions and tiles."""

import numpy as np

from hepipe.registration.grid_picture import DROPPED, KEPT, OUTSIDE, Tile, draw_grid
from hepipe.stores.arrays import TissueMasks
from hepipe.stores.provenance import Provenance
from hepipe.tissue.outlines import COLORS
from hepipe.tissue.regions import REGIONS

GREY = 200


def draw(tiles, regions=None, taken_out=None):
    """A grey slide of 400 x 300 px at 1 µm; a mask of 4 µm a px, all tissue but its rim."""
    tissue = np.zeros((75, 100), bool)
    tissue[5:70, 5:95] = True
    made = TissueMasks(Provenance(artefact="tissue", subject="c1"), tissue, 4.0, regions)
    rgb = np.full((300, 400, 3), GREY, np.uint8)
    return draw_grid(rgb, made, tiles, mpp=1.0, level0_mpp=0.5, taken_out=taken_out)


def test_each_tile_has_the_colour_of_what_became_of_it():
    tiles = [
        Tile(80, 80, 40.0, keep=True),
        Tile(200, 80, 40.0, keep=True, region="invasive"),
        Tile(320, 80, 40.0, keep=True, place="outside"),
        Tile(440, 80, 40.0, keep=False),
    ]
    picture = draw(tiles)
    for tile, color in zip(tiles, (KEPT, COLORS["invasive"], OUTSIDE, DROPPED), strict=True):
        left = tile.x_px0 // 2
        assert tuple(picture[60, left]) == color
        assert tuple(picture[60, left + 39]) == color
        middle = picture[50, left + 10].astype(int)
        assert (middle == GREY).all() != tile.keep
    # The stroke through a dropped one.
    assert tuple(picture[60, 239]) != (GREY,) * 3


def test_regions_and_what_was_taken_out_are_outlined_and_named_below():
    regions = np.zeros((75, 100), np.uint8)
    regions[20:40, 20:60] = REGIONS.index("necrosis") + 1
    taken = np.zeros((75, 100), bool)
    taken[50:60, 70:90] = True
    plain, full = draw([]), draw([], regions, taken)
    assert tuple(full[100, 82]) == COLORS["necrosis"]
    assert tuple(full[220, 320]) == tuple((GREY + value) // 2 for value in COLORS["taken_out"])
    assert (plain[100, 82] == GREY).all()
    assert full.shape[0] >= plain.shape[0] > 300
    legend = {tuple(pixel) for pixel in full[300:].reshape(-1, 3)}
    assert {COLORS["tissue"], COLORS["necrosis"], COLORS["taken_out"]} <= legend


def test_no_two_things_share_a_colour():
    colors = [*COLORS.values(), DROPPED, OUTSIDE]
    assert len(set(colors)) == len(colors)
