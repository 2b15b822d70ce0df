import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from hepipe.stains.deconvolution import optical_density
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, angle_deg, stain_matrix
from hepipe.stains.normalize import (
    MOST_STRETCH,
    LabStatistics,
    StainStatistics,
    colour_statistics,
    median_statistics,
    normalized,
    reinhard,
    rescaled_stains,
    stain_map,
)


def drawn(first, second, *, most=(0.9, 0.6), side=96, seed=0, glass=True):
    """Two stains in known amounts, and glass in a corner."""
    rng = np.random.default_rng(seed)
    pure = rng.random((side, side)) < 0.1
    one = np.where(pure, 0.0, rng.uniform(0, most[0], (side, side)))
    two = np.where(rng.random((side, side)) < 0.1, 0.0, rng.uniform(0.2 * most[1], most[1], (side, side)))
    amounts = np.stack([one, two], axis=-1)
    if glass:
        amounts[: side // 8, : side // 8] = 0
    od = amounts @ stain_matrix(first, second)[:2]
    return np.clip(np.rint(255 * 10**-od), 0, 255).astype(np.uint8)


def flat(picture):
    return picture.reshape(-1, 3)


def test_reinhard_gives_what_its_equations_give_with_another_librarys_cielab():
    picture = drawn(HAEMATOXYLIN, EOSIN)
    source = colour_statistics(flat(picture), "reinhard", "he")
    target = LabStatistics(mean=(60.0, 20.0, -10.0), sd=(12.0, 6.0, 7.0), n_pixels=1)
    lab = rgb2lab(picture)
    tissue = optical_density(picture).mean(-1) > 0.15
    mean, sd = lab[tissue].mean(0), lab[tissue].std(0)
    # OpenCV interpolates its CIELAB from tables, to about 0.1.
    np.testing.assert_allclose(source.mean, mean, atol=0.15)
    np.testing.assert_allclose(source.sd, sd, atol=0.15)
    expected = 255 * lab2rgb((lab - mean) / sd * target.sd + target.mean)
    found = reinhard(picture, source=source, target=target)
    assert np.abs(found - expected)[tissue].max() < 1.5


def test_reinhard_brings_the_statistics_to_the_target():
    one, other = drawn(HAEMATOXYLIN, EOSIN), drawn((0.55, 0.75, 0.35), (0.3, 0.8, 0.5), most=(0.6, 0.4), seed=4)
    source, target = (colour_statistics(flat(picture), "reinhard", "he") for picture in (one, other))
    tissue = optical_density(one).mean(-1) > 0.15
    after = rgb2lab(normalized(one, source=source, target=target))[tissue]
    np.testing.assert_allclose(after.mean(0), target.mean, atol=1.0)
    np.testing.assert_allclose(after.std(0), target.sd, rtol=0.1, atol=0.5)


def test_macenko_finds_the_stains_and_their_most():
    found = colour_statistics(flat(drawn(HAEMATOXYLIN, EOSIN)), "macenko", "he")
    assert angle_deg(found.first, HAEMATOXYLIN) < 3
    assert angle_deg(found.second, EOSIN) < 3
    np.testing.assert_allclose(found.most, (0.9 * 0.99, 0.6 * 0.99), rtol=0.1)


def test_macenko_draws_a_mixture_in_the_targets_stains_exactly():
    source = StainStatistics(first=_unit(HAEMATOXYLIN), second=_unit(EOSIN), most=(0.8, 0.5), n_pixels=1)
    other = (_unit((0.55, 0.75, 0.35)), _unit((0.3, 0.8, 0.5)))
    target = StainStatistics(first=other[0], second=other[1], most=(0.4, 0.6), n_pixels=1)
    random = np.random.default_rng(2)
    amounts = random.uniform(0.1, 0.6, (20, 20, 2))
    picture = np.rint(255 * 10 ** -(amounts @ np.array([source.first, source.second]))).astype(np.uint8)
    expected = 255 * 10 ** -((amounts * (0.5, 1.2)) @ np.array(other))
    assert np.abs(rescaled_stains(picture, source=source, target=target) - expected).max() < 2


def test_a_picture_of_two_stains_is_its_own_normalisation():
    picture = drawn(HAEMATOXYLIN, EOSIN)
    own = StainStatistics(first=_unit(HAEMATOXYLIN), second=_unit(EOSIN), most=(0.9, 0.6), n_pixels=1)
    assert np.abs(normalized(picture, source=own, target=own).astype(int) - picture).max() <= 1
    lab = colour_statistics(flat(picture), "reinhard", "he")
    assert np.abs(normalized(picture, source=lab, target=lab).astype(int) - picture).max() <= 1


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_glass_stays_as_it_is(method):
    one, other = drawn(HAEMATOXYLIN, EOSIN), drawn((0.55, 0.75, 0.35), (0.3, 0.8, 0.5), most=(0.5, 0.5), seed=3)
    source, target = (colour_statistics(flat(picture), method, "he") for picture in (one, other))
    glass = np.full((4, 4, 3), (244, 240, 245), np.uint8)
    np.testing.assert_array_equal(normalized(glass, source=source, target=target), glass)


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_a_crop_of_a_normalised_tile_is_the_normalised_crop(method):
    one, other = drawn(HAEMATOXYLIN, EOSIN), drawn(HAEMATOXYLIN, EOSIN, most=(0.5, 0.9), seed=3)
    source, target = (colour_statistics(flat(picture), method, "he") for picture in (one, other))
    whole = normalized(one, source=source, target=target)
    np.testing.assert_array_equal(normalized(one[7:40, 20:71], source=source, target=target), whole[7:40, 20:71])


def test_dab_is_told_from_haematoxylin_on_the_ihc():
    found = colour_statistics(flat(drawn(HAEMATOXYLIN, DAB, most=(0.5, 1.0))), "macenko", "ihc")
    assert angle_deg(found.second, DAB) < 5


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_too_little_tissue_tells_nothing(method):
    assert colour_statistics(np.full((5000, 3), 240, np.uint8), method, "he") is None
    assert colour_statistics(np.full((999, 3), 100, np.uint8), method, "he") is None


def test_a_slide_of_one_colour_is_not_blown_up():
    target = LabStatistics(mean=(60.0, 20.0, -10.0), sd=(20.0, 20.0, 20.0), n_pixels=1)
    source = LabStatistics(mean=(60.0, 20.0, -10.0), sd=(0.0, 0.0, 0.0), n_pixels=1)
    tile = np.full((8, 8, 3), (170, 130, 160), np.uint8)
    tile[0, 0, 0] = 171
    off = normalized(tile, source=source, target=target).astype(int)
    assert np.abs(off[0, 0] - off[1, 1]).max() <= MOST_STRETCH + 1
    weak = StainStatistics(first=_unit(HAEMATOXYLIN), second=_unit(EOSIN), most=(1e-3, 0.5), n_pixels=1)
    full = StainStatistics(first=_unit(HAEMATOXYLIN), second=_unit(EOSIN), most=(1.0, 0.5), n_pixels=1)
    assert np.linalg.norm(np.array(weak.first) @ stain_map(weak, full)) == pytest.approx(MOST_STRETCH, abs=1e-4)


def test_one_odd_slide_moves_the_target_little():
    usual = [LabStatistics(mean=(60.0 + n, 20.0, -10.0), sd=(9.0, 8.0, 7.0), n_pixels=5) for n in range(3)]
    odd = LabStatistics(mean=(10.0, 90.0, 90.0), sd=(90.0, 90.0, 90.0), n_pixels=5)
    found = median_statistics([*usual, odd])
    assert (found.mean, found.n_pixels) == ((60.5, 20.0, -10.0), 4)
    stains = [StainStatistics(first=_unit((0.6 + n / 50, 0.7, 0.3)), second=_unit(EOSIN), most=(n, 1), n_pixels=1)
              for n in range(1, 4)]  # fmt: skip
    middle = median_statistics(stains)
    assert np.linalg.norm(middle.first) == pytest.approx(1, abs=1e-5)
    assert middle.most == (2.0, 1.0)


def test_a_target_of_another_method_is_refused():
    lab = LabStatistics(mean=(60.0, 20.0, -10.0), sd=(9.0, 8.0, 7.0), n_pixels=5)
    stains = StainStatistics(first=_unit(HAEMATOXYLIN), second=_unit(EOSIN), most=(1.0, 1.0), n_pixels=5)
    with pytest.raises(ValueError, match="reinhard cannot be brought to a target of macenko"):
        normalized(np.zeros((2, 2, 3), np.uint8), source=lab, target=stains)


def _unit(vector):
    return tuple((np.array(vector) / np.linalg.norm(vector)).round(6).tolist())
