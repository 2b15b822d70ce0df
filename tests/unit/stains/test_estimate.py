import numpy as np
import pytest

from hepipe.specs.stains import StainsSpec
from hepipe.stains.estimate import estimate, implausible, white_point
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, angle_deg

WHITE = (246.0, 244.0, 248.0)
HE = ((0.62, 0.72, 0.31), (0.16, 0.84, 0.52))
IHC = ((0.70, 0.65, 0.30), (0.30, 0.55, 0.78))


def render(vectors, *, share_second=0.5, n=8000, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.gamma(2.0, 0.3, n)
    second = rng.gamma(2.0, 0.25, n) * (rng.random(n) < share_second)
    first *= np.where(second > 0, rng.random(n), 1)
    unit = np.array([np.array(v) / np.linalg.norm(v) for v in vectors])
    od = np.stack([first, second], 1) @ unit
    return np.clip(np.rint(np.array(WHITE) * 10**-od), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("method", "tolerance"), [("macenko", 5), ("vahadane", 8)])
@pytest.mark.parametrize(("stain", "truth"), [("he", HE), ("ihc", IHC)])
def test_known_vectors_are_found_and_named(method, tolerance, stain, truth):
    found = estimate(render(truth), stain=stain, spec=StainsSpec(vectors=method), white=WHITE)
    assert found.method == method
    assert found.notes == ()
    assert angle_deg(found.first, truth[0]) < tolerance
    assert angle_deg(found.second, truth[1]) < tolerance


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_the_same_pixels_give_the_same_vectors(method):
    pixels = render(HE)
    spec = StainsSpec(vectors=method)
    assert estimate(pixels, stain="he", spec=spec) == estimate(pixels, stain="he", spec=spec)


def test_hardly_any_dab_gives_the_fixed_vectors_and_says_so():
    found = estimate(render(IHC, share_second=0), stain="ihc", spec=StainsSpec(), white=WHITE)
    assert found.method == "fixed"
    assert any("DAB in" in note for note in found.notes)
    assert angle_deg(found.second, DAB) < 1e-3


def test_an_empty_slide_gives_the_fixed_vectors_and_says_so():
    found = estimate(np.full((5000, 3), 245, np.uint8), stain="he", spec=StainsSpec(), white=WHITE)
    assert found.method == "fixed"
    assert any("0 stained px" in note for note in found.notes)


def test_no_glass_means_white_255_and_a_note():
    found = estimate(render(HE), stain="he", spec=StainsSpec())
    assert found.white == (255.0, 255.0, 255.0)
    assert any("white point" in note for note in found.notes)


def test_a_chosen_fixed_method_needs_no_note():
    found = estimate(render(HE), stain="he", spec=StainsSpec(vectors="fixed"), white=WHITE)
    assert (found.method, found.notes) == ("fixed", ())


def test_white_is_the_99th_percentile_of_grey_bright_pixels():
    glass = np.random.default_rng(1).integers(238, 248, (3000, 1)).repeat(3, 1).astype(np.uint8)
    pink = np.tile(np.array([[250, 200, 220]], np.uint8), (3000, 1))
    assert white_point(np.concatenate([glass, pink])) == pytest.approx((247, 247, 247))
    assert white_point(pink) is None


def test_what_fills_unscanned_parts_is_no_glass_where_there_is_other():
    fill, glass = np.full((5000, 3), 255, np.uint8), np.full((600, 3), 240, np.uint8)
    assert white_point(np.concatenate([fill, glass])) == pytest.approx((240, 240, 240))
    assert white_point(np.concatenate([fill, glass[:100]])) == pytest.approx((255, 255, 255))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((HAEMATOXYLIN, HAEMATOXYLIN), "degrees apart"),
        (((0.2, 0.3, 0.9), EOSIN), "first vector lies"),
        (((0.9, -0.1, 0.1), EOSIN), "negative"),
    ],
)
def test_implausible_vectors_are_named(found, text):
    assert text in implausible(found, (HAEMATOXYLIN, EOSIN))


def test_a_mixture_taken_for_dab_is_refused():
    mixed = (0.57, 0.58, 0.58)
    assert "second vector lies" in implausible((HAEMATOXYLIN, mixed), (HAEMATOXYLIN, DAB))
    assert implausible((HAEMATOXYLIN, (0.36, 0.56, 0.75)), (HAEMATOXYLIN, DAB)) == ""


GIVEN = {"haematoxylin": (0.6, 0.7, 0.3), "dab": (0.3, 0.55, 0.78), "white": (240.0, 241.0, 242.0)}


def test_a_slide_without_dab_takes_the_vectors_of_its_batch():
    spec = StainsSpec.model_validate({"batches": {"b1": GIVEN}})
    found = estimate(render(IHC, share_second=0), stain="ihc", spec=spec, white=WHITE, batch="b1")
    assert (found.method, found.white, found.white_from) == ("batch", WHITE, "slide")
    assert angle_deg(found.first, GIVEN["haematoxylin"]) < 1e-3
    assert angle_deg(found.second, GIVEN["dab"]) < 1e-3
    assert any("vectors of its batch in place of macenko: DAB in" in note for note in found.notes)


@pytest.mark.parametrize("batch", [None, "b2"])
def test_a_slide_without_dab_whose_batch_has_none_takes_the_fixed_vectors(batch):
    spec = StainsSpec.model_validate({"batches": {"b1": GIVEN}})
    found = estimate(render(IHC, share_second=0), stain="ihc", spec=spec, white=WHITE, batch=batch)
    assert found.method == "fixed"
    assert any("the config gives none for its batch" in note for note in found.notes)


def test_a_slide_with_dab_keeps_its_own_vectors_and_h_and_e_never_takes_a_batch():
    spec = StainsSpec.model_validate({"batches": {"b1": GIVEN}})
    assert estimate(render(IHC), stain="ihc", spec=spec, white=WHITE, batch="b1").method == "macenko"
    empty = np.full((5000, 3), 245, np.uint8)
    assert estimate(empty, stain="he", spec=spec, white=WHITE, batch="b1").method == "fixed"


def test_without_glass_the_white_of_the_batch_is_taken():
    spec = StainsSpec.model_validate({"batches": {"b1": GIVEN}})
    found = estimate(render(IHC), stain="ihc", spec=spec, batch="b1")
    assert (found.white, found.white_from) == (GIVEN["white"], "batch")
    assert any("white point of its batch" in note for note in found.notes)
