import math

import pytest

from hepipe.config import Limit, QualitySpec
from hepipe.errors import ConfigError
from hepipe.quality.verdict import grade, grade_status

SPEC = QualitySpec(limits={"blur_he": Limit(max=1.0), "pen_ihc": Limit(max=0.1), "ncc_peak": Limit(min=0.3)})


def tile(name, **numbers):
    return {"tile_id": name, "measurements": {"blur_he": 0.5, "pen_ihc": 0.0, "ncc_peak": 0.9, "other": 7.0, **numbers}}


def test_a_tile_within_all_limits_is_kept():
    assert grade([tile("a")], SPEC) == [{"tile_id": "a", "keep": True, "reason": "", "flags": []}]


def test_causes_are_named_before_what_follows_from_them():
    row = grade([tile("a", ncc_peak=0.1, blur_he=2.0, pen_ihc=0.5)], SPEC)[0]
    assert row["reason"] == "pen_ihc"
    assert row["flags"] == ["pen_ihc", "blur_he", "ncc_peak"]


def test_an_undefined_measurement_drops_nothing():
    assert grade([tile("a", blur_he=math.nan)], SPEC)[0]["keep"]


def test_a_limit_on_an_unknown_measurement_is_an_error():
    spec = QualitySpec(limits={"blurr": Limit(max=1)})
    with pytest.raises(ConfigError, match=r"no measurement blurr; there are blur_he, ncc_peak, other, pen_ihc"):
        grade([tile("a")], spec)


def test_no_tiles_no_verdicts():
    assert grade([], SPEC) == []
    assert grade_status([], SPEC).state == "ok"


@pytest.mark.parametrize(("bad", "state"), [(0, "ok"), (7, "ok"), (9, "review"), (10, "failed")])
def test_the_case_is_judged_by_how_many_are_dropped(bad, state):
    verdicts = grade([tile(str(n), blur_he=2.0 if n < bad else 0.1) for n in range(10)], SPEC)
    status = grade_status(verdicts, SPEC)
    assert status.state == state
    assert (f"blur_he {bad}" in status.reason) == (state != "ok")
