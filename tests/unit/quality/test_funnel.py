import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.quality.funnel import Graded, case_funnel, data_set_funnel, fisher, relabelled, score_shares, whole_funnel
from hepipe.quality.verdict import grade
from hepipe.specs.quality import QualitySpec

SPEC = QualitySpec.model_validate(
    {
        "limits": {
            "restained": {"blur_he": {"max": 1}, "pen_ihc": {"max": 0.1}},
            "consecutive": {"blur_he": {"max": 3}},
        }
    }
)
SOUND = {"blur_he": 0.5, "pen_ihc": 0.0, "ncc_peak": 0.9, "shift_um": 0.2, "search_um": 12.0}


def row(case_id, number, *, section="restained", score=None, problem="", **numbers):
    return {
        "tile_id": f"{case_id}/{number}",
        "case_id": case_id,
        "section": section,
        "her2_score": score,
        "problem": problem,
        "measurements": {**SOUND, **numbers},
    }


def case(case_id, rows, *, section="restained", score=None, told=None, out=(), why=None, spec=SPEC):
    verdicts = grade(rows, spec)
    kept = frozenset(verdict["tile_id"] for verdict in verdicts if verdict["keep"]) - {f"{case_id}/{n}" for n in out}
    why = {f"{case_id}/{n}": reason for n, reason in (why or {}).items()}
    return Graded(case_id, section, score, rows, verdicts, told or {}, spec, kept, why)


def numbers(funnel):
    return {step.name: (step.dropped, step.left) for step in funnel.steps}


def test_every_step_from_the_cells_to_the_index_is_counted():
    rows = [
        row("C1", 0),
        row("C1", 1, problem="some pixels do not decode"),
        row("C1", 2, pen_ihc=0.5, blur_he=2.0),
        row("C1", 3, blur_he=2.0),
        row("C1", 4, shift_um=5.0),
        row("C1", 5),
        row("C1", 6),
    ]
    told = {"n_cells": 40, "n_tissue": 12, "n_inside": 6, "n_outside": 1}
    found = case_funnel(case("C1", rows, told=told, out=(5, 6), why={5: "curation", 6: "held"}))
    assert numbers(found) == {
        "cells": (0, 40),
        "glass": (28, 12),
        "regions": (5, 7),
        "failed": (0, 7),
        "unreadable": (1, 6),
        "pen_ihc": (1, 5),
        "blur_he": (1, 4),
        "beyond": (0, 4),
        "misaligned": (1, 3),
        "curation": (1, 2),
        "held": (1, 1),
        "no_split": (0, 1),
        "kept": (0, 1),
    }
    by_name = {step.name: (step.fail, step.only) for step in found.steps}
    assert (by_name["pen_ihc"], by_name["blur_he"], by_name["curation"]) == ((1, 0), (2, 1), (None, None))
    assert found.alarms == ()


def test_a_tile_that_a_person_asked_to_keep_is_no_drop():
    graded = case("C1", [row("C1", 0, blur_he=2.0), row("C1", 1)])
    kept = Graded(**{**vars(graded), "kept": frozenset({"C1/0", "C1/1"})})
    found = {step.name: step for step in case_funnel(kept).steps}
    assert (found["blur_he"].dropped, found["blur_he"].fail, found["kept"].left) == (0, 1, 2)


def test_a_case_that_failed_after_the_grid_loses_all_there():
    told = {"n_cells": 9, "n_tissue": 4, "n_inside": 0, "n_outside": 1}
    assert numbers(case_funnel(case("C1", [], section="", told=told)))["failed"] == (1, 0)


def test_a_case_that_failed_before_its_grid_does_not_put_the_kept_before_the_grids_drops():
    told = {"n_cells": 9, "n_tissue": 3, "n_inside": 2, "n_outside": 0}
    cases = [case_funnel(case("lost", [])), case_funnel(case("a", [row("a", n) for n in range(2)], told=told))]
    for order in (cases, cases[::-1]):
        names = [step.name for step in whole_funnel(order)["restained"]]
        assert names[:4] == ["cells", "glass", "regions", "failed"]
        assert names[-1] == "kept"
        assert [step.left for step in whole_funnel(order)["restained"]][-1] == 2


def test_the_filter_that_empties_a_slide_is_named():
    rows = [row("C1", n, pen_ihc=0.5, blur_he=2.0 if n < 6 else 0.1) for n in range(7)] + [
        row("C1", n) for n in (7, 8, 9)
    ]
    assert case_funnel(case("C1", rows)).alarms == ("pen_ihc", "blur_he")


TILE = st.fixed_dictionaries(
    {
        "problem": st.sampled_from(["", "", "", "broken"]),
        "blur_he": st.sampled_from([0.1, 2.0, 4.0, float("nan")]),
        "pen_ihc": st.sampled_from([0.0, 0.5]),
        "shift_um": st.sampled_from([0.1, 5.0, 11.9]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    cases=st.lists(st.tuples(st.sampled_from(["restained", "consecutive"]), st.lists(TILE, max_size=12)), max_size=5),
    data=st.data(),
)
def test_for_every_case_drops_and_kept_add_up_to_the_cells(cases, data):
    graded = []
    for place, (section, tiles) in enumerate(cases):
        case_id = f"C{place}"
        rows = [row(case_id, n, section=section, score="0", **tile) for n, tile in enumerate(tiles)]
        more = [data.draw(st.integers(0, 5)) for _ in range(3)]
        n_outside = data.draw(st.integers(0, len(rows)))
        told = {
            "n_inside": len(rows) - n_outside + more[0],
            "n_outside": n_outside,
            "n_tissue": len(rows) + more[0] + more[1],
            "n_cells": len(rows) + sum(more),
        }
        why = {n: data.draw(st.sampled_from(["curation", "held", "no_split"])) for n in range(0, len(rows), 3)}
        is_gridded = data.draw(st.booleans())
        graded.append(case(case_id, rows, section=section, told=told if is_gridded else {}, out=why, why=why))
    found = data_set_funnel("demo", graded)
    for one, own in zip(found.cases, graded, strict=True):
        cells = own.told.get("n_cells", len(own.tiles))
        assert one.steps[0].left == cells == sum(step.dropped for step in one.steps) + len(own.kept)
        assert one.steps[-1].left == len(own.kept)
        for before, step in itertools.pairwise(one.steps):
            assert step.dropped >= 0
            assert step.left == before.left - step.dropped
            assert step.only is None or step.only <= step.fail
        assert all(verdict["flags"] or not verdict["reason"] for verdict in own.verdicts)
    for section, steps in found.whole.items():
        own = [one for one in found.cases if one.section == section]
        assert steps[-1].left == sum(one.steps[-1].left for one in own)
        assert steps[0].left == sum(one.steps[0].left for one in own)
        for before, step in itertools.pairwise(steps):
            assert step.left == before.left - step.dropped


def cohort(rates, *, n_cases=5, n_tiles=60, seed=0, section="restained", spread=0.0, case_ids=True):
    """Cases of each score whose tiles are blurred at a rate, which itself may differ from slide to slide."""
    rng = np.random.default_rng(seed)
    found = []
    for score, rate in rates.items():
        for place in range(n_cases):
            case_id = f"{section}-{score}-{place}"
            own = rng.beta(rate * (1 - spread) / spread, (1 - rate) * (1 - spread) / spread) if spread else rate
            rows = [
                row(case_id, n, section=section, score=score, blur_he=9.0 if rng.random() < own else 0.1)
                for n in range(n_tiles)
            ]
            if not case_ids:
                rows = [{**one, "case_id": None} for one in rows]
            found.append(case(case_id, rows, section=section, score=score))
    return found


EVEN = {"0": 0.1, "1+": 0.1, "2+": 0.1, "3+": 0.1}


def flagged(cases):
    return [(share.section, share.name, share.score) for share in score_shares(cases) if share.verdict == "score"]


def test_a_filter_that_drops_one_score_three_times_as_often_is_flagged():
    cases = cohort({**EVEN, "3+": 0.3}, spread=0.02)
    assert flagged(cases) == [("restained", "blur_he", "3+")]
    (share,) = [one for one in score_shares(cases) if one.verdict]
    assert 2 < share.times < 4
    assert share.p_cases < 0.01
    assert share.told.startswith("filter blur_he drops ")
    assert "of the 3+ tiles" in share.told
    assert "in 5 of its 5 cases: look" in share.told
    assert data_set_funnel("demo", cases).flagged == [share]


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3])
def test_balanced_noise_flags_next_to_nothing(spread):
    # 20 cohorts of 4 scores are 80 questions, of which the test of the cases lets 1 in 100 pass.
    found = [flag for seed in range(20) for flag in flagged(cohort(EVEN, seed=seed, spread=spread))]
    assert len(found) <= 2


def test_what_one_slide_alone_carries_is_put_down_to_the_slide():
    cases = cohort(dict.fromkeys(EVEN, 0.02))
    rows = [row("pen", n, score="3+", blur_he=9.0) for n in range(60)]
    cases.append(case("pen", rows, score="3+"))
    (share,) = [one for one in score_shares(cases) if one.verdict]
    assert (share.verdict, share.score) == ("slides", "3+")
    assert share.p_cases > 0.01
    assert data_set_funnel("demo", cases).flagged == []


def test_with_few_cases_a_score_is_flagged_when_its_other_cases_lose_as_much():
    both = cohort({"0": 0.05, "3+": 0.4}, n_cases=2)
    assert flagged(both) == [("restained", "blur_he", "3+")]
    one = cohort({"0": 0.05, "3+": 0.05}, n_cases=2)
    one[-1] = case("worst", [row("worst", n, score="3+", blur_he=9.0) for n in range(60)], score="3+")
    assert [share.verdict for share in score_shares(one) if share.verdict] == ["slides"]


def test_with_one_case_a_score_the_tiles_decide_and_the_sentence_says_so():
    cases = cohort({**EVEN, "3+": 0.5}, n_cases=1)
    assert flagged(cases) == [("restained", "blur_he", "3+")]
    (share,) = [one for one in score_shares(cases) if one.verdict]
    assert share.p_cases is None
    assert "in 1 of its 1 cases; too few cases to tell the score from its slides" in share.told
    unknown = cohort({**EVEN, "3+": 0.5}, n_cases=1, case_ids=False)
    assert "; cases unknown" in next(one for one in score_shares(unknown) if one.verdict).told


def test_a_few_dropped_tiles_say_nothing_of_a_score():
    cases = [
        case(f"C{score}", [row(f"C{score}", n, score=score, blur_he=9.0 if n < bad else 0.1) for n in range(400)])
        for score, bad in (("0", 0), ("3+", 4))
    ]
    assert flagged(cases) == []
    assert max(share.dropped for share in score_shares(cases)) == 4


def test_kinds_of_section_are_never_pooled():
    restained = cohort({"0": 0.05, "3+": 0.05}, spread=0.01)
    consecutive = cohort({"0": 0.05, "3+": 0.6}, section="consecutive", spread=0.01)
    shares = score_shares([*restained, *consecutive])
    # Pooled, restained tiles would stand beside consecutive ones, whose limits are others.
    assert {share.section: share.tiles + share.tiles_others for share in shares} == {
        "restained": 600,
        "consecutive": 600,
    }
    assert flagged([*restained, *consecutive]) == [("consecutive", "blur_he", "3+")]
    found = data_set_funnel("demo", [*restained, *consecutive])
    assert set(found.whole) == {"restained", "consecutive"}
    assert found.limits["restained"]["blur_he"].max == 1
    assert found.limits["consecutive"]["blur_he"].max == 3


def test_one_score_alone_is_compared_with_nothing():
    assert score_shares(cohort({"3+": 0.5})) == []


def test_the_exact_test_is_that_of_scipy():
    from scipy.stats import fisher_exact

    for dropped, tiles, dropped_all, tiles_all in [
        (8, 20, 10, 80),
        (5, 5, 5, 300),
        (0, 10, 4, 40),
        (30, 600, 90, 2400),
    ]:
        table = [[dropped, tiles - dropped], [dropped_all - dropped, tiles_all - tiles - dropped_all + dropped]]
        expected = fisher_exact(table, alternative="greater").pvalue
        assert fisher(dropped, tiles, dropped_all, tiles_all) == pytest.approx(expected, rel=6e-3)


def test_relabelling_tries_all_ways_or_says_that_there_are_too_few():
    counts = np.array([[10, 9], [10, 8], [10, 7]] + [[10, 0]] * 7)
    own = np.arange(10) < 3
    assert relabelled(counts, own) == pytest.approx(1 / 120)
    assert relabelled(counts, np.roll(own, 5)) == 1.0
    assert relabelled(counts[:6], own[:6]) is None
    many = np.concatenate([counts] * 4)
    assert relabelled(many, np.arange(40) < 12) == relabelled(many, np.arange(40) < 12)
