import re

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from hepipe.cli.app import app
from hepipe.cli.synth import register
from hepipe.errors import ConfigError
from hepipe.specs.synth import SynthSpec
from hepipe.synth.pairs import write_pairs

SPEC = SynthSpec(pairs=12, pair_px=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("set") / "pairs"
    assert write_pairs(SPEC, root) == 12
    return root


def test_every_split_has_every_score_and_both_sides_the_same_names(folder):
    for split in ("train", "val", "test"):
        names = sorted(path.name for path in (folder / "HE" / split).iterdir())
        assert names == sorted(path.name for path in (folder / "IHC" / split).iterdir())
        scores = {re.search(r"_(0|1\+|2\+|3\+)\.", name).group(1) for name in names}
        assert scores == {"0", "1+", "2+", "3+"}
        assert all(re.match(r"^([a-z0-9-]+)_", name).group(1).startswith("q1-") for name in names)


def test_no_patient_is_in_two_splits(folder):
    seen = [
        {path.name.split("_")[0] for path in (folder / "HE" / split).iterdir()} for split in ("train", "val", "test")
    ]
    assert not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])


def test_the_two_sides_show_the_same_tissue(folder):
    """Dark nuclei of one side are dark on the other: the best shift is none."""
    for path in sorted((folder / "HE").rglob("*_0.png")):
        he = cv2.imread(str(path))[..., 2].astype(np.float32)
        ihc = cv2.imread(str(path).replace("/HE/", "/IHC/"))[..., 2].astype(np.float32)
        assert he.shape == (128, 128)
        he, ihc = (255 - cv2.GaussianBlur(side, (0, 0), 1) for side in (he, ihc))
        inner = ihc[12:-12, 12:-12]
        match = cv2.matchTemplate(he, inner, cv2.TM_CCOEFF_NORMED)
        row, column = np.unravel_index(match.argmax(), match.shape)
        assert abs(row - 12) <= 1
        assert abs(column - 12) <= 1


def test_stronger_scores_are_browner(folder):
    brown = {}
    for score in ("0", "1+", "2+", "3+"):
        pixels = [cv2.imread(str(path)).astype(float) for path in (folder / "IHC").rglob(f"*_{score}.png")]
        brown[score] = np.mean([np.clip(picture[..., 2] - picture[..., 0] - 10, 0, None).mean() for picture in pixels])
    assert brown["0"] < brown["1+"] < brown["2+"] < brown["3+"]


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files, which would go"):
        write_pairs(SPEC, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_commands_write_and_print(tmp_path):
    register(app)
    spec = SynthSpec(pairs=2, pair_px=64, side_um=400, patients=4).model_dump_json()
    run = CliRunner().invoke(app, ["synth", "pairs", "--folder", str(tmp_path / "pairs"), "--spec", spec])
    assert run.exit_code == 0, run.output
    assert "2 pairs of 64 px" in run.output
    run = CliRunner().invoke(
        app, ["synth", "case", "--number", "1", "--folder", str(tmp_path / "case"), "--spec", spec]
    )
    assert run.exit_code == 0, run.output
    assert {path.name for path in (tmp_path / "case").iterdir()} == {"he.tif", "ihc.tif", "landmarks.csv", "truth.zarr"}
    run = CliRunner().invoke(app, ["synth", "probe", "--spec", spec])
    assert run.exit_code == 0, run.output
    assert "accuracy of a tile" in run.output
