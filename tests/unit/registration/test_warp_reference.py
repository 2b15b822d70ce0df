"""`read_warped` against a dense reference in 64 bits, and its positions against `Transform.trace`."""

import numpy as np
import pytest

from hepipe.errors import SlideError
from hepipe.geometry import Box, Transform, translation
from hepipe.registration import warp
from hepipe.registration.warp import positions, read_warped
from hepipe.slides.picture import ArraySlide


def waves(height, width):
    """A smooth picture with structure down to 6 px."""
    y, x = np.mgrid[:height, :width] + 0.5
    channels = [np.sin(x / 3.1 + y / 7.3), np.cos(y / 2.7 - x / 11.0), np.sin(np.hypot(x - 20, y - 31) / 2.5)]
    return np.clip(np.rint(np.stack(channels, axis=-1) * 90 + 120), 0, 250).astype(np.uint8)


def dense(picture, transform, box, size, shrink):
    """Bilinear on exact area means, all in 64 bits, without blocks; nan where white is due."""
    rows, columns = picture.shape[0] // shrink, picture.shape[1] // shrink
    source = picture[: rows * shrink, : columns * shrink].astype(float)
    source = source.reshape(rows, shrink, columns, shrink, 3).mean(axis=(1, 3))
    x, y = np.meshgrid(
        box.x + (np.arange(size[0]) + 0.5) * box.width / size[0],
        box.y + (np.arange(size[1]) + 0.5) * box.height / size[1],
    )
    points, covered = transform.trace(np.stack([x.ravel(), y.ravel()], axis=1))
    limit = np.array([picture.shape[1], picture.shape[0]])
    shown = covered & (points >= 0).all(axis=1) & (points <= limit).all(axis=1)
    u, v = np.clip(points / shrink - 0.5, 0, [columns - 1, rows - 1]).T
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    fx, fy = (u - left)[:, None], (v - top)[:, None]
    seen = (source[top, left] * (1 - fx) + source[top, right] * fx) * (1 - fy)
    seen += (source[bottom, left] * (1 - fx) + source[bottom, right] * fx) * fy
    return seen.reshape(size[1], size[0], 3), shown.reshape(size[1], size[0])


def wavy(affine, *, rows=9, columns=13, grid_um=8.0, fixed_mpp=0.5, moving_mpp=0.4, reach_um=3.0):
    field = np.random.default_rng(5).normal(0, reach_um, (2, rows, columns)).astype(np.float32)
    return Transform(np.asarray(affine, float), fixed_mpp, moving_mpp, field, grid_um)


ROTATED = [[1.1, 0.6, -40.0], [-0.6, 1.1, 70.0], [0.0, 0.0, 1.0]]
MIRRORED = [[-1.2, 0.1, 230.0], [0.05, 1.25, -10.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "affine", [np.diag([1.25, 1.25, 1.0]), ROTATED, MIRRORED], ids=["plain", "rotated", "mirrored"]
)
@pytest.mark.parametrize(("step", "shrink"), [(1, 1), (3, 4), (7, 9)])
@pytest.mark.parametrize("block", [1024, 17])
def test_a_warped_box_is_the_dense_reference_up_to_rounding(monkeypatch, affine, step, shrink, block):
    monkeypatch.setattr(warp, "BLOCK_PX", block)
    picture, transform = waves(150, 190), wavy(affine)
    # Over the edge of the fixed slide's field on all sides, and over the moving slide's edges.
    size = (252 // step, 180 // step)
    box = Box(-21.0, -18.0, float(size[0] * step), float(size[1] * step))
    expected, shown = dense(picture, transform, box, size, shrink)
    seen, valid = read_warped(
        ArraySlide(picture, mpp=0.4, slide_id="case-ihc"), transform, box, mpp=0.5 * step, size=size
    )
    assert 0.2 < shown.mean() < 0.95
    np.testing.assert_array_equal(valid, shown)
    assert (seen[~shown] == 255).all()
    # Half a grey level is rounding once; the source's area mean is rounded too, and positions hold to 0.001 px.
    assert np.abs(seen[shown] - expected[shown]).max() <= (0.6 if shrink == 1 else 1.1)


def test_positions_are_those_of_the_transform_to_a_thousandth_of_a_px():
    rng = np.random.default_rng(1)
    field = rng.normal(0, 400, (2, 97, 61)).astype(np.float32)
    affine = [[0.7, -0.72, 51_000.3], [0.71, 0.69, -2_000.7], [0, 0, 1]]
    transform = Transform(np.array(affine, float), 0.25, 0.25, field, grid_um=64.0)
    columns, rows = 9_000.5 + np.arange(700), 12_000.25 + np.arange(500) * 1.5
    at, corner, covered = positions(transform, columns, rows)
    x, y = np.meshgrid(columns, rows)
    expected, inside = transform.trace(np.stack([x.ravel(), y.ravel()], axis=1))
    found = (at + corner[:, None, None]).reshape(2, -1).T
    assert np.abs(found - expected)[inside].max() < 2e-3
    np.testing.assert_array_equal(covered.ravel(), inside)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1)])
def test_a_field_of_one_row_or_column_is_constant_along_it(shape):
    field = np.random.default_rng(2).normal(0, 4, (2, *shape)).astype(np.float32)
    transform = Transform(np.eye(3), 1.0, 1.0, field, grid_um=8.0)
    columns, rows = np.arange(shape[1] * 8) + 0.5, np.arange(shape[0] * 8) + 0.5
    at, corner, covered = positions(transform, columns, rows)
    x, y = np.meshgrid(columns, rows)
    expected = transform(np.stack([x.ravel(), y.ravel()], axis=1))
    np.testing.assert_allclose((at + corner[:, None, None]).reshape(2, -1).T, expected, atol=1e-4)
    assert covered.all()


def test_every_px_whose_centre_lies_on_the_slide_shows_it_up_to_the_very_edge():
    picture = waves(40, 60)
    moved = Transform(translation(-0.5, 0.5), 1.0, 1.0)
    seen, valid = read_warped(
        ArraySlide(picture, mpp=1.0, slide_id="case-ihc"), moved, Box(0.0, 0.0, 60.0, 40.0), mpp=1.0, size=(60, 40)
    )
    # The first centre lies at 0.0, on the edge, and takes its px's colour; so do the last rows, at 40.0.
    assert valid.all()
    expected = (picture[:-1, 0].astype(float) + picture[1:, 0]) / 2
    np.testing.assert_allclose(seen[:-1, 0], expected, atol=0.51)
    expected = (picture[-1, :-1].astype(float) + picture[-1, 1:]) / 2
    np.testing.assert_allclose(seen[-1, 1:], expected, atol=0.51)


def test_a_transform_that_stretches_wildly_reads_in_pieces_and_ends(monkeypatch):
    monkeypatch.setattr(warp, "MAX_SOURCE_PX", 500)
    picture = waves(60, 60)
    field = np.random.default_rng(7).uniform(-1e6, 1e6, (2, 8, 8)).astype(np.float32)
    field[:, 2:5, 2:5] = np.random.default_rng(8).uniform(-25, 25, (2, 3, 3))
    wild = Transform(np.eye(3), 1.0, 1.0, field, grid_um=8.0)
    seen, valid = read_warped(
        ArraySlide(picture, mpp=1.0, slide_id="case-ihc"), wild, Box(0.0, 0.0, 64.0, 64.0), mpp=1.0, size=(64, 64)
    )
    assert 0 < valid.mean() < 0.9
    assert (seen[~valid] == 255).all()


def test_the_unknown_scale_of_a_slide_is_taken_from_the_transform():
    # Both pixel sizes read 1; the moving slide has 4 times as many px.
    picture = waves(160, 240)
    transform = Transform(np.diag([4.0, 4.0, 1.0]), 1.0, 1.0)
    seen, _ = read_warped(
        ArraySlide(picture, mpp=1.0, slide_id="case-ihc"), transform, Box(0.0, 0.0, 60.0, 40.0), mpp=1.0, size=(60, 40)
    )
    np.testing.assert_allclose(seen, picture.reshape(40, 4, 60, 4, 3).mean(axis=(1, 3)), atol=0.51)


def test_the_error_names_the_moving_slide_whichever_it_is():
    transform = Transform(np.diag([0.5, 0.5, 1.0]), 0.5, 1.0)
    with pytest.raises(SlideError, match=r"case-he: 0\.5 µm per px asked for, level 0 has 1"):
        read_warped(
            ArraySlide(waves(8, 8), mpp=1.0, slide_id="case-he"),
            transform,
            Box(0.0, 0.0, 8.0, 8.0),
            mpp=0.5,
            size=(8, 8),
        )
