import math

import numpy as np
import pytest
from scipy.spatial.distance import directed_hausdorff

from hepipe.metrics import dab
from hepipe.stains.matrices import DAB, HAEMATOXYLIN, stain_matrix


def tile_of(haematoxylin, brown):
    od = np.stack([haematoxylin, brown], -1) @ stain_matrix(HAEMATOXYLIN, DAB)[:2]
    return np.round(255 * 10.0**-od).clip(0, 255).astype(np.uint8)


@pytest.fixture
def amounts():
    rng = np.random.default_rng(1)
    return rng.uniform(0, 0.6, (40, 48)), rng.uniform(0, 0.9, (40, 48))


def test_separation_returns_the_amounts_that_were_mixed(amounts):
    found = dab.separate_hdab(tile_of(*amounts))
    np.testing.assert_allclose(found.haematoxylin, amounts[0], atol=0.03)
    np.testing.assert_allclose(found.dab, amounts[1], atol=0.03)


def test_twice_the_dab_doubles_its_integral(amounts):
    haematoxylin, brown = amounts
    one, half = (dab.separate_hdab(tile_of(haematoxylin, part)).dab for part in (brown, brown / 2))
    assert dab.integrated_od(half) / dab.integrated_od(one) == pytest.approx(0.5, abs=0.005)


def test_bands_add_up_to_the_positive_share_and_the_score_to_300_at_most():
    density = np.array([[0.1, 0.2, 0.5], [0.7, 0.9, 0.0]])
    tissue = np.ones((2, 3), bool)
    tissue[1, 2] = False
    shares = dab.bands(density, tissue, thresholds_od=(0.2, 0.4, 0.6))
    assert shares == pytest.approx((0.2, 0.2, 0.4))
    assert dab.hscore(shares) == pytest.approx(100 * (0.2 + 0.4 + 1.2))
    assert dab.hscore(dab.bands(np.full((2, 2), 2.0), np.ones((2, 2), bool), thresholds_od=(0.2, 0.4, 0.6))) == 300


def test_bands_without_tissue_are_undefined():
    shares = dab.bands(np.ones((2, 2)), np.zeros((2, 2), bool), thresholds_od=(0.2, 0.4, 0.6))
    assert all(math.isnan(share) for share in shares)
    assert math.isnan(dab.hscore(shares))


def test_overlap_of_known_masks():
    virtual, real = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 1, 0]], bool)
    assert dab.overlap(virtual, real) == dab.Overlap(dice=0.5, iou=1 / 3, tpr=0.5, tnr=0.5)


def test_two_empty_masks_have_no_overlap_to_speak_of_and_one_empty_mask_has_none():
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    nothing = dab.overlap(empty, empty)
    assert math.isnan(nothing.dice)
    assert math.isnan(nothing.tpr)
    assert nothing.tnr == 1
    assert dab.overlap(full, empty).dice == dab.overlap(empty, full).dice == 0


def test_hausdorff_of_points_equals_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 30, 30)) > 0.97
    a, b = np.argwhere(first), np.argwhere(second)
    expected = max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])
    assert dab.hausdorff_points(first, second, mpp=0.5) == pytest.approx(expected * 0.5)


def test_a_square_moved_by_three_px_has_its_outline_three_px_away():
    virtual, real = np.zeros((2, 40, 40), bool)
    virtual[10:20, 10:20] = real[10:20, 13:23] = True
    found = dab.boundary_distance(virtual, real, mpp=2.0)
    assert found.hausdorff == found.hausdorff95 == 6
    assert 0 < found.mean < 6


def test_distances_to_nothing_are_undefined():
    some, none = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    assert math.isnan(dab.boundary_distance(some, none).hausdorff95)
    assert math.isnan(dab.hausdorff_points(none, some))


def test_histograms_of_one_bin_each_are_as_far_apart_as_can_be():
    light, dark = np.full((4, 4), 0.1), np.full((4, 4), 1.5)
    assert dab.histogram_distance(light, dark) == pytest.approx(1)
    assert dab.histogram_distance(light, light) == 0
    assert dab.histogram_distance(np.full((4, 4), 2.5), np.full((4, 4), 2.0)) == 0


def test_bins_of_each_pictures_own_range_do_not_see_a_scale(amounts):
    tile, half = (tile_of(np.zeros_like(part), part) for part in (amounts[1], amounts[1] / 2))
    fixed = dab.histogram_distance(dab.separate_hdab(tile).dab, dab.separate_hdab(half).dab)
    assert dab.histogram_distance_own_range(tile, half) < fixed


def test_window_means_equal_the_plain_means():
    density = np.random.default_rng(2).random((70, 96))
    means = dab.window_means(density, side=64, step=32)
    assert means == pytest.approx([density[:64, :64].mean(), density[:64, 32:96].mean()])
    assert dab.window_means(density[:10, :10]) == pytest.approx([density[:10, :10].mean()])


def test_concordance_forgives_no_scale_but_correlation_does():
    x = np.arange(6.0)
    assert dab.concordance(x, x) == 1
    assert dab.pearson(x, 2 * x) == pytest.approx(1)
    assert dab.concordance(x, 2 * x) < 0.8


def test_correlations_of_too_little_are_undefined():
    assert math.isnan(dab.concordance(np.ones(1), np.ones(1)))
    assert math.isnan(dab.concordance(np.ones(3), np.ones(3)))
    assert math.isnan(dab.pearson(np.ones(4), np.arange(4.0)))


def test_glass_is_no_tissue():
    tile = np.full((20, 40, 3), 250, np.uint8)
    tile[:, 20:] = (150, 110, 90)
    tissue = dab.tissue_of_tile(tile)
    assert not tissue[:, :17].any()
    assert tissue[:, 22:].all()
