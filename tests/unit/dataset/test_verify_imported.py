"""A tile set made elsewhere is verified and compared as one of slides is."""

import json
import shutil

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from hepipe.cli import imports, tiles
from hepipe.dataset.card import read_card
from hepipe.dataset.diff import diff_datasets
from hepipe.dataset.pack import pack_dataset
from hepipe.dataset.verify import verify_dataset

app = typer.Typer()
imports.register(app)
tiles.register(app)
OPEN = json.dumps({"limits": {"restained": {}, "consecutive": {}}, "alignment": {"drop": []}})


def run(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def bring_in(folder, *, shade=0, mpp=0.5):
    random = np.random.default_rng(4)
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            for stain in ("HE", "IHC"):
                pixels = random.integers(60, 220, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
                pixels += np.uint8(shade if (split, stain, number) == ("train", "IHC", 0) else 0)
                file = folder / "set" / stain / split / f"{split}{number}_2+.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    out = folder / "results"
    spec = json.dumps({"kind": "folder", "mpp": mpp, "score_pattern": r"_(2\+)\."})
    run("import", "folder", folder / "set", "--out", out, "--spec", spec)
    table, verdict = out / "tiles/imported.parquet", out / "verdict/imported.parquet"
    run("grade", "--index", table, "--verdict", verdict, "--spec", OPEN)
    files = ["--index", out / "index.parquet", "--card", out / "dataset.json"]
    run("assemble", "--folder", out, "--cases", "imported", *files)
    return out


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return bring_in(tmp_path_factory.mktemp("imported"))


def test_an_imported_set_is_what_its_card_says_to_its_pixels(imported):
    done = verify_dataset(imported, deep=True)
    assert done.mismatches == ()
    assert (done.cases, done.deep) == (("imported",), 5)


def test_one_other_file_of_the_set_is_named(imported, tmp_path):
    other = bring_in(tmp_path, shade=3)
    assert read_card(other / "dataset.json").fingerprint != read_card(imported / "dataset.json").fingerprint
    (one,) = diff_datasets(imported, other).tiles
    assert (one.change, one.why) == ("pixels", "IHC: other files in the imported set")


def test_the_same_files_imported_elsewhere_are_the_same_data_set(imported, tmp_path):
    assert diff_datasets(imported, bring_in(tmp_path)).is_empty


def test_a_store_of_another_import_is_found(imported, tmp_path):
    folder = shutil.copytree(imported, tmp_path / "results")
    other = bring_in(tmp_path / "other", shade=3)
    shutil.rmtree(folder / "tiles/imported.zarr")
    shutil.copytree(other / "tiles/imported.zarr", folder / "tiles/imported.zarr")
    (one,) = verify_dataset(folder, deep=True).mismatches
    assert one.what == "tile train/train0_2+: its ihc pixels are not those of its hash"


def test_the_pack_of_an_import_names_the_section_that_brought_it_in(imported, tmp_path):
    pack_dataset(imported, tmp_path / "pack")
    sections = json.loads((tmp_path / "pack/sections.json").read_text())
    assert sections["import"][0]["section"]["kind"] == "folder"
    assert "tiling" not in sections
