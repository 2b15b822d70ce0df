import csv
import html
import json
import re

import pytest

from hepipe.dataset.card import write_card
from hepipe.dataset.cases import IMPORTED, CaseTiles
from hepipe.dataset.index import assemble
from hepipe.report.page import RESEARCH_ONLY, write_report
from hepipe.report.spec import ReportSpec
from hepipe.specs.dataset import SplitsSpec
from hepipe.status import OK, failed


@pytest.fixture
def written(tmp_path):
    def write(results):
        page, status, tables = tmp_path / "report.html", tmp_path / "status.tsv", tmp_path / "tables"
        spec = ReportSpec.model_validate_json(json.dumps(results.spec))
        write_report(results.folder, spec, page=page, status=status, tables=tables)
        with status.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return page.read_text(encoding="utf-8"), rows, tables

    return write


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)))


def test_the_page_holds_every_part_and_says_what_it_is_not_for(results, cohort, written):
    results.dataset("restained", cohort, note="mpp is nominal").run("copy", "restained").run(
        "worse", "restained", noise=60
    )
    page, rows, tables = written(results)
    shown = text_of(page)
    assert shown.count(RESEARCH_ONLY) == 2
    for words in ("mpp is nominal", "similarity 0.2", "dropped: blur_he", "DAB mask", "after registration", "real IHC"):
        assert words in shown, words
    assert "median 120 → 3.20 µm" in shown
    assert [row["state"] for row in rows] == ["ok", "review", "ok"]
    assert {path.name for path in tables.iterdir()} == {
        "status.csv",
        "leaderboard.csv",
        "cases.csv",
        "funnel.csv",
        "filters_by_score.csv",
    }


def test_nothing_on_the_page_comes_from_elsewhere(results, cohort, written):
    page, _, _ = written(results.dataset("restained", cohort).run("copy", "restained"))
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_the_better_run_is_bold_and_the_other_underlined(results, cohort, written):
    results.dataset("restained", cohort).run("near", "restained", noise=5).run("far", "restained", noise=60)
    page, _, tables = written(results)
    board = page[page.index('id="leaderboard"') : page.index('id="gallery"')]
    near, far = (board[board.index(f"<b>{run}</b>") :].split("</tr>")[0] for run in ("near", "far"))
    assert re.search(r"<td[^>]*><b[ >]", near)
    assert not re.search(r"<td[^>]*><b[ >]", far)
    assert re.search(r"<td[^>]*><u[ >]", far)
    with (tables / "leaderboard.csv").open(newline="") as file:
        values = {row["run"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "ssim"}
    assert values["near"] > values["far"]


def test_missing_weights_stand_in_the_cells_that_need_them(results, cohort, written):
    page, _, tables = written(results.dataset("restained", cohort).run("copy", "restained"))
    assert "weights missing (fid-inception)" in text_of(page)
    assert "not computed: weights missing (fid-inception)" in (tables / "leaderboard.csv").read_text()


def test_ids_from_the_sheet_stay_text(results, written):
    bad = "<img src=x onerror=alert(1)>"
    results.dataset("restained", [("C1", "0", failed("slides", bad)), ("C2", "1+", OK)], note=bad)
    results.spec["title"] = bad
    page, rows, _ = written(results)
    assert "<img src=x" not in page
    assert html.escape(bad) in page
    assert rows[0]["reason"] == bad


def test_a_cohort_in_which_every_case_failed_renders(results, written):
    results.dataset(
        "restained", [("C1", "0", failed("slides", "no tissue")), ("C2", None, failed("registration", "no match"))]
    )
    page, rows, _ = written(results)
    assert [(row["state"], row["stage"], row["reason"]) for row in rows] == [
        ("failed", "slides", "no tissue"),
        ("failed", "registration", "no match"),
    ]
    assert "no match" in text_of(page)


def test_one_case_without_any_dab_renders_and_says_what_is_undefined(results, written):
    results.dataset("restained", [("C1", "0", OK)], strength=0.0).run("copy", "restained", noise=0.5)
    page, _, _ = written(results)
    assert "no DAB in either tile" in text_of(page)
    assert "One case: interval not computed" in text_of(page)


def test_an_empty_folder_renders_and_names_what_is_not_there(results, written):
    results.folder.mkdir()
    results.spec |= {
        "datasets": {"bci": {"cases": "imported"}, "slides": {"cases": ["C1"]}},
        "runs": {"cut": {"dataset": "bci", "on": {"bci": "test"}}},
    }
    page, rows, _ = written(results)
    shown = text_of(page)
    for words in ("bci: not assembled", "run cut: not configured", "not scored yet"):
        assert words in shown, words
    assert [row["case_id"] for row in rows] == ["imported", "C1"]


def test_an_imported_set_of_which_no_tile_passes_is_not_called_ok(results, written):
    status = failed("quality", "no tile of 3 passes")
    rows, card = assemble("bci", [CaseTiles(IMPORTED, None, None, None, [], {}, status, {}, "")], SplitsSpec())
    assert rows == []
    write_card(results.folder / "bci" / "dataset.json", card)
    results.spec["datasets"]["bci"] = {"cases": "imported"}
    _, told, _ = written(results)
    assert [(row["state"], row["reason"]) for row in told] == [("review", "case imported failed: no tile of 3 passes")]


def test_no_run_and_no_data_set_render(results, written):
    results.folder.mkdir()
    page, rows, _ = written(results)
    assert "No data set in this report." in page
    assert rows == []


def test_tiles_that_chose_a_checkpoint_do_not_judge_it(results, cohort, written):
    results.dataset("restained", cohort).run("peeked", "restained", split="val", select="ssim")
    page, _, tables = written(results)
    leaderboard, _, ablations = text_of(page).partition("Ablations")[2].partition("Ablations")
    assert "peeked" not in leaderboard
    assert "checkpoint chosen on this split" in ablations
    assert "peeked" not in (tables / "leaderboard.csv").read_text()
    rows = list(csv.DictReader((tables / "ablations.csv").read_text().splitlines()))
    assert {(row["run"], row["marks"]) for row in rows} == {("peeked", "checkpoint chosen on this split")}


def test_the_same_results_give_the_same_page(results, cohort, written):
    results.dataset("restained", cohort).run("copy", "restained")
    assert written(results)[0] == written(results)[0]


def test_many_cases_stay_a_page_of_tables_with_few_pictures(results, written):
    results.dataset("restained", [(f"C{n:03d}", "1+", OK) for n in range(60)], n_tiles=2)
    results.spec["max_picture_cases"] = 4
    page, rows, _ = written(results)
    assert len(rows) == 60
    assert page.count("after registration, case") == 4
    assert len(page) < 3_000_000
