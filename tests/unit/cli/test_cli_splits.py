import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import splits
from hepipe.dataset.audit import KINDS, Leak, LeakAudit
from hepipe.dataset.card import DatasetCard
from hepipe.dataset.splits import Patient, assign
from hepipe.dataset.strata import Stratum
from hepipe.errors import ConfigError
from hepipe.specs.dataset import SplitsSpec
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, read_provenance, read_table, write_table

app = typer.Typer()
splits.register(app)
app.command("another")(lambda: None)


def row(number, fold):
    filled = dict.fromkeys(INDEX.names, "")
    filled |= dict.fromkeys(("x_px0", "y_px0", "canvas_x_px0", "canvas_y_px0", "row_in_store"), 0)
    return filled | {"tile_id": f"c{number}", "mpp": 0.5, "tissue_frac": 1.0, "measurements": {}, "fold": fold}


def test_a_fold_gets_its_index_and_says_its_counts(tmp_path):
    index, out = tmp_path / "index.parquet", tmp_path / "fold-2.parquet"
    made = Provenance(artefact="dataset", subject="set", spec=SplitsSpec(folds=3).model_dump(mode="json"))
    write_table([row(number, number % 3) for number in range(7)], index, INDEX, made)
    done = CliRunner().invoke(app, ["fold", "--index", str(index), "--fold", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "fold 2: tiles train 2, val 3, test 2" in done.output
    assert [one["split"] for one in read_table(out, INDEX)] == ["val", "train", "test"] * 2 + ["val"]
    assert read_provenance(out).told["fold"] == 2
    again = CliRunner().invoke(app, ["fold", "--index", str(index), "--fold", "3", "--out", str(out)])
    assert isinstance(again.exception, ConfigError)


def test_assembling_prints_strata_the_proof_advice_and_leaks(capsys):
    patients = [Patient(f"p{number}", 10, frozenset({"0"})) for number in range(6)]
    leaks = LeakAudit(
        n_tiles=60, n_hashed=60, near_bits=6, official=True, counts=dict.fromkeys(KINDS, 0) | {"slide": 1},
        leaks=(Leak(kind="slide", what="s1", splits=("test", "train")),),
    )  # fmt: skip
    card = DatasetCard.model_construct(
        strata=(Stratum(score="0", group="train", tiles=40, slides=4, patients=4),),
        batches=(Stratum(score="0", group="b1", tiles=60, slides=6, patients=6),),
        proof=assign(patients, SplitsSpec()).proof,
        leaks=leaks,
        cases=(),
        provenance=Provenance(artefact="dataset", subject="set", spec=SplitsSpec().model_dump(mode="json")),
    )
    splits.say_splits(card)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[:2] == ["HER2 (tiles | slides | patients)  train", "0                                 40 | 4 | 4"]
    assert "nothing betters it" in lines
    assert "leak audit: 60 tiles, 1 leak; near is 6 of 63 bits; 0 pairs were alike at a coarse look only" in lines
    assert "LEAK: slide s1 is in test and in train" in said.err


@pytest.mark.parametrize(("cases", "folds"), [(6, 3), (9, 4), (10, 5), (30, 5), (31, None)])
def test_few_cases_are_advised_folds(cases, folds):
    from hepipe.dataset.splits import recommendation

    said = recommendation(cases, None)
    assert (said is None) if folds is None else (f"splits.folds: {folds}," in said)
    assert recommendation(cases, 5) is None
