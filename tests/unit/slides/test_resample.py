import numpy as np
import pytest

from hepipe.geometry import Box
from hepipe.slides.resample import STRIP_ROWS, average_areas


def shares(start: float, step: float, n_out: int, n_in: int) -> np.ndarray:
    """Of each input px in each output px, by the overlap of their intervals."""
    left = start + step * np.arange(n_out)[:, None]
    inputs = np.arange(n_in)[None]
    return np.clip(np.minimum(left + step, inputs + 1) - np.maximum(left, inputs), 0, None) / step


def exact(source: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    rows = shares(box.y, box.height / size[1], size[1], source.shape[0])
    columns = shares(box.x, box.width / size[0], size[0], source.shape[1])
    return np.einsum("iy,jx,yxc->ijc", rows, columns, source.astype(np.float64))


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(0, 0, 96, 60), (96, 60)),
        (Box(3, 2, 96, 60), (48, 30)),
        (Box(3, 2, 96, 60), (32, 12)),
        (Box(3, 2, 97, 61), (48, 40)),  # whole corners, no whole step
        (Box(0.25, 1.5, 96, 60), (96, 60)),
        (Box(0.25, 1.5, 96, 60), (48, 30)),
        (Box(0.3, 0.7, 96.0768, 110.1), (48, 55)),
        (Box(0.3, 0.7, 47.9, 109.6), (48, 110)),  # a little finer than the source
        (Box(1.1, 2.2, 93.3, 103.7), (9, 7)),
        (Box(0, 0, 120, 121), (1, 1)),
    ],
)
def test_each_px_is_the_exact_mean_over_the_area_it_covers(box: Box, size: tuple[int, int]):
    source = np.random.default_rng(3).integers(0, 256, (121, 120, 3), np.uint8)
    out = np.zeros((size[1], size[0], 3), np.uint8)
    average_areas(source, box, out)
    assert np.abs(out - exact(source, box, size)).max() <= 0.501


def test_strips_meet_without_a_seam():
    source = np.random.default_rng(4).integers(0, 256, (3 * STRIP_ROWS + 20, 40, 3), np.uint8)
    size = (35, 3 * STRIP_ROWS - 5)
    out = np.zeros((size[1], size[0], 3), np.uint8)
    box = Box(0.4, 0.6, 37.3, size[1] * 1.13)
    average_areas(source, box, out)
    assert np.abs(out - exact(source, box, size)).max() <= 0.501


def test_a_part_of_a_larger_array_is_filled_and_nothing_beside_it():
    source = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    for box in (Box(0, 0, 64, 64), Box(0.5, 0.5, 62, 62)):
        out = np.full((40, 50, 3), 7, np.uint8)
        average_areas(source, box, out[4:36, 10:42])
        alone = np.zeros((32, 32, 3), np.uint8)
        average_areas(source, box, alone)
        np.testing.assert_array_equal(out[4:36, 10:42], alone)
        out[4:36, 10:42] = 7
        assert (out == 7).all()
