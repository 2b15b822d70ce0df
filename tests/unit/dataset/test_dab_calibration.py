import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import stains as stains_commands
from hepipe.config import load_config
from hepipe.dataset.cohort import Cohort
from hepipe.dataset.dab_calibration import BINS, MAX_OD, calibrate, thresholds_of, youden_cut
from hepipe.dataset.schedule import Scheduler
from hepipe.errors import ConfigError
from hepipe.quality.stain import tissue_of
from hepipe.specs.stains import StainsSpec
from hepipe.stains.matrices import DAB, HAEMATOXYLIN
from hepipe.stores.cases import CaseStains, SlideStains, write_stains
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, read_provenance, read_table, write_table

STRENGTH = {"0": 0.1, "1+": 0.3, "2+": 0.5, "3+": 0.9}


def histogram(*px):
    counts = np.zeros(BINS, np.int64)
    for od, count in px:
        counts[int(od / (MAX_OD / BINS))] += count
    return counts


def test_the_thresholds_are_a_percentile_and_two_youden_cuts():
    counts = np.stack(
        [
            histogram((0.0525, 990), (0.1525, 10)),
            histogram((0.0525, 500), (0.2025, 500)),
            histogram((0.0525, 500), (0.4025, 500)),
            histogram((0.0525, 500), (0.8025, 500)),
        ]
    )
    found, youden, used = thresholds_of(counts, ["0", "1+", "2+", "3+"])
    assert found == pytest.approx((0.055, 0.3025, 0.6025), abs=1e-3)
    assert youden == (1, 1)
    assert used == {"0": 1, "1+": 1, "2+": 1, "3+": 1}


def test_a_tile_with_hardly_any_dab_has_no_say_in_how_strong_dab_is():
    tiles = [
        ("0", histogram((0.05, 1000))),
        ("1+", histogram((0.05, 1000), (2.0, 2))),
        ("1+", histogram((0.05, 500), (0.2, 500))),
        ("2+", histogram((0.4, 1000))),
        ("3+", histogram((0.8, 1000))),
    ]
    found, _, used = thresholds_of(np.stack([counts for _, counts in tiles]), [score for score, _ in tiles])
    assert used["1+"] == 1
    assert found[1] == pytest.approx(0.3, abs=0.01)


def test_scores_that_the_index_does_not_put_in_order_are_refused():
    counts = np.stack([histogram((0.05, 9)), *(histogram((od, 9)) for od in (0.2, 0.8, 0.4))])
    with pytest.raises(ConfigError, match="do not ascend"):
        thresholds_of(counts, ["0", "1+", "2+", "3+"])


def test_a_youden_cut_is_the_best_of_all_cuts():
    rng = np.random.default_rng(4)
    weaker, stronger = rng.normal(0, 1, 60), rng.normal(1.5, 1, 40)
    cut, j = youden_cut(weaker, stronger)
    every = [(stronger >= at).mean() + (weaker < at).mean() - 1 for at in np.linspace(-4, 5, 5000)]
    assert j == pytest.approx(max(every), abs=1e-9)
    assert (stronger >= cut).mean() + (weaker < cut).mean() - 1 == pytest.approx(j)


def painted(random, store, number, stain):
    """Tissue of haematoxylin, a half of it with DAB as strong as the score of the case; test tiles are all black."""
    if stain == "he" or store == "t":
        return np.zeros((64, 64, 3), np.uint8)
    dab = np.zeros((64, 64))
    dab[:32] = STRENGTH[{"a": "0", "b": "1+", "c": "2+", "d": "3+"}[store]] + random.normal(0, 0.01, (32, 64))
    unit = [np.array(vector) / np.linalg.norm(vector) for vector in (HAEMATOXYLIN, DAB)]
    light = 240 * 10 ** -(0.3 * unit[0] + dab.clip(0)[..., None] * unit[1])
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


@pytest.fixture
def index(make_cohort):
    plan = {name: [(name, f"p-{name}", "train")] * 2 for name in "abcd"} | {"t": [("t", "p-t", "test")]}
    path, _ = make_cohort(plan=plan, paint=painted)
    scores = dict(zip("abcdt", ["0", "1+", "2+", "3+", "0"], strict=True))
    rows = [{**row, "her2_score": scores[row["case_id"]]} for row in read_table(path, INDEX)]
    write_table(rows, path, INDEX, read_provenance(path))
    for store in plan:
        ihc = SlideStains(first=HAEMATOXYLIN, second=DAB, white=(240.0, 240.0, 240.0), method="fixed", n_pixels=1)
        record = CaseStains(case_id=store, he=ihc, ihc=ihc, provenance=Provenance(artefact="stains", subject=store))
        write_stains(path.parent / "stains" / f"{store}.json", record)
    return path


def test_only_training_tiles_are_looked_at_and_the_config_takes_the_file(index, tmp_path):
    app, file = typer.Typer(), tmp_path / "dab.json"
    stains_commands.register(app)
    said = (
        CliRunner()
        .invoke(app, ["stains", "calibrate", "--index", str(index), "--record", str(file)], catch_exceptions=False)
        .output
    )
    weak, moderate, strong = json.loads(file.read_text())["thresholds_od"]
    assert 0.09 < weak < 0.16
    assert moderate == pytest.approx(0.4, abs=0.03)
    assert strong == pytest.approx(0.7, abs=0.03)
    assert "2 of 2 training tiles, 1 cases" in said
    stains = {"dab_method": "absolute", "dab_calibration": str(file)}
    config = load_config({"datasets": {"a": {"sheet": "x.tsv", "stains": stains}}})
    spec = config.datasets["a"].sections.stains
    assert spec.dab_thresholds_od == (weak, moderate, strong)
    assert str(tmp_path) not in spec.model_dump_json()


def test_other_tiles_than_those_of_training_are_refused(index):
    with pytest.raises(ConfigError, match="training tiles alone"):
        calibrate(Cohort(index), Scheduler(1), tissue=tissue_of)


def test_workers_change_nothing(index):
    one, many = (
        calibrate(Cohort(index, split="train", chunk_mb=1e-6), Scheduler(workers), tissue=tissue_of)
        for workers in (1, 3)
    )
    assert one == many


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("[1]", "no calibration"),
        ("{", "no calibration"),
        ('{"thresholds_od": [3, 2, 1]}', "ascending"),
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path, text, message):
    file = tmp_path / "dab.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config({"stains": {"dab_calibration": str(file)}, "datasets": {"a": {"sheet": "x.tsv"}}})


def test_absolute_without_thresholds_says_where_they_come_from():
    with pytest.raises(ValueError, match="hepipe stains calibrate"):
        StainsSpec(dab_method="absolute")
