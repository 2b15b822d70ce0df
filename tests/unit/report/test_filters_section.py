import csv
import re

import numpy as np
import pytest

from hepipe.quality.funnel import Graded, data_set_funnel, write_funnel
from hepipe.quality.verdict import grade
from hepipe.report.figures import stacked_bars
from hepipe.report.filters import filters
from hepipe.report.gather import gather
from hepipe.report.page import write_report
from hepipe.report.spec import ReportSpec
from hepipe.specs.quality import QualitySpec

SPEC = QualitySpec.model_validate(
    {"limits": {"restained": {"blur_he": {"max": 1}, "pen_ihc": {"max": 0.1}}, "consecutive": {"blur_he": {"max": 3}}}}
)


def graded(case_id, score, *, blurred=0, inked=0, n_tiles=40, section="restained"):
    rows = [
        {
            "tile_id": f"{case_id}/{n}",
            "case_id": case_id,
            "section": section,
            "her2_score": score,
            "problem": "",
            "measurements": {
                "blur_he": 9.0 if n < blurred else 0.1,
                "pen_ihc": 0.5 if n >= n_tiles - inked else 0.0,
                "shift_um": 0.1,
                "ncc_peak": 0.9,
                "search_um": 12.0,
            },
        }
        for n in range(n_tiles)
    ]
    verdicts = grade(rows, SPEC)
    kept = frozenset(verdict["tile_id"] for verdict in verdicts if verdict["keep"])
    told = {"n_cells": 100, "n_tissue": n_tiles + 10, "n_inside": n_tiles, "n_outside": 0}
    return Graded(case_id, section, score, rows, verdicts, told, SPEC, kept, {})


@pytest.fixture
def page(tmp_path):
    """The part of the page, the CSV tables' folder."""

    def make(cases):
        folder = tmp_path / "results"
        (folder / "set").mkdir(parents=True)
        write_funnel(folder / "set" / "funnel.json", data_set_funnel("set", cases))
        spec = ReportSpec.model_validate({"datasets": {"set": {"cases": [case.case_id for case in cases]}}})
        write_report(
            folder, spec, page=tmp_path / "report.html", status=tmp_path / "status.tsv", tables=tmp_path / "tables"
        )
        return filters(gather(folder, spec)).markup, tmp_path / "tables"

    return make


def table(folder, name):
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_names_flags_alarms_limits_and_every_case(page):
    rng = np.random.default_rng(4)
    cases = [
        graded(f"{score}-{n}", score, blurred=int(rng.integers(12, 16) if score == "3+" else rng.integers(1, 4)))
        for score in ("0", "1+", "2+", "3+")
        for n in range(5)
    ]
    cases.append(graded("<b>odd</b>", "0", inked=30))
    markup, tables = page(cases)
    assert "filter blur_he drops" in markup
    assert "of the 3+ tiles" in markup
    assert "Filters that empty a slide: &lt;b&gt;odd&lt;/b&gt;: pen_ihc." in markup
    assert "<b>odd" not in markup
    assert "≤ 1" in markup
    assert "more than the others" in markup
    assert markup.count("<rect") >= len(cases)
    for case in cases[:-1]:
        assert f"<td>{case.case_id}</td>" in markup
    steps = table(tables, "funnel.csv")
    for case in cases:
        own = [row for row in steps if row["case_id"] == case.case_id]
        assert int(own[0]["left"]) == sum(int(row["dropped"]) for row in own) + int(own[-1]["left"]) == 100
    assert [row["step"] for row in steps if row["alarm"] == "1"] == ["pen_ihc"]
    flags = [(row["name"], row["score"]) for row in table(tables, "filters_by_score.csv") if row["verdict"] == "score"]
    assert flags == [("blur_he", "3+")]


def test_kinds_of_section_stand_apart(page):
    markup, _ = page([graded("a", "0", blurred=5), graded("b", "0", blurred=5, section="consecutive")])
    assert markup.index("<h4>restained, 1 case</h4>") < markup.index("≤ 1<") < markup.index("consecutive, 1 case")
    assert markup.index("consecutive, 1 case") < markup.index("≤ 3<")


def test_seven_reasons_the_rest_and_what_is_kept_have_colours_of_their_own():
    parts = {**{f"filter {n}": n + 1 for n in range(7)}, "other reasons": 3, "kept": 12}
    drawn = stacked_bars({"a <b>": parts, "empty": dict.fromkeys(parts, 0)}, kept="kept").markup
    assert len(set(re.findall(r'<rect class="([^"]+)"', drawn))) == len(parts)
    widths = [float(width) for width in re.findall(r'width="([0-9.]+)" height', drawn)]
    assert sum(widths) == pytest.approx(widths[-1] * sum(parts.values()) / parts["kept"], abs=1)
    assert "a &lt;b&gt;: kept 12 of 43" in drawn


def test_a_data_set_that_was_not_assembled_says_so(tmp_path):
    spec = ReportSpec.model_validate({"datasets": {"set": {"cases": ["a"]}}})
    found = gather(tmp_path, spec)
    assert "was not assembled" in filters(found).markup
    assert "data set set: its funnel is not counted" in found.remarks
