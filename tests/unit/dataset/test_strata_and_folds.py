from dataclasses import replace

import pytest

from hepipe.dataset.cases import CaseTiles
from hepipe.dataset.folds import check_fold, index_of_fold
from hepipe.dataset.index import assemble
from hepipe.dataset.strata import batch_warnings, by_batch, by_split, table
from hepipe.errors import ConfigError
from hepipe.sheet import SCORES
from hepipe.specs.dataset import SplitsSpec
from hepipe.status import OK
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, read_provenance, read_table, write_table


def case(number, *, score=None, tiles=4, patient=None, batch="b1", fixed=None, dab=0.1):
    case_id, patient_id = f"c{number}", patient or f"p{number}"
    score = SCORES[number % 4] if score is None else score
    rows = [
        {
            "tile_id": f"{case_id}/{n}", "case_id": case_id, "patient_id": patient_id, "slide_id": f"{case_id}-he",
            "her2_score": score, "batch": batch, "he_sha256": f"h{case_id}{n}", "ihc_sha256": f"i{case_id}{n}",
            "source_split": None, "place": "inside", "region": "", "measurements": {"dab_frac": dab},
        }
        for n in range(tiles)
    ]  # fmt: skip
    keep = {row["tile_id"]: True for row in rows}
    aligned = dict.fromkeys(keep, "aligned")
    return CaseTiles(case_id, patient_id, score, fixed, rows, keep, OK, {}, "t", alignment=aligned)


def test_every_stratum_is_told_as_tiles_slides_and_patients():
    cases = [case(n) for n in range(12)] + [replace(case(12, score="0"), patient_id="p0")]
    for row in cases[-1].tiles:
        row["patient_id"] = "p0"
    rows, card = assemble("set", cases, SplitsSpec())
    assert {(one.score, one.group) for one in card.strata} == {
        (score, split) for score in SCORES for split in ("train", "val", "test")
    }
    assert sum(one.tiles for one in card.strata) == 52
    assert sum(one.slides for one in card.strata) == 13
    of_p0 = next(row["split"] for row in rows if row["patient_id"] == "p0")
    stratum = next(one for one in card.strata if (one.score, one.group) == ("0", of_p0))
    assert stratum.counts.split(" | ")[1:] == [str(stratum.slides), str(stratum.slides - 1)]
    head, lines = table(card.strata)
    assert head == ["HER2", "train", "val", "test"]
    assert [line[0] for line in lines] == list(SCORES)


def test_an_unknown_patient_is_a_dash_and_a_split_without_a_score_shows_its_zero():
    rows = [
        {"split": "train", "place": "inside", "her2_score": "0", "case_id": None, "patient_id": None},
        {"split": "test", "place": "inside", "her2_score": None, "case_id": "a", "patient_id": "a"},
        {"split": "test", "place": "outside", "her2_score": "0", "case_id": "a", "patient_id": "a"},
    ]
    head, lines = table(by_split(rows))
    assert head == ["HER2", "train", "test"]
    assert lines == [["0", "1 | – | –", "0 | 0 | 0"], ["unknown", "0 | 0 | 0", "1 | 1 | 1"]]
    assert by_batch(rows) == ()


def test_a_split_that_stays_empty_is_shown_with_zeros():
    _, card = assemble("set", [case(0, tiles=5), case(1, tiles=5)], SplitsSpec())
    head, lines = table(card.strata)
    assert head == ["HER2", "train", "val", "test"]
    assert sum(line.count("0 | 0 | 0") for line in lines) == 4
    assert any(warning.startswith("no tiles in ") for warning in card.warnings)


def test_a_batch_with_one_score_alone_is_confounded():
    mixed = [case(n, batch="b1") for n in range(8)] + [case(n, score="3+", batch="b2") for n in range(8, 11)]
    _, card = assemble("set", mixed, SplitsSpec())
    (told,) = [warning for warning in card.warnings if "confounded" in warning]
    assert told.startswith("staining batch b2 holds score 3+ alone")
    same = by_batch([row for one in mixed[8:] for row in one.tiles])
    assert batch_warnings(same) == []


def test_the_card_says_how_good_the_division_is_and_that_nothing_leaks():
    _, card = assemble("set", [case(n) for n in range(12)], SplitsSpec())
    assert card.proof.verdict == "nothing betters it"
    assert card.proof.missing == 0
    assert card.proof.dab_mean == pytest.approx(0.1)
    assert (card.leaks.n_leaks, card.leaks.n_tiles, card.leaks.official) == (0, 48, False)


def test_one_patient_with_two_fixed_splits_is_a_mistake_that_names_both():
    cases = [case(0, patient="p", fixed="test"), case(1, patient="p", fixed="train")]
    with pytest.raises(ConfigError, match="patient p is fixed to test and to train"):
        assemble("set", cases, SplitsSpec())


def test_a_slide_under_two_patients_of_two_splits_stops_the_data_set():
    cases = [replace(case(n), slides={"he": f"{n}" * 64}) for n in range(8)]
    assemble("set", cases, SplitsSpec())
    cases += [replace(case(n, tiles=60), slides={"he": "x" * 64}) for n in (8, 9)]
    with pytest.raises(ConfigError, match="he slide of cases c8, c9") as error:
        assemble("set", cases, SplitsSpec(shares={"train": 0.5, "test": 0.5}))
    assert "correct patient_id" in str(error.value)


def test_each_fold_has_its_own_index_and_a_run_refuses_that_of_another(tmp_path):
    rows, card = assemble("set", [case(n) for n in range(8)], SplitsSpec(folds=4))
    assert {one.group for one in card.strata} == {f"fold {n}" for n in range(4)}
    assert {row["fold"] for row in rows} == {0, 1, 2, 3}
    for fold in range(4):
        own = index_of_fold(rows, fold, folds=4, where="index")
        assert {row["split"] for row in own if row["fold"] == fold} == {"test"}
        assert {row["split"] for row in own if row["fold"] == (fold + 1) % 4} == {"val"}
    assert [row["split"] for row in index_of_fold(rows, 0, folds=4, where="index")] == [row["split"] for row in rows]
    with pytest.raises(ConfigError, match="has folds 0 to 3, no fold 4"):
        index_of_fold(rows, 4, folds=4, where="index")
    with pytest.raises(ConfigError, match=r"has no folds; set splits\.folds"):
        index_of_fold(rows, 0, folds=None, where="index")
    imported = [{**row, "fold": None} for row in rows]
    with pytest.raises(ConfigError, match="keeps the splits it came with"):
        index_of_fold(imported, 0, folds=4, where="index")
    path = tmp_path / "fold-1.parquet"
    write_table([], path, INDEX, Provenance(artefact="dataset", subject="set", told={"fold": 1}))
    check_fold(path, 1)
    with pytest.raises(ConfigError, match="has the splits of fold 1, the run asks for none"):
        check_fold(path, None)
    with pytest.raises(ConfigError, match="has the splits of fold 1, the run asks for fold 2"):
        check_fold(path, 2)
    whole = tmp_path / "index.parquet"
    write_table([], whole, INDEX, Provenance(artefact="dataset", subject="other"))
    check_fold(whole, 2, dataset="set")
    assert read_table(whole, INDEX) == []
    assert read_provenance(path).told["fold"] == 1
