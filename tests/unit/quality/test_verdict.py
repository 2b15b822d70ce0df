import math

import pytest

from hepipe.errors import ConfigError
from hepipe.quality.verdict import alignment, grade, grade_status
from hepipe.specs.quality import AlignmentsSpec, Limit, LimitsSpec, QualitySpec

LIMITS = {"blur_he": Limit(max=1.0), "pen_ihc": Limit(max=0.1), "ncc_peak": Limit(min=0.3)}
SPEC = QualitySpec(limits=LimitsSpec(restained=LIMITS, consecutive={"blur_he": Limit(max=2.0)}))


def tile(name, **numbers):
    measured = {"blur_he": 0.5, "pen_ihc": 0.0, "ncc_peak": 0.9, "shift_um": 0.2, "search_um": 12.0, **numbers}
    return {"tile_id": name, "section": "restained", "problem": "", "measurements": measured}


def test_a_tile_within_all_limits_is_kept():
    assert grade([tile("a")], SPEC) == [
        {"tile_id": "a", "keep": True, "reason": "", "flags": [], "alignment": "aligned"}
    ]


def test_causes_are_named_before_what_follows_from_them():
    row = grade([tile("a", ncc_peak=0.1, blur_he=2.0, pen_ihc=0.5)], SPEC)[0]
    assert row["reason"] == "pen_ihc"
    assert row["flags"] == ["pen_ihc", "blur_he", "ncc_peak"]


def test_an_undefined_measurement_drops_nothing():
    assert grade([tile("a", blur_he=math.nan)], SPEC)[0]["keep"]


def test_a_limit_on_an_unknown_measurement_is_an_error():
    spec = QualitySpec(limits=LimitsSpec(restained={"blurr": Limit(max=1)}))
    with pytest.raises(
        ConfigError,
        match=r"limits.restained: no measurement blurr; there are blur_he, ncc_peak, pen_ihc, search_um, shift_um",
    ):
        grade([tile("a")], spec)


def test_limits_of_one_kind_of_section_are_not_asked_of_the_other():
    tiles = [tile("a", blur_he=1.5, ncc_peak=0.2), {**tile("b", blur_he=1.5, ncc_peak=0.2), "section": "consecutive"}]
    rows = grade(tiles, SPEC)
    assert [row["flags"] for row in rows] == [["blur_he", "ncc_peak"], []]


@pytest.mark.parametrize("given", [{}, {"blur_he": {"max": 1}}, {"restained": {}, "blur_he": {"max": 1}}])
def test_limits_without_a_kind_of_section_are_a_mistake_that_says_what_to_write(given):
    with pytest.raises(ValueError, match=r"limits stand by kind of section, .* write {restained"):
        QualitySpec.model_validate({"limits": given})


def test_a_kind_of_section_left_out_keeps_its_defaults():
    given = QualitySpec.model_validate({"limits": {"restained": {}}})
    assert given.limits.restained == {}
    assert given.limits.consecutive == QualitySpec().limits.consecutive


def test_no_tiles_no_verdicts():
    assert grade([], SPEC) == []
    assert grade_status([], SPEC).state == "ok"


@pytest.mark.parametrize(("bad", "state"), [(0, "ok"), (7, "ok"), (9, "review"), (10, "failed")])
def test_the_case_is_judged_by_how_many_are_dropped(bad, state):
    verdicts = grade([tile(str(n), blur_he=2.0 if n < bad else 0.1) for n in range(10)], SPEC)
    status = grade_status(verdicts, SPEC.model_copy(update={"alarm_filter_frac": 1.0}))
    assert status.state == state
    assert (f"blur_he {bad}" in status.reason) == (state != "ok")


@pytest.mark.parametrize(
    ("measured", "restained", "consecutive"),
    [
        ({}, "aligned", "aligned"),
        ({"shift_um": 1.5}, "weak", "aligned"),
        ({"shift_um": 5.0}, "misaligned", "aligned"),
        ({"shift_um": 11.9}, "beyond", "beyond"),
        ({"search_um": 25.0, "shift_um": 15.0}, "misaligned", "weak"),
        ({"ncc_peak": 0.45}, "aligned", "weak"),
        ({"ncc_peak": 0.01}, "misaligned", "misaligned"),
        ({"matched_frac": 0.4}, "weak", "weak"),
        ({"matched_frac": 0.0, "shift_um": math.nan}, "beyond", "beyond"),
        ({"shift_um": math.nan, "ncc_peak": math.nan}, "weak", "weak"),
        ({"untrusted_frac": 0.5}, "weak", "weak"),
        ({"untrusted_frac": math.nan}, "aligned", "aligned"),
    ],
)
def test_the_class_of_alignment_depends_on_the_kind_of_section(measured, restained, consecutive):
    found = {"shift_um": 0.3, "ncc_peak": 0.9, "search_um": 12.0, **measured}
    classes = AlignmentsSpec()
    assert alignment(found, classes.restained) == restained
    assert alignment(found, classes.consecutive) == consecutive


def test_a_tile_without_pixels_is_dropped_and_asked_nothing_else():
    lost = {"tile_id": "a", "section": "restained", "problem": "some pixels do not decode", "measurements": {}}
    rows = grade([lost, tile("b")], SPEC)
    assert [(row["keep"], row["reason"]) for row in rows] == [(False, "unreadable"), (True, "")]
    assert "unreadable 1" in grade_status(grade([lost], SPEC), SPEC).reason


def test_misaligned_tiles_are_dropped_unless_the_configuration_keeps_them():
    tiles = [tile("a", shift_um=5.0), tile("b", shift_um=1.5), tile("c", shift_um=5.0, blur_he=2.0)]
    rows = grade(tiles, SPEC)
    assert [(row["keep"], row["reason"], row["alignment"]) for row in rows] == [
        (False, "misaligned", "misaligned"),
        (True, "", "weak"),
        (False, "blur_he", "misaligned"),
    ]
    lenient = SPEC.model_copy(update={"alignment": AlignmentsSpec(drop=())})
    assert [row["keep"] for row in grade(tiles, lenient)] == [True, True, False]
    strict = SPEC.model_copy(update={"alignment": AlignmentsSpec(drop=("weak", "misaligned"))})
    assert [row["reason"] for row in grade(tiles, strict)] == ["misaligned", "weak", "blur_he"]


def test_a_filter_that_empties_a_slide_is_named_whatever_is_named_as_the_reason():
    # Every tile that is blurred is named for its pen, so blur never stands as a reason.
    both = {"blur_he": 2.0, "pen_ihc": 0.5}
    rows = grade([tile(str(n), **(both if n < 4 else {"blur_he": 2.0} if n < 6 else {})) for n in range(10)], SPEC)
    status = grade_status(rows, SPEC)
    assert (status.state, status.stage) == ("review", "quality")
    assert status.reason == "blur_he alone drops 6 of 10 tiles: look at the slide, or see blur_he in quality.limits"


def test_the_share_that_alarms_is_that_of_the_config():
    rows = grade([tile(str(n), **({"blur_he": 2.0} if n < 5 else {"pen_ihc": 0.5})) for n in range(7)], SPEC)
    lenient = SPEC.model_copy(update={"alarm_filter_frac": 0.75, "alarm_dropped_frac": 1.0})
    rows += grade([tile("kept")], SPEC)
    assert grade_status(rows, lenient).state == "ok"
    assert "blur_he alone drops 5 of 8 tiles" in grade_status(rows, SPEC).reason


def test_an_alarm_over_alignment_or_pixels_points_elsewhere_than_the_limits():
    far = grade([tile(str(n), shift_um=5.0 if n < 6 else 0.1) for n in range(10)], SPEC)
    assert "misaligned alone drops 6 of 10 tiles: look at the registration" in grade_status(far, SPEC).reason
    lost = [{**tile(str(n)), "problem": "some pixels do not decode" if n < 6 else ""} for n in range(10)]
    assert "unreadable alone drops 6 of 10 tiles: copy or scan" in grade_status(grade(lost, SPEC), SPEC).reason
