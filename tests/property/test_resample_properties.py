import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hepipe.geometry import Box
from hepipe.slides.picture import ArraySlide

PICTURES = arrays(np.uint8, st.tuples(st.integers(4, 24), st.integers(4, 24), st.just(3)))


def slide_of(array: np.ndarray) -> ArraySlide:
    return ArraySlide(array, mpp=1.0, slide_id="c1-he")


@given(PICTURES, st.integers(1, 9), st.integers(1, 9))
def test_the_mean_of_a_whole_read_is_the_mean_of_the_slide(array: np.ndarray, columns: int, rows: int):
    height, width = array.shape[:2]
    columns, rows = min(columns, width), min(rows, height)
    # One mpp holds for both axes, so the box has the shape of the output.
    step = min(width / columns, height / rows)
    read = slide_of(array).read(Box(0.0, 0.0, columns * step, rows * step), mpp=step, size=(columns, rows))
    x, y = columns * step, rows * step
    weight_x = np.clip(x - np.arange(width), 0, 1)
    weight_y = np.clip(y - np.arange(height), 0, 1)
    expected = np.einsum("yxc,y,x->c", array.astype(float), weight_y, weight_x) / (x * y)
    assert np.abs(read.mean(axis=(0, 1)) - expected).max() <= 0.51


@given(PICTURES, st.floats(-30, 30), st.floats(-30, 30), st.floats(1, 5))
def test_a_read_stays_within_the_values_of_the_slide_and_white(array: np.ndarray, x: float, y: float, mpp: float):
    read = slide_of(array).read(Box(x, y, 8 * mpp, 6 * mpp), mpp=mpp, size=(8, 6))
    assert read.min() >= array.min()


@given(PICTURES, st.integers(-6, 20), st.integers(-6, 20))
def test_parts_of_a_read_are_what_is_read_in_parts(array: np.ndarray, x: int, y: int):
    slide = slide_of(array)
    whole = slide.read(Box(x, y, 24, 12), mpp=1.5, size=(16, 8))
    left = slide.read(Box(x, y, 12, 12), mpp=1.5, size=(8, 8))
    right = slide.read(Box(x + 12, y, 12, 12), mpp=1.5, size=(8, 8))
    np.testing.assert_array_equal(np.concatenate([left, right], axis=1), whole)
