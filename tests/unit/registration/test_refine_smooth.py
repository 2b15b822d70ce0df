import numpy as np
import pytest

from hepipe.registration.smooth import fill, fit_spline, unfold

SIZE = (1000.0, 800.0)


def scattered(seed=0, n=900):
    return np.random.default_rng(seed).uniform((0, 0), SIZE, (n, 2))


def surface(points):
    x, y = points[:, 0] / 1000, points[:, 1] / 1000
    return np.stack([20 * np.sin(5 * y) + 10 * x, 15 * np.cos(4 * x)], axis=1)


def fit(points, values, **changes):
    options = {"domain": points, "size": SIZE, "spacing": 50.0, "smoothness": 0.01, "noise": 0.1} | changes
    return fit_spline(points, values, np.ones(len(points)), **options)


def test_a_smooth_surface_is_repeated_between_its_points():
    points = scattered()
    spline, belief = fit(points, surface(points))
    inner = np.random.default_rng(1).uniform((50, 50), (950, 750), (300, 2))
    np.testing.assert_allclose(spline.at(inner), surface(inner), atol=0.1)
    assert (belief > 0).all()


def test_a_plane_is_exact_and_continues_beyond_its_points():
    points = scattered()[:200]
    spline, _ = fit(points, points @ [[0.1, 0.2], [-0.3, 0.05]] + 7, smoothness=1.0)
    everywhere = np.random.default_rng(1).uniform((0, 0), SIZE, (100, 2))
    np.testing.assert_allclose(spline.at(everywhere), everywhere @ [[0.1, 0.2], [-0.3, 0.05]] + 7, atol=0.3)


def test_wrong_points_have_no_say():
    points = scattered()
    values = surface(points)
    values[::10] += np.random.default_rng(2).uniform(20, 40, (90, 2))
    spline, belief = fit(points, values)
    inner = np.random.default_rng(1).uniform((100, 100), (900, 700), (300, 2))
    assert np.percentile(np.linalg.norm(spline.at(inner) - surface(inner), axis=1), 95) < 0.3
    assert belief[::10].max() == 0


def test_the_grid_holds_the_values_at_its_px_centres():
    points = scattered()
    spline, _ = fit(points, surface(points))
    grid = spline.on_grid((50, 60), 16.0)
    y, x = np.mgrid[0:50, 0:60] * 16.0 + 8
    np.testing.assert_allclose(grid.reshape(2, -1).T, spline.at(np.stack([x.ravel(), y.ravel()], axis=1)), atol=1e-9)


def test_unknown_places_take_the_nearby_values():
    known = np.zeros((37, 53), bool)
    known[5:15, 5:15] = True
    known[30:, 40:] = True
    planes = np.zeros((1, 37, 53))
    planes[0, 30:, 40:] = 9.0
    filled = fill(planes, known)[0]
    assert filled[known].tolist() == planes[0][known].tolist()
    assert filled[0, 0] < 1.5
    assert filled[36, 36] > 6
    assert 0 <= filled.min() <= filled.max() <= 9


@pytest.mark.parametrize("mirrored", [False, True])
def test_folds_are_smoothed_away_and_the_rest_stays(mirrored):
    rng = np.random.default_rng(0)
    field = np.zeros((2, 60, 60))
    field[:, 20:28, 20:28] = rng.normal(0, 30, (2, 8, 8))
    linear = np.diag([-1.0, 1.0]) if mirrored else np.eye(2)
    made, changed = unfold(field, linear, grid=16.0)
    dx, dy = np.diff(made, axis=2)[:, :-1] / 16, np.diff(made, axis=1)[:, :, :-1] / 16
    area = (linear[0, 0] + dx[0]) * (linear[1, 1] + dy[1]) - (linear[0, 1] + dy[0]) * (linear[1, 0] + dx[1])
    assert (area / np.linalg.det(linear)).min() >= 0.2
    assert changed[20:28, 20:28].all()
    np.testing.assert_array_equal(made[:, 50:, 50:], 0)


def test_a_field_without_folds_is_left_alone():
    field = np.stack(np.mgrid[0:30, 0:30]).astype(float)
    made, changed = unfold(field, np.eye(2), grid=16.0)
    np.testing.assert_array_equal(made, field)
    assert not changed.any()
