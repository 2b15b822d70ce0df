import numpy as np
import pytest

from hepipe.errors import SlideError
from hepipe.geometry import Box
from hepipe.slides import pyramid
from hepipe.slides.metadata import nominal_downsample
from hepipe.slides.picture import ArraySlide
from hepipe.slides.pyramid import PyramidSlide, on_white
from hepipe.slides.reader import Slide


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def slide_of(array: np.ndarray, mpp: float = 0.5) -> ArraySlide:
    return ArraySlide(array, mpp=mpp, slide_id="c1-he")


class Levels(PyramidSlide):
    """A slide of one colour per level that notes what is decoded."""

    reader = "picture"

    def __init__(self, sizes: list[tuple[int, int]], **options: object) -> None:
        super().__init__("c1-he", mpp=0.25, mpp_from="file", level_sizes=sizes, **options)
        self.decoded: list[tuple[int, int, int]] = []

    def decode(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        self.decoded.append((level, width, height))
        return np.full((height, width, 3), 10 * level, np.uint8)

    def close(self) -> None:
        pass


def test_an_array_keeps_the_reader_contract():
    assert isinstance(slide_of(noise(4, 4)), Slide)


def test_reading_at_the_resolution_of_level_0_returns_its_pixels():
    array = noise(40, 30)
    np.testing.assert_array_equal(slide_of(array).read(Box(5, 7, 20, 30), mpp=0.5, size=(20, 30)), array[7:37, 5:25])


def test_what_is_read_is_a_copy():
    array = noise(8, 8)
    slide_of(array).read(Box(0, 0, 8, 8), mpp=0.5, size=(8, 8))[:] = 0
    assert array.max() > 0


def test_reading_coarser_averages_the_area_of_each_pixel():
    array = noise(12, 12)
    read = slide_of(array).read(Box(0, 0, 12, 12), mpp=1.2, size=(5, 5))
    fine = np.kron(array.astype(float), np.ones((5, 5, 1)))
    expected = fine.reshape(5, 12, 5, 12, 3).mean(axis=(1, 3))
    assert np.abs(read - expected).max() <= 0.51


def test_whole_blocks_average_as_fractions_of_pixels_do():
    array = noise(16, 16)
    whole = slide_of(array).read(Box(0, 0, 16, 16), mpp=2.0, size=(4, 4))
    nearly = slide_of(array).read(Box(1e-6, 0, 16, 16), mpp=2.0, size=(4, 4))
    assert np.abs(whole.astype(int) - nearly).max() <= 1


def test_half_a_pixel_between_two_is_their_mean():
    array = np.zeros((2, 4, 3), np.uint8)
    array[:, 2:] = 200
    assert slide_of(array).read(Box(0.5, 0, 3, 2), mpp=0.5, size=(3, 2))[0, :, 0].tolist() == [0, 100, 200]


def test_what_lies_outside_the_slide_is_white():
    read = slide_of(np.zeros((8, 8, 3), np.uint8)).read(Box(-4, 4, 8, 8), mpp=0.5, size=(8, 8))
    assert read[:4, 4:].max() == 0
    assert read[:, :4].min() == 255
    assert read[4:].min() == 255


def test_a_box_beside_the_slide_is_white_and_nothing_is_decoded():
    slide = Levels([(64, 64)])
    assert slide.read(Box(100, 0, 8, 8), mpp=0.25, size=(8, 8)).min() == 255
    assert slide.decoded == []


def test_finer_than_level_0_is_refused_beyond_the_tolerance():
    slide = slide_of(noise(100, 100))
    assert slide.read(Box(0, 0, 99.5, 99.5), mpp=0.4975, size=(100, 100)).shape == (100, 100, 3)
    with pytest.raises(SlideError, match=r"slide c1-he: 0.4 µm per px asked for, finer than its level 0 \(0.5\)"):
        slide.read(Box(0, 0, 80, 80), mpp=0.4, size=(100, 100))


def test_a_size_that_contradicts_the_box_is_a_wrong_call():
    with pytest.raises(ValueError, match=r"64 px0 at 1 µm per px are 32 px, not 64"):
        slide_of(noise(64, 64)).read(Box(0, 0, 64, 64), mpp=1.0, size=(64, 64))


@pytest.mark.parametrize(("mpp", "level"), [(0.25, 0), (0.49, 0), (0.4999, 1), (0.5, 1), (0.9, 1), (1.0, 2), (9.0, 2)])
def test_the_nearest_finer_level_is_read(mpp: float, level: int):
    slide = Levels([(4096, 4096), (2048, 2048), (1024, 1024)])
    size = round(1024 * 0.25 / mpp) or 1
    slide.read(Box(0, 0, size * mpp / 0.25, size * mpp / 0.25), mpp=mpp, size=(size, size))
    assert {at for at, _, _ in slide.decoded} == {level}


def test_a_level_cut_to_whole_pixels_keeps_its_downsample():
    assert nominal_downsample((5120, 4691), (160, 146)) == 32.0
    assert nominal_downsample((1000, 1000), (300, 300)) == pytest.approx(3.3333, abs=1e-3)


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch):
    array = noise(90, 70)
    box, mpp, size = Box(3.3, -5, 60.5, 80.3), 0.5 * 1.1, (55, 73)
    at_once = slide_of(array).read(box, mpp=mpp, size=size)
    monkeypatch.setattr(pyramid, "BLOCK_PX", 16)
    np.testing.assert_array_equal(slide_of(array).read(box, mpp=mpp, size=size), at_once)


def test_an_overview_without_a_small_level_is_decoded_in_pieces():
    slide = Levels([(6000, 4000)])
    overview, mpp = slide.overview(max_px=100)
    assert overview.shape == (67, 100, 3)
    assert mpp == pytest.approx(0.25 * 60)
    assert max(width * height for _, width, height in slide.decoded) <= (pyramid.BLOCK_PX + 1) ** 2


def test_an_overview_is_never_finer_than_level_0():
    array = noise(20, 30)
    overview, mpp = slide_of(array).overview(max_px=1000)
    np.testing.assert_array_equal(overview, array)
    assert mpp == 0.5


def test_boxes_count_from_the_corner_of_the_area_with_pixels():
    slide = Levels([(4096, 4096)], bounds_px0=(1000, 2000, 100, 50))
    assert (slide.size_px0, slide.origin_px0) == ((100, 50), (1000, 2000))
    seen: list[tuple[int, int]] = []
    slide.decode = lambda level, x, y, w, h: seen.append((x, y)) or np.zeros((h, w, 3), np.uint8)
    slide.read(Box(1, 2, 10, 10), mpp=0.25, size=(10, 10))
    assert seen == [(1001, 2002)]


def test_a_decoder_that_returns_too_little_is_an_error():
    slide = Levels([(64, 64)])
    slide.decode = lambda level, x, y, w, h: np.zeros((h - 1, w, 3), np.uint8)
    with pytest.raises(SlideError, match="a part of the pixels is missing"):
        slide.read(Box(0, 0, 8, 8), mpp=0.25, size=(8, 8))


def test_transparency_is_composed_on_white():
    pixels = np.array([[[0, 100, 200, 255], [0, 100, 200, 0], [0, 100, 200, 128]]], np.uint8)
    assert on_white(pixels)[0].tolist() == [[0, 100, 200], [255, 255, 255], [127, 177, 227]]


def test_coarse_px_may_be_made_of_level_0_alone():
    slide = Levels([(512, 512), (256, 256), (128, 128)])
    assert slide.read(Box(0, 0, 256, 256), mpp=1.0, size=(64, 64)).max() == 20
    slide.from_level0 = True
    assert slide.read(Box(0, 0, 256, 256), mpp=1.0, size=(64, 64)).max() == 0
    assert slide.decoded[-1] == (0, 256, 256)
