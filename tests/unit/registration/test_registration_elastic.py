import numpy as np
import pytest
from registration_drawing import MPP, partner, stain, turn

from hepipe.geometry import Transform
from hepipe.registration.elastic import refine_elastic
from hepipe.registration.ncc import Comparison
from hepipe.registration.overview import faint_features, positions
from hepipe.registration.transform import fold_frac

HE, IHC = (0.6, 1.0, 0.5), (0.8, 0.7, 0.4)


def test_faint_tissue_keeps_its_contrast_and_ink_counts_as_glass(section):
    rgb = stain(section * 0.05, HE)
    root, near = faint_features(rgb)
    assert 0.05 < near[section > 0.3].mean() < 0.95
    assert root[section > 0.3].mean() > root[section == 0].mean() + 0.25
    rgb[20:60, 20:60] = (20, 20, 20)
    marked = faint_features(rgb)
    assert (marked[:, 20:60, 20:60] == 0).all()


def test_where_glass_counts_too_the_rim_of_a_hole_pulls_from_inside():
    """Two discs of one tissue with a hole: from a px inside the hole only the comparison everywhere has a gradient."""
    y, x = np.mgrid[:96, :96] + 0.5
    radius = np.hypot(x - 48, y - 48)
    one = ((radius < 40) & (radius > 12)).astype(np.float32)
    other = np.roll(one, 2, axis=1)
    at = positions(Transform(np.eye(3), 1.0, 1.0), shape=(96, 96))
    weights = {
        everywhere: Comparison(one[None], other[None], sigma=4.0, everywhere=everywhere)._seen(at)[1]
        for everywhere in (False, True)
    }
    assert weights[True][48, 48] == 1
    assert weights[False][48, 48] == 0


@pytest.mark.parametrize("smoothness", [4.0, 1e4])
def test_a_bent_section_is_followed_as_far_as_smoothness_allows(section, tissue_points, smoothness):
    moved, truth = partner(section, turn(0.0), warp_px=4.0)
    fixed, moving = faint_features(stain(section, HE)), faint_features(stain(moved * 0.7, IHC, 1))
    start = Transform(np.eye(3), MPP, MPP)
    found = refine_elastic(fixed, moving, start, smoothness=smoothness)
    before, after = (np.linalg.norm(one(tissue_points) - truth(tissue_points), axis=1) for one in (start, found))
    assert fold_frac(found) == 0
    if smoothness < 100:
        assert np.median(after) < 0.15 * np.median(before)
        assert np.percentile(after, 90) < 1.2
    else:
        assert np.median(after) > 0.5 * np.median(before)


def test_a_field_is_the_same_each_time(section):
    moved, _ = partner(section, turn(0.0), warp_px=2.0)
    features = [faint_features(stain(one, HE)) for one in (section, moved)]
    one, two = (
        refine_elastic(*features, Transform(np.eye(3), MPP, MPP), smoothness=4.0, scales_px=(112,), steps=(5,)).field_um
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)
