"""The workflow as a user meets it: one whole run, a data set made again from it, and what runs after a change.

One file, as the whole run belongs to one worker of a test session.
"""

import copy
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from hepipe.dataset.card import read_card
from hepipe.dataset.curation import content_id
from hepipe.dataset.decisions import Decision, write_decisions
from hepipe.stores.arrays import read_registered
from hepipe.stores.tables import INDEX, TILES, read_table

ROOT = Path(__file__).parents[2]

VERDICTS = {
    "good": "ok",
    "letter": "failed",
    "cut": "failed",
    "absent": "failed",
    "strangers": "doubtful",  # failed or review: small drawn sections are somewhat alike
    "white": "failed",
    "no-mpp": "failed",
}


def changed(base: dict, path: str, value: object) -> dict:
    """A copy of a configuration with one key set; the path has dots."""
    config = copy.deepcopy(base)
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


def status_rows(finished) -> list[dict[str, str]]:
    with (finished.path / "results/status.tsv").open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


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


def test_one_run_ends_with_a_report_and_a_line_for_every_case(finished):
    page = (finished.path / "results/report.html").read_text()
    assert "research use only" in page.lower()
    assert {row["case_id"] for row in status_rows(finished) if row["dataset"] == "sheet"} == set(VERDICTS)


@pytest.mark.parametrize(("case", "state"), VERDICTS.items())
def test_a_case_that_cannot_be_used_is_a_verdict_with_a_reason(finished, case, state):
    row = next(row for row in status_rows(finished) if row["dataset"] == "sheet" and row["case_id"] == case)
    assert row["state"] in {"ok": {"ok"}, "failed": {"failed"}, "doubtful": {"failed", "review"}}[state], row
    assert state == "ok" or (row["stage"] and row["reason"]), row


def test_a_missing_resolution_names_the_column_to_fill(finished):
    row = next(row for row in status_rows(finished) if row["case_id"] == "no-mpp")
    assert "mpp_ihc" in row["reason"]


def test_no_file_name_leaves_the_private_folder(finished):
    private = finished.path / "results/private"
    for file in (finished.path / "results").rglob("*"):
        if file.is_file() and private not in file.parents and "synth" not in file.parts:
            content = file.read_bytes()
            for name in (b"letter.svs", b"nowhere.svs", b"case2/ihc", str(finished.path).encode()):
                assert name not in content, (file.relative_to(finished.path), name)


def test_every_split_has_tiles_and_no_patient_is_in_two(finished):
    card = json.loads((finished.path / "results/cohort/dataset.json").read_text())
    assert len(card["fingerprint"]) == 64
    splits: dict[str, set[str]] = {}
    for case in card["cases"]:
        splits.setdefault(case["patient_id"], set()).add(case["split"])
    assert all(len(found) == 1 for found in splits.values()), splits


def test_tiles_open_with_zarr_alone(finished):
    group = zarr.open_group(finished.path / "results/sheet/tiles/good.zarr", mode="r")
    assert group["he"].shape == group["ihc"].shape
    assert group["he"].shape[1:] == (128, 128, 3)
    assert group["he"].shape[0] > 0


def test_planning_says_no_error(finished):
    done = finished.snakemake("-n", "--forceall")
    assert done.returncode == 0
    assert "Error" not in done.stdout, done.stdout


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.planned() == {}


def test_a_changed_limit_grades_again_and_cuts_nothing(finished, base):
    planned = finished.planned(changed(base, "quality.limits.restained.ncc_peak.min", 0.9))
    assert planned["grade_tiles"] == 12
    assert planned["assemble_dataset"] == 3
    assert not planned.keys() & {"tile_case", "import_tiles", "register_case", "find_tissue", "check_slides"}


def test_a_network_of_the_users_cuts_again_and_registers_nothing(finished, base):
    network = {"file": "net.onnx", "sha256": "0" * 64, "mpp": 1.5, "classes": ["tissue", "fold"], "drop": {"fold": 0.1}}
    asked = changed(base, "quality.learned", network)
    told = finished.snakemake("-n", config=asked)
    assert told.returncode != 0
    assert "weights file 'net.onnx': not in weights; put it there" in told.stdout
    (finished.path / "weights").mkdir(exist_ok=True)
    (finished.path / "weights" / "net.onnx").write_bytes(b"")
    planned = finished.planned(asked)
    assert planned["tile_case"] == 11
    assert not planned.keys() & {"register_case", "find_tissue", "estimate_stains", "check_slides"}


def test_a_changed_grid_cuts_again_and_registers_nothing(finished, base):
    planned = finished.planned(changed(base, "tiling.overlap_px", 16))
    assert planned["tile_case"] == 11
    assert not planned.keys() & {"import_tiles", "register_case", "find_tissue", "estimate_stains", "check_slides"}


def test_a_changed_section_of_one_data_set_leaves_the_others(finished, base):
    planned = finished.planned(changed(base, "datasets.cohort.tissue", {"mpp": 6.0}))
    assert planned["find_tissue"] == 4
    assert planned["tile_case"] == 4
    assert planned["assemble_dataset"] == 1


def test_a_new_row_runs_its_own_jobs_and_the_data_sets(finished, base):
    planned = finished.planned(changed(base, "datasets.cohort.synth.patients", 5))
    own = ("draw_case", "check_slides", "register_case", "find_tissue", "estimate_stains", "tile_case", "grade_tiles")
    assert {rule: planned[rule] for rule in own} == dict.fromkeys(own, 1)
    assert planned["assemble_dataset"] == 1


@pytest.mark.parametrize(("column", "word"), [("accepted", "yes"), ("landmarks", "slides/case1/landmarks.csv")])
def test_a_persons_word_on_a_pair_runs_that_pair_again_and_no_other(finished, column, word):
    sheet = finished.path / "slides.tsv"
    before = sheet.read_text()
    lines = before.splitlines()
    edited = [f"{line}\t{word if line.startswith('good') else ''}" for line in lines[1:]]
    try:
        sheet.write_text("\n".join([f"{lines[0]}\t{column}", *edited]) + "\n")
        planned = finished.planned()
    finally:
        sheet.write_text(before)
    own = (
        "check_slides",
        "register_case",
        "find_tissue",
        "estimate_stains",
        "tile_case",
        "grade_tiles",
        "picture_case",
    )
    once = (*own, "landmarks_page", "review", "assemble_dataset", "report")
    assert {rule: planned.get(rule) for rule in once} == dict.fromkeys(once, 1)
    assert set(planned) == set(once)


def test_decisions_of_a_person_assemble_their_data_set_again_and_cut_nothing(finished, base, tmp_path):
    folder = finished.path / "results/cohort"
    with_decisions = changed(base, "datasets.cohort.curation", {"decisions": ["decided.csv"]})
    assert "no file decided.csv" in finished.snakemake("-n", config=with_decisions).stdout
    before = read_card(folder / "dataset.json")
    rows = read_table(folder / "index.parquet", INDEX)
    write_decisions(
        finished.path / "decided.csv", [Decision(content_id(rows[0]), rows[0]["tile_id"], "drop", "fold", "ann")]
    )
    planned = finished.planned(with_decisions)
    assert planned["assemble_dataset"] == 1
    assert not planned.keys() & {"tile_case", "grade_tiles", "import_tiles", "register_case"}
    # As the rule does it, but elsewhere: the folder is for all tests.
    command = [sys.executable, "-m", "hepipe", "assemble", "--folder", str(folder), "--decisions", "decided.csv"]
    command += ["--cases", ",".join(case.case_id for case in before.cases), "--curated", str(tmp_path / "curated.csv")]
    command += ["--index", str(tmp_path / "index.parquet"), "--card", str(tmp_path / "dataset.json")]
    spec = json.dumps({"shares": base["splits"]["shares"]})
    subprocess.run(
        [*command, "--spec", spec], check=True, cwd=finished.path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    after = read_card(tmp_path / "dataset.json")
    assert [row["tile_id"] for row in read_table(tmp_path / "index.parquet", INDEX)] == [
        row["tile_id"] for row in rows[1:]
    ]
    assert after.curation is not None
    assert after.curation.by_reason == {"curation:fold": 1}
    assert after.fingerprint != before.fingerprint
    (finished.path / "decided.csv").unlink()


def test_an_edited_outline_runs_the_tissue_of_its_pair_again_and_registers_nothing(finished):
    outlined = finished.path / "slides/regions.geojson"
    before, text = outlined.stat(), outlined.read_text()
    try:
        outlined.write_text(f"{text}\n")  # a small file that is only touched is compared by its content
        planned = finished.planned()
    finally:
        outlined.write_text(text)
        os.utime(outlined, ns=(before.st_atime_ns, before.st_mtime_ns))
    own = ("find_tissue", "estimate_stains", "tile_case", "grade_tiles", "picture_case")
    assert planned == dict.fromkeys((*own, "review", "assemble_dataset", "report"), 1)


def test_tissue_and_regions_of_a_pair_are_there_for_qupath(finished):
    document = json.loads((finished.path / "results/sheet/tissue/good.geojson").read_text())
    assert [one["properties"]["classification"]["name"] for one in document["features"]] == ["tissue", "tumour"]
    empty = json.loads((finished.path / "results/sheet/tissue/letter.geojson").read_text())
    assert empty["features"] == []
    rows = read_table(finished.path / "results/sheet/tiles/good.parquet", TILES)
    assert {(row["region"], row["place"]) for row in rows} == {("tumour", "inside")}


def test_the_report_leads_to_the_pairs_that_need_a_person(finished):
    report = (finished.path / "results/report.html").read_text()
    assert 'href="sheet/review.html"' in report
    page = (finished.path / "results/sheet/review.html").read_text()
    assert page.index('id="case-letter"') < page.index("Pairs that passed")
    for case in VERDICTS:
        assert (finished.path / f"results/sheet/landmarks/{case}.html").is_file()


def test_a_changed_run_trains_that_run_alone(finished, base):
    planned = finished.planned(changed(base, "runs.pyramid.seed", 7))
    assert planned["train"] == 1
    assert planned["predict_tiles"] == planned["score_run"] == 2
    assert "tile_case" not in planned


def test_a_typo_stops_the_dry_run_with_the_keys_path(finished, base):
    done = finished.snakemake("-n", config=changed(base, "tiling.tile_pxx", 3))
    assert done.returncode != 0
    assert "tiling.tile_pxx: Extra inputs are not permitted" in done.stdout
    assert "Traceback" not in done.stdout


def test_an_unknown_model_stops_the_dry_run(finished, base):
    done = finished.snakemake("-n", config=changed(base, "runs.pyramid.model", "pix3pix"))
    assert done.returncode != 0
    assert "runs.pyramid.model" in done.stdout
    assert "pix3pix" in done.stdout


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text + text.splitlines()[1] + "\n", "row 9, column case_id: good stands in row 2 already"),
        (lambda text: text.replace("marker", "markr", 1), "column marker is missing"),
        (lambda text: text.replace("2+", "4+", 1), "row 2, column her2_score"),
    ],
    ids=["duplicate case", "missing column", "bad cell"],
)
def test_a_bad_sheet_stops_the_dry_run_and_names_the_place(finished, edit, message):
    sheet = finished.path / "slides.tsv"
    before = sheet.read_text()
    try:
        sheet.write_text(edit(before))
        done = finished.snakemake("-n")
    finally:
        sheet.write_text(before)
    assert done.returncode != 0
    assert message in done.stdout


def test_results_that_cannot_be_written_are_one_error(tmp_path):
    (tmp_path / "config.yaml").write_text("datasets: {cohort: {synth: {patients: 1}}}\n")
    (tmp_path / "results").write_text("a file where the folder should be")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)]
    done = subprocess.run(
        [*command, "datasets", "--cores", "1", "--configfile", str(tmp_path / "config.yaml")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "cannot be written to" in done.stdout + done.stderr


def test_the_workflow_passes_snakemakes_linter(finished):
    done = finished.snakemake("--lint")
    assert done.returncode == 0, done.stdout


def test_tiles_are_cut_without_torch_and_pandas(finished, tmp_path):
    results, slides = finished.path / "results/sheet", finished.path / "slides/case1"
    inputs = {
        "he": slides / "he.tif",
        "ihc": slides / "ihc.tif",
        "checked": results / "checked/good.json",
        "transform": results / "registered/good.zarr",
        "tissue": results / "tissue/good.zarr",
        "stains": results / "stains/good.json",
        "tiles": tmp_path / "good.zarr",
        "index": tmp_path / "good.parquet",
    }
    options = [part for name, path in inputs.items() for part in (f"--{name}", str(path))]
    spec = json.dumps({"mpp": 0.5, "tile_px": 128, "min_tissue_frac": 0.4})
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'pandas'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = ['hepipe', 'tile', *{options!r}, '--spec', {spec!r}]\n"
        "from hepipe.cli.app import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    made = (results / "tiles/good.parquet").read_bytes()
    assert (tmp_path / "good.parquet").read_bytes() == made


def test_the_configuration_and_the_catalogue_stay_light():
    code = (
        "import sys, hepipe.config, hepipe.models.catalog;"
        "heavy = {'torch', 'zarr', 'openslide', 'tiffslide', 'cv2', 'pandas', 'scipy'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
