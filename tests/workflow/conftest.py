"""A folder in which the whole workflow has run once on four synthetic patients and a sheet with bad slides."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]

CONFIG = {
    "datasets": {
        "cohort": {"synth": {"patients": 4, "seed": 3, "side_um": 480, "pairs": 12, "pair_px": 128}},
        "pairs": {
            "import": {
                "kind": "folder",
                "path": "results/synth/cohort/pairs",
                "mpp": 0.5,
                "score_pattern": r"_(0|1\+|2\+|3\+)\.",
                "case_pattern": r"^([a-z0-9-]+)_",
            }
        },
        "sheet": {"sheet": "slides.tsv"},
    },
    "registration": {"overview_px": 256, "search": {"rotation_step_deg": 10}},
    "tiling": {"mpp": 0.5, "tile_px": 128, "min_tissue_frac": 0.4},
    "quality": {
        "limits": {kind: {"ncc_peak": {"min": -1.0}} for kind in ("restained", "consecutive")},
        "alignment": {"drop": []},
    },
    "splits": {"shares": {"train": 0.5, "val": 0.25, "test": 0.25}},
    "training": {"n_steps": 4, "batch_size": 2, "crop_px": 64, "sample_every": 2, "checkpoint_every": 2},
    "runs": {
        "as-is": {"model": "identity", "dataset": "cohort"},
        "pyramid": {"model": "pyramid_pix2pix", "preset": "tiny", "dataset": "cohort"},
    },
    "evaluation": {"test_on": {"cohort": "test", "pairs": "test"}},
}

HEADER = ("case_id", "patient_id", "he", "ihc", "marker", "her2_score", "section", "mpp_he", "mpp_ihc", "regions")


@dataclass(frozen=True)
class Folder:
    """A working folder with its configuration."""

    path: Path

    def snakemake(self, *options: str, config: dict | None = None) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here; its output is in `stdout`, errors too."""
        file = self.path / "config.yaml"
        file.write_text(yaml.safe_dump(CONFIG if config is None else config))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", str(self.path), "--cores", "2", "--configfile", str(file), *options]
        return subprocess.run(
            command,
            check=False,
            cwd=self.path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def planned(self, config: dict | None = None) -> dict[str, int]:
        """How many jobs of each rule a dry run plans."""
        done = self.snakemake("-n", config=config)
        assert done.returncode == 0, done.stdout
        table = done.stdout.partition("Job stats:")[2].partition("\n\n")[0]
        counts = re.findall(r"^(\w+)\s+(\d+)\s*$", table, re.MULTILINE)
        return {rule: int(count) for rule, count in counts if rule not in {"total", "all"}}


def draw(folder: Path, number: int) -> None:
    """One small synthetic pair."""
    spec = '{"seed": 5, "side_um": 480, "artifacts": false}'
    command = [sys.executable, "-m", "hepipe", "synth", "case", "--number", str(number)]
    subprocess.run([*command, "--folder", str(folder), "--spec", spec], check=True, cwd=ROOT)


def write_sheet(path: Path, rows: list[dict[str, str]]) -> None:
    """A slide sheet with the columns of HEADER."""
    lines = ["\t".join(HEADER), *("\t".join(row.get(name, "") for name in HEADER) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def bad_slides(folder: Path) -> list[dict[str, str]]:
    """One good pair, and six that cannot be used, each in its own way."""
    slides = folder / "slides"
    for number in (1, 2):
        draw(slides / f"case{number}", number)
    (slides / "letter.svs").write_text("Dear pathologist, this is not a slide.")
    whole = (slides / "case1/ihc.tif").read_bytes()
    (slides / "cut.tif").write_bytes(whole[: len(whole) // 3])
    ring = [[0, 0], [960, 0], [960, 960], [0, 960], [0, 0]]
    tumour = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}},
    }
    (slides / "regions.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [tumour]}))
    white = np.full((960, 960, 3), 244, np.uint8)
    cv2.imwrite(str(slides / "white.png"), white)

    def row(case_id: str, he: str, ihc: str, **more: str) -> dict[str, str]:
        base = {"marker": "HER2", "her2_score": "2+", "section": "restained"}
        return {"case_id": case_id, "patient_id": f"p-{case_id}", "he": he, "ihc": ihc, **base, **more}

    good = "slides/case1/he.tif", "slides/case1/ihc.tif"
    return [
        row("good", *good, regions="slides/regions.geojson"),
        row("letter", good[0], "slides/letter.svs"),
        row("cut", good[0], "slides/cut.tif"),
        row("absent", good[0], "slides/nowhere.svs"),
        row("strangers", good[0], "slides/case2/ihc.tif"),
        row("white", good[0], "slides/white.png", mpp_ihc="0.5"),
        row("no-mpp", good[0], "slides/white.png"),
    ]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Folder:
    """The folder after one whole run, of which a test session has one however many workers it has."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        began = tmp_path_factory.getbasetemp().parent / "workflow-began"
        assert not began.exists(), f"{began.read_text()} runs the workflow already; the tests are parted by file"
        began.write_text(os.environ["PYTEST_XDIST_WORKER"])
    folder = Folder(tmp_path_factory.mktemp("workflow"))
    write_sheet(folder.path / "slides.tsv", bad_slides(folder.path))
    done = folder.snakemake()
    assert done.returncode == 0, done.stdout[-6000:]
    return folder


@pytest.fixture(scope="session")
def base() -> dict:
    """The configuration that the finished folder was made with."""
    return CONFIG
