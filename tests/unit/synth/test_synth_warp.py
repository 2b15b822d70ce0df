import cv2
import numpy as np
import pytest

from hepipe.specs.synth import SynthSpec
from hepipe.synth.plan import plan_case
from hepipe.synth.warp import draw_transform, invert, pull

SPEC = SynthSpec(side_um=400)
BOX = (120.0, 110.0, 690.0, 700.0)
BORDER = np.array([[x, y] for x in np.linspace(120, 690, 30) for y in np.linspace(110, 700, 30)])


@pytest.mark.parametrize("number", range(1, 9))
def test_the_inverse_is_off_by_less_than_a_fiftieth_of_a_px(number):
    transform, size = draw_transform(plan_case(SPEC, number), BORDER, margin_px=80.0)
    map_x, map_y = invert(transform, size)
    y, x = np.mgrid[3 : size[1] : 7, 5 : size[0] : 7]
    he = np.stack([map_x[y, x].ravel(), map_y[y, x].ravel()], axis=1).astype(float)
    ihc = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    inside = ((he > 0) & (he < 800)).all(axis=1)
    assert np.abs(transform(he) - ihc)[inside].max() < 0.02


@pytest.mark.parametrize("number", range(1, 9))
def test_the_canvas_holds_the_tissue_with_glass_around_it(number):
    transform, (width, height) = draw_transform(plan_case(SPEC, number), BORDER, margin_px=80.0)
    x, y = np.meshgrid(np.linspace(BOX[0], BOX[2], 40), np.linspace(BOX[1], BOX[3], 40))
    ihc = transform(np.stack([x.ravel(), y.ravel()], axis=1))
    assert ihc.min() > 70
    assert (ihc < np.array([width, height]) - 70).all()


def test_dots_drawn_on_the_he_grid_lie_on_the_ihc_where_the_truth_says():
    transform, size = draw_transform(plan_case(SPEC, 4), BORDER, margin_px=80.0)
    x, y = np.meshgrid(np.arange(180, 640, 46) + 0.3, np.arange(170, 650, 46) + 0.8)
    he = np.stack([x.ravel(), y.ravel()], axis=1)
    row, column = np.mgrid[0:800, 0:800] + 0.5
    picture = np.zeros((800, 800), np.float32)
    for px, py in he:
        picture += np.exp(-((column - px) ** 2 + (row - py) ** 2) / (2 * 2.5**2)).astype(np.float32)
    moved = pull(picture, *invert(transform, size))
    for px, py in transform(he):
        left, top = int(px) - 10, int(py) - 10
        patch = moved[top : top + 21, left : left + 21].astype(float)
        found = [
            (patch.sum(axis=axis) * (np.arange(21) + 0.5)).sum() / patch.sum() + start
            for axis, start in ((0, left), (1, top))
        ]
        assert np.hypot(found[0] - px, found[1] - py) < 0.1


def test_the_warp_is_smooth_and_swells_by_a_few_percent_at_most():
    plan = plan_case(SynthSpec(), 2)
    points = np.stack(np.meshgrid(np.arange(600, 1800, 40.0), np.arange(600, 1800, 40.0)), axis=-1).reshape(-1, 2)
    transform, _ = draw_transform(plan, points, margin_px=80.0)
    assert transform.field_um is not None
    assert np.abs(transform.field_um).max() > 8
    right = (transform(points + np.array([8.0, 0])) - transform(points)) / 8
    down = (transform(points + np.array([0, 8.0])) - transform(points)) / 8
    area = np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0])
    assert (area > 0.6).all()
    assert (area < 1.6).all()


def test_pulling_does_not_ring_below_zero():
    picture = np.zeros((60, 60), np.float32)
    picture[20:40, 20:40] = 1
    grid = np.mgrid[0:60, 0:60].astype(np.float32) + np.float32(0.8)
    assert pull(picture, grid[1], grid[0]).min() == 0
    assert cv2.remap(picture, grid[1] - 0.5, grid[0] - 0.5, cv2.INTER_CUBIC).min() < 0
