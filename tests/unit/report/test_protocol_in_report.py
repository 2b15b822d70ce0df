"""What the report says of runs that do not compare fairly."""

import csv
import html
import json
import re

import pytest

from hepipe.dataset.shared import Shared
from hepipe.report import gather as gathering
from hepipe.report.folds import with_folds_joined
from hepipe.report.gather import RunScores, gather
from hepipe.report.page import write_report
from hepipe.report.spec import ReportSpec
from hepipe.specs.training import EvaluationSpec, TrainingSpec, protocol_in_words
from hepipe.stores.tables import HISTORY, SCORES, read_provenance, read_table, write_table

MET = Shared(n_tiles=40, trained={"pixels": 12})


@pytest.fixture
def written(tmp_path):
    def write(results):
        tables = tmp_path / "tables"
        spec = ReportSpec.model_validate_json(json.dumps(results.spec))
        write_report(results.folder, spec, page=tmp_path / "r.html", status=tmp_path / "s.tsv", tables=tables)
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        rows = list(csv.DictReader((tables / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
        return html.unescape(re.sub(r"<[^>]+>", " ", page)), rows

    return write


def tell(results, run, dataset, **told):
    path = results.folder / "runs" / run / "on" / dataset / "test" / "scores.parquet"
    made = read_provenance(path)
    write_table(read_table(path, SCORES), path, SCORES, made.model_copy(update={"told": told}))


def test_a_run_outside_the_protocol_is_shown_with_what_differs_and_not_ranked(results, cohort, written):
    results.dataset("d", cohort).run("good", "d", noise=5).run("fair", "d", noise=20).run("fairer", "d", noise=40)
    results.spec["runs"]["good"]["outside"] = {"crop_px": "64, protocol 128"}
    page, rows = written(results)
    assert "outside the protocol: crop_px 64, protocol 128" in page
    assert "not ranked" in page
    assert {row["marks"] for row in rows if row["run"] == "good"} == {"outside the protocol: crop_px 64, protocol 128"}
    found = gather(results.folder, ReportSpec.model_validate(results.spec))
    assert found.tests[0].unranked == {"good"}
    from hepipe.report.leaderboard import board

    ranks = board(found.tests[0], ["mae"], draws=100).ranks
    assert ranks == {("fair", "mae"): 1, ("fairer", "mae"): 2}


def test_a_run_that_met_the_tiles_in_training_is_flagged_and_not_ranked(results, cohort, written):
    results.dataset("d", cohort).run("met", "d").run("fair", "d")
    tell(results, "met", "d", shared=MET.model_dump(mode="json"))
    page, _ = written(results)
    assert "12 of 40 tiles met in training: 12 by the same pixels" in page
    assert gather(results.folder, ReportSpec.model_validate(results.spec)).tests[0].unranked == {"met"}


def test_tiles_that_chose_a_checkpoint_in_another_set_keep_the_run_out_of_the_leaderboard(results, cohort, written):
    results.dataset("d", cohort).run("chosen", "d").run("fair", "d")
    tell(results, "chosen", "d", shared=Shared(n_tiles=40, trained={}, chosen={"slide": 3}).model_dump(mode="json"))
    page, rows = written(results)
    assert re.search(r"chosen\s+is not in this table: 3 of its tiles chose the checkpoint, in d", page)
    assert {row["run"] for row in rows} == {"fair"}


def test_validation_tables_are_ablations_even_where_the_last_weights_are_taken(results, cohort, written):
    results.dataset("d", cohort).run("variant", "d", split="val").run("final", "d")
    page, rows = written(results)
    assert {row["run"] for row in rows} == {"final"}
    assert "Ablations" in page
    assert "checkpoint chosen on this split" not in page


def test_the_protocol_stands_with_the_leaderboard(results, cohort, written):
    training = TrainingSpec.model_validate({"crop_px": 512, "select": {"metric": "lpips_alex"}})
    evaluation = EvaluationSpec.model_validate({"tile_px": 512, "stitch": {"overlap_frac": 0, "blend": "mean"}})
    results.spec["protocol"] = protocol_in_words(training, evaluation)
    page, _ = written(results.dataset("d", cohort).run("copy", "d"))
    for words in ("2,000 steps for every run", "512 px, flipped and turned", "best lpips_alex on up to 64 validation"):
        assert words in page, words
    assert "crops share 0% of their side at least and count alike everywhere" in page


def test_marks_of_folds_are_those_of_the_run_that_joins_them():
    from test_joined_folds import record, scores

    own: dict[str, RunScores] = {f"cut-f{n}": scores(f"c{n}/1") for n in range(3)}
    marks = dict.fromkeys(own, ("outside the protocol: crop_px 64, protocol 128",))
    test = gathering.TestSet("cohort", "test", own, {}, marks=marks, unranked=frozenset(own))
    joined = with_folds_joined(test, {name: record(name, n) for n, name in enumerate(own)}, 3)
    assert joined.marks == {"cut": ("outside the protocol: crop_px 64, protocol 128",)}
    assert joined.unranked == {"cut"}


def test_what_a_run_started_from_stands_with_it_and_beside_its_scores(results, cohort, written):
    results.dataset("d", cohort).run("scratch", "d").run("other", "d")
    path = results.folder / "runs/scratch/history.parquet"
    note = "encoder is trained from scratch: no weights of role resnet50"
    made = read_provenance(path).model_copy(update={"told": {"notes": [note]}})
    write_table(read_table(path, HISTORY), path, HISTORY, made)
    page, rows = written(results)
    assert page.count(note) >= 2
    assert {row["run"] for row in rows if note in row["marks"]} == {"scratch"}
