import numpy as np
import pytest

from hepipe.errors import SlideError
from hepipe.geometry import Box, Transform, identity, translation
from hepipe.registration import warp
from hepipe.registration.warp import read_warped
from hepipe.slides.picture import ArraySlide


class Picture(ArraySlide):
    """A slide in memory that notes which boxes are read."""

    def __init__(self, array, mpp=1.0):
        super().__init__(array, mpp=mpp, slide_id="case-ihc")
        self.boxes = []

    def read(self, box_px0, *, mpp, size):
        self.boxes.append(box_px0)
        return super().read(box_px0, mpp=mpp, size=size)


@pytest.fixture
def noise():
    return np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def test_the_identity_returns_the_very_pixels(noise):
    slide = Picture(noise)
    seen, valid = read_warped(
        slide, identity(fixed_mpp=1.0, moving_mpp=1.0), Box(0.0, 0.0, 60.0, 40.0), mpp=1.0, size=(60, 40)
    )
    np.testing.assert_array_equal(seen, noise)
    assert valid.all()


def test_a_whole_shift_is_exact_and_white_where_the_slide_ends(noise):
    shift = Transform(translation(7.0, -5.0), 1.0, 1.0)
    seen, valid = read_warped(Picture(noise), shift, Box(0.0, 0.0, 60.0, 40.0), mpp=1.0, size=(60, 40))
    np.testing.assert_array_equal(seen[5:, :53], noise[:35, 7:])
    assert valid[5:, :53].all()
    assert not valid[:5].any()
    assert not valid[:, 53:].any()
    assert (seen[~valid] == 255).all()


def test_a_box_reads_only_the_source_it_needs(noise):
    slide = Picture(noise)
    seen, _ = read_warped(
        slide, identity(fixed_mpp=1.0, moving_mpp=1.0), Box(20.0, 10.0, 8.0, 6.0), mpp=1.0, size=(8, 6)
    )
    np.testing.assert_array_equal(seen, noise[10:16, 20:28])
    assert len(slide.boxes) == 1
    assert slide.boxes[0].width <= 12
    assert slide.boxes[0].height <= 10


def test_a_coarser_request_is_the_area_mean(noise):
    seen, valid = read_warped(
        Picture(noise), identity(fixed_mpp=1.0, moving_mpp=1.0), Box(0.0, 0.0, 60.0, 40.0), mpp=4.0, size=(15, 10)
    )
    expected = noise.reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(seen, expected, atol=1)
    assert valid.all()


def test_a_displacement_field_moves_by_its_micrometres(noise):
    field_um = np.stack([np.full((20, 30), 6.0), np.full((20, 30), -4.0)])
    moved = Transform(np.eye(3), 2.0, 2.0, field_um, grid_um=4.0)
    seen, valid = read_warped(Picture(noise, mpp=2.0), moved, Box(10.0, 10.0, 20.0, 20.0), mpp=2.0, size=(20, 20))
    np.testing.assert_array_equal(seen, noise[8:28, 13:33])
    assert valid.all()


def test_a_request_too_large_for_one_read_is_split_without_a_trace(noise, monkeypatch):
    turn = Transform(np.array([[0.9, 0.3, 2.0], [-0.3, 0.9, 8.0], [0.0, 0.0, 1.0]]), 1.0, 1.0)
    box, size = Box(0.0, 0.0, 60.0, 40.0), (60, 40)
    whole, whole_valid = read_warped(Picture(noise), turn, box, mpp=1.0, size=size)
    monkeypatch.setattr(warp, "MAX_SOURCE_PX", 300)
    slide = Picture(noise)
    parts, parts_valid = read_warped(slide, turn, box, mpp=1.0, size=size)
    assert len(slide.boxes) > 4
    assert all(part.width * part.height <= 300 for part in slide.boxes)
    np.testing.assert_array_equal(parts_valid, whole_valid)
    assert np.abs(parts.astype(int) - whole).max() <= 1


def test_finer_than_the_ihc_slide_is_an_error(noise):
    still = identity(fixed_mpp=0.5, moving_mpp=1.0)
    with pytest.raises(SlideError, match=r"case-ihc: 0\.5 µm per px asked for, level 0 has 1"):
        read_warped(Picture(noise), still, Box(0.0, 0.0, 8.0, 8.0), mpp=0.5, size=(8, 8))


def test_a_box_beside_the_slide_reads_nothing(noise):
    slide = Picture(noise)
    seen, valid = read_warped(
        slide, identity(fixed_mpp=1.0, moving_mpp=1.0), Box(500.0, 0.0, 8.0, 8.0), mpp=1.0, size=(8, 8)
    )
    assert not slide.boxes
    assert not valid.any()
    assert (seen == 255).all()
