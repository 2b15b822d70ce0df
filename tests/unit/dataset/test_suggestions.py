"""Suggested drops: each rule on tiles made for it."""

import pytest

from hepipe.dataset.suggestions import suggest
from hepipe.specs.quality import Limit

LIMITS = {
    "restained": {"blur_he": Limit(max=0.5), "ncc_peak": Limit(min=0.2), "pen_he": Limit(max=0.02)},
    "consecutive": {"blur_he": Limit(max=5.0)},
}


def tiles(values, section="restained"):
    found = []
    for number, value in enumerate(values):
        measured = {"blur_he": 0.2 + 0.001 * (number % 7), "ncc_peak": 0.9, "pen_he": 0.0, "dab_frac": 0.0}
        found.append({"section": section, "measurements": measured | value})
    return found


def passed(count, **changes):
    return [{"keep": True, "flags": [], "alignment": "aligned", **changes} for _ in range(count)]


def test_a_tile_near_a_limit_is_suggested_with_the_limit_and_one_further_off_is_not():
    found = suggest(tiles([{"blur_he": 0.49}, {"blur_he": 0.44}, {"ncc_peak": 0.21}, {}]), passed(4), LIMITS)
    assert [one.why for one in found] == [("blur_he at 98% of its limit",), (), ("ncc_peak at 95% of its limit",), ()]
    assert found[0].weight > found[2].weight > found[1].weight == 0


def test_a_tile_unlike_the_others_of_its_kind_is_suggested_but_strong_dab_is_not():
    rows = tiles([{}] * 60 + [{"blur_he": 0.35}, {"dab_frac": 0.9}])
    other_kind = tiles([{"blur_he": 0.35}] * 40, "consecutive")
    found = suggest(rows + other_kind, passed(102), LIMITS)
    assert [number for number, one in enumerate(found) if one.weight] == [60]
    assert found[60].why[0] == "blur_he is 0.35, usual is 0.203"


def test_too_few_tiles_tell_nothing_of_what_is_usual():
    assert not any(one.weight for one in suggest(tiles([{}] * 20 + [{"blur_he": 0.35}]), passed(21), LIMITS))


def test_a_weak_alignment_and_a_flag_are_reasons():
    verdicts = [*passed(1, alignment="weak"), *passed(1, flags=["learned"])]
    found = suggest(tiles([{}, {}]), verdicts, LIMITS)
    assert [one.why for one in found] == [("alignment is weak",), ("flagged learned",)]


@pytest.mark.parametrize(
    ("blur", "flags", "looks"), [(0.53, ["blur_he"], 1), (0.7, ["blur_he"], 0), (0.53, ["blur_he", "pen_he"], 0)]
)
def test_a_tile_that_one_filter_drops_by_little_deserves_a_second_look(blur, flags, looks):
    found = suggest(tiles([{"blur_he": blur}]), passed(1, keep=False, flags=flags), LIMITS)
    assert len(found[0].why) == looks
    assert not looks or found[0].why[0] == "dropped by little: blur_he at 106% of its limit"


def test_undefined_values_and_unknown_kinds_suggest_nothing():
    odd = [{"section": "other", "measurements": {}}, *tiles([{"blur_he": float("nan"), "ncc_peak": float("nan")}])]
    assert [one.why for one in suggest(odd, passed(2), LIMITS)] == [(), ()]
