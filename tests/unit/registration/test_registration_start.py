import math

import numpy as np
import pytest
from registration_drawing import MPP, as_slides, draw_section, partner, stain, turn

from hepipe.geometry import Transform, apply_affine
from hepipe.registration import affine
from hepipe.registration.affine import refine_affine
from hepipe.registration.keypoints import match_starts
from hepipe.registration.overview import features, read_pictures
from hepipe.registration.score import Judge
from hepipe.registration.search import choose_start
from hepipe.registration.start import scales_between, search_starts
from hepipe.slides.picture import ArraySlide
from hepipe.specs.registration import SearchSpec

COARSE = SearchSpec(rotation_step_deg=20.0, flips=False)


def seen(density, *, ihc=False):
    return features(stain(density, (0.8, 0.7, 0.4) if ihc else (0.6, 1.0, 0.5), int(ihc)), mpp=MPP)


def chosen(he, ihc, spec=COARSE):
    pictures = read_pictures(he, ihc, max_px=224)
    return choose_start(pictures, Judge(pictures), spec)


def of_unknown_size(slide):
    return ArraySlide(slide._array, mpp=1.0, slide_id=slide.slide_id, mpp_from="unknown")


def test_sizes_are_tried_in_even_steps_from_the_smallest_to_the_largest():
    scales = scales_between(0.6, 1.6)
    assert (scales[0], scales[-1]) == (pytest.approx(0.6), pytest.approx(1.6))
    steps = np.diff(np.log(scales))
    assert np.allclose(steps, steps[0])
    assert math.exp(steps[0]) <= 1.08
    assert scales_between(1.0, 1.0) == [1.0]


def test_the_search_finds_the_size_where_it_is_free(section):
    placed = turn(40.0, scale=0.7)
    moved, _ = partner(section, placed, warp_px=0.0)
    best = search_starts(
        seen(section), seen(moved, ihc=True), step_deg=10.0, flips=False, keep=3, scale_range=(0.6, 1.6)
    )[0]
    assert best.scale == pytest.approx(0.7, rel=0.08)
    middle = np.array([[112.0, 112.0]])
    assert np.linalg.norm(apply_affine(best.moving_from_fixed, middle) - apply_affine(placed, middle)) < 6


@pytest.mark.parametrize("free_scale", [False, True])
def test_the_gradient_of_the_departure_from_rigid_is_its_slope(free_scale):
    rng = np.random.default_rng(3)
    linear = np.eye(2) * 1.3 + rng.normal(0, 0.1, (2, 2))
    way = rng.normal(0, 1, (2, 2))
    _, gradient = affine._departure(linear, free_scale=free_scale)
    ahead, behind = (affine._departure(linear + s * 1e-6 * way, free_scale=free_scale)[0] for s in (1, -1))
    assert (ahead - behind) / 2e-6 == pytest.approx(float((gradient * way).sum()), rel=1e-5)


def test_any_size_is_as_good_as_another_only_where_it_is_free():
    enlarged = turn(30.0, scale=1.4)[:2, :2]
    assert affine._departure(enlarged, free_scale=True)[0] == pytest.approx(0, abs=1e-12)
    assert affine._departure(enlarged, free_scale=False)[0] > 1


@pytest.mark.parametrize(("scale", "mirrored", "sizes"), [(0.65, False, (0.6, 1.6)), (1.0, True, (0.9, 1.1))])
def test_slides_of_unknown_pixel_size_are_brought_together(section, tissue_points, scale, mirrored, sizes):
    moved, truth = partner(section, turn(75.0, scale=scale, mirrored=mirrored), warp_px=0.0)
    spec = SearchSpec(rotation_step_deg=20.0, flips=mirrored, scale_range=sizes)
    pictures = read_pictures(*(of_unknown_size(slide) for slide in as_slides(section, moved)), max_px=224)
    judge = Judge(pictures)
    start = pictures.small(choose_start(pictures, judge, spec).transform)
    found = refine_affine(judge.fixed, judge.moving, start.affine, free_scale=pictures.free_scale)
    aim = truth(tissue_points)
    shown = ((aim > 0) & (aim < 224)).all(axis=1)
    assert np.median(np.linalg.norm(apply_affine(found, tissue_points) - aim, axis=1)[shown]) < 0.6
    assert math.sqrt(abs(np.linalg.det(found[:2, :2]))) == pytest.approx(scale, rel=0.01)


def test_a_true_pair_leads_by_more_than_strangers(section):
    moved, _ = partner(section, turn(60.0), warp_px=2.0)
    true, wrong = chosen(*as_slides(section, moved)), chosen(*as_slides(section, draw_section(77)))
    assert true.lead == true.score - true.runner_up
    assert true.lead > 2 * wrong.lead


def test_local_features_find_turn_size_and_mirroring(section):
    for scale, mirrored in ((1.0, False), (1.4, False), (0.8, True)):
        placed = turn(110.0, scale=scale, mirrored=mirrored)
        moved, _ = partner(section, placed, warp_px=0.0)
        found = match_starts(seen(section), seen(moved, ihc=True), flips=True, scale_range=(0.6, 1.6))
        corners = np.array([[60.0, 60.0], [160.0, 60.0], [60.0, 160.0]])
        apart = [np.linalg.norm(apply_affine(one, corners) - apply_affine(placed, corners), axis=1) for one in found]
        assert min(float(one.max()) for one in apart) < 1.5


def test_local_features_of_glass_or_beyond_the_sizes_propose_nothing(section):
    glass = np.zeros((2, 224, 224), np.float32)
    assert match_starts(glass, seen(section), flips=True, scale_range=(0.6, 1.6)) == []
    enlarged, _ = partner(section, turn(0.0, scale=1.5), warp_px=0.0)
    assert match_starts(seen(section), seen(enlarged), flips=False, scale_range=(0.8, 1.25)) == []


def test_the_start_is_the_same_each_time(section):
    moved, _ = partner(section, turn(20.0), warp_px=3.0)
    few = SearchSpec(rotation_step_deg=45.0, flips=False)
    one, two = (chosen(*as_slides(section, moved), few) for _ in range(2))
    np.testing.assert_array_equal(one.transform.affine, two.transform.affine)
    assert isinstance(one.transform, Transform)
