"""A data set made again elsewhere, on another number of cores, from the transforms that travel with the first."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hepipe.dataset.card import read_card
from hepipe.stores.arrays import read_registered

ROOT = Path(__file__).parents[2]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hepipe", *map(str, words)]
    return subprocess.run(command, check=False, cwd=ROOT, text=True, capture_output=True)


@pytest.fixture(scope="module")
def again(finished, base, tmp_path_factory):
    """The good pair of the finished folder's sheet, and the same pair as a case whose transform did not travel."""
    folder = type(finished)(tmp_path_factory.mktemp("again"))
    shutil.copytree(finished.path / "slides", folder.path / "elsewhere")
    packed = run("dataset", "pack", finished.path / "results/sheet", folder.path / "pack")
    assert packed.returncode == 0, packed.stderr
    with (finished.path / "slides.tsv").open(newline="") as lines:
        good = next(row for row in csv.DictReader(lines, delimiter="\t") if row["case_id"] == "good")
    moved = {key: value.replace("slides/", "elsewhere/") for key, value in good.items()}
    # Another file with the same tiles: a few bytes that nothing points at, as a removed label leaves them.
    with (folder.path / moved["ihc"]).open("ab") as file:
        file.write(b"\0" * 64)
    with (folder.path / "slides.tsv").open("w", newline="") as lines:
        sheet = csv.DictWriter(lines, list(moved), delimiter="\t", lineterminator="\n")
        sheet.writeheader()
        sheet.writerows([moved, {**moved, "case_id": "untravelled", "patient_id": "p-2"}])
    sections = ("registration", "tiling", "quality", "splits")
    config = {
        "datasets": {"renamed": {"sheet": "slides.tsv", "transforms": "pack"}},
        **{name: base[name] for name in sections},
    }
    # Of no matter: nothing is registered.
    config["registration"] = {"overview_px": 512}
    done = folder.snakemake("--cores", "1", "results/renamed/dataset.json", config=config)
    assert done.returncode == 0, done.stdout[-6000:]
    return folder


def test_it_has_the_fingerprint_of_the_first(finished, again):
    first = read_card(finished.path / "results/sheet/dataset.json")
    second = read_card(again.path / "results/renamed/dataset.json")
    assert second.made_of.cases["good"] == first.made_of.cases["good"]
    if set(first.made_of.cases) == {"good"}:
        assert second.fingerprint == first.fingerprint


def test_its_slides_are_other_files_with_the_same_content(finished, again):
    first, second = (
        json.loads((path / "checked/good.json").read_text())
        for path in (finished.path / "results/sheet", again.path / "results/renamed")
    )
    assert first["ihc"]["content_sha256"] == second["ihc"]["content_sha256"]
    assert first["ihc"]["file_sha256"] != second["ihc"]["file_sha256"]


def test_nothing_was_registered_and_the_record_says_so(finished, again):
    first = read_registered(finished.path / "results/sheet/registered/good.zarr")
    second = read_registered(again.path / "results/renamed/registered/good.zarr")
    assert second.digest == first.digest
    assert second.provenance.spec == first.provenance.spec
    assert second.provenance.told["transform"].startswith("taken from the data set")


def test_a_case_whose_transform_did_not_travel_fails_alone(again):
    card = read_card(again.path / "results/renamed/dataset.json")
    (lost,) = (case for case in card.cases if case.case_id == "untravelled")
    assert lost.status.failed
    assert "no stored transform of this case" in lost.status.reason


def test_both_data_sets_verify_to_their_pixels(finished, again):
    for folder in (finished.path / "results/cohort", finished.path / "results/pairs", again.path / "results/renamed"):
        done = run("dataset", "verify", folder, "--deep", "--workers", "2")
        assert done.returncode == 0, done.stdout


def test_a_transforms_folder_that_is_none_stops_the_dry_run(again, base):
    config = {"datasets": {"renamed": {"sheet": "slides.tsv", "transforms": "nowhere"}}}
    done = again.snakemake("-n", config=config)
    assert done.returncode != 0
    assert "datasets.renamed.transforms: nowhere has no folder `registered`" in done.stdout


def test_the_cards_of_finished_data_sets_name_no_file(finished):
    done = run("dataset", "card", finished.path / "results/sheet", "--out", finished.path / "card-of-sheet")
    assert done.returncode == 0, done.stderr
    text = (finished.path / "card-of-sheet/README.md").read_text()
    text += (finished.path / "card-of-sheet/card.html").read_text()
    for name in ("letter.svs", "nowhere.svs", "he.tif", str(finished.path), os.sep + "slides" + os.sep):
        assert name not in text, name
