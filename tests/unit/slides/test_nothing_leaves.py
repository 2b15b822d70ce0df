"""The chain of commands on slides that carry a patient's name wherever a scanner or a clinic may put it."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from slide_files import tissue_picture, write_svs
from typer.testing import CliRunner

from hepipe.cli import commands

app = typer.Typer()
commands.register(app)

NAME = "DOE_JANE"


def run(*arguments: object, **specs: dict[str, object]) -> str:
    texts = [str(argument) for argument in arguments]
    for option, spec in specs.items():
        texts += [f"--{option}", json.dumps(spec)]
    result = CliRunner().invoke(app, texts)
    assert result.exit_code == 0, (texts[0], result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a case leaves, from its check to the report's pictures and the index."""
    folder = tmp_path_factory.mktemp("clinic") / NAME
    folder.mkdir()
    results = folder.parent / "results"
    picture = tissue_picture(1024, 1024)
    texture = np.random.default_rng(5).integers(-40, 40, (16, 16, 3)).repeat(64, axis=0).repeat(64, axis=1)
    tissue = (picture < 240).all(axis=2, keepdims=True)
    he = np.clip(picture + texture * tissue, 0, 255).astype(np.uint8)
    ihc = np.clip(he + np.array([10, 20, -30]) * tissue, 0, 255).astype(np.uint8)
    files = {"he": folder / f"{NAME}_HE.svs", "ihc": folder / f"{NAME}_HER2.svs"}
    for stain, array in (("he", he), ("ihc", ihc)):
        write_svs(files[stain], array, text=NAME, label=picture[:64, :64])
    row = {
        "case_id": "C1", "patient_id": "P1", "he": str(files["he"]), "ihc": str(files["ihc"]), "marker": "HER2",
        "her2_score": "2+", "section": "restained", "split": "test",
    }  # fmt: skip
    data = results / "ds"
    slides = ["--he", files["he"], "--ihc", files["ihc"]]
    checked = ["--checked", data / "checked/C1.json"]
    transform = ["--transform", data / "registered/C1.zarr"]
    tissue_mask = ["--tissue", data / "tissue/C1.zarr"]
    stains = ["--stains", data / "stains/C1.json"]
    index = ["--index", data / "tiles/C1.parquet"]
    verdict = ["--verdict", data / "verdict/C1.parquet"]

    run("check", "--row", json.dumps(row), *checked, "--private", results / "private/ds/C1/row.json")
    gate = {"min_similarity": -1.0, "review_similarity": -1.0, "min_tissue_dice": 0.0}
    lenient = {"chain": ["identity"], "gate": {"restained": gate, "consecutive": gate}}
    run("register", *slides, *checked, *transform, spec=lenient)
    run("tissue", *slides, *checked, *transform, *tissue_mask)
    run("stains", "estimate", *slides, *checked, *transform, *tissue_mask, *stains)
    tiling = {"mpp": 1.0, "tile_px": 64, "min_tissue_frac": 0.5}
    run("tile", *slides, *checked, *transform, *tissue_mask, *stains, "--tiles", data / "tiles/C1.zarr", *index,
        spec=tiling)  # fmt: skip
    run("grade", *index, *verdict)
    run("picture", *slides, *checked, *transform, *tissue_mask, *index, *verdict, "--pictures", data / "pictures/C1")
    return results


def test_the_case_went_through(results: Path):
    record = json.loads((results / "ds/checked/C1.json").read_text())
    assert record["provenance"]["status"]["state"] == "ok"
    assert list((results / "ds/tiles/C1.zarr").rglob("c/*")), "no tiles were cut"
    assert len(list((results / "ds/pictures/C1").glob("*.*"))) >= 5


def test_no_byte_outside_private_holds_the_name_or_the_folder(results: Path):
    public = [path for path in results.rglob("*") if path.is_file() and "private" not in path.parts]
    assert len(public) > 10
    words = [NAME, "JANE", "ScanScope", "2019:03:04", ".svs", str(results.parent)]
    for path in public:
        content = path.read_bytes()
        assert [word for word in words if word.encode() in content or word in path.name] == [], path.name


def test_the_scan_passes_and_finds_the_name_once_it_is_planted(results: Path):
    assert "0 finding(s)" in run("deid", "check", results)
    leak = results / "ds/checked/leak.json"
    leak.write_text(json.dumps({"source": f"{NAME}_HE.svs"}))
    result = CliRunner().invoke(app, ["deid", "check", str(results)])
    leak.unlink()
    assert result.exit_code == 1
    assert "ds/checked/leak.json: name of the he file of case C1" in result.output
