"""`hepipe landmarks` as a person runs it on two pictures."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from hepipe.cli import review as commands
from hepipe.errors import ConfigError, RegistrationError, SlideError
from hepipe.geometry import Transform, translation
from hepipe.registration.formats import pairs_csv
from hepipe.status import failed
from hepipe.stores.arrays import write_registered
from hepipe.stores.cases import CheckedCase, write_checked
from hepipe.stores.provenance import Provenance

MPP = ["--mpp-he", "2", "--mpp-ihc", "2"]
HE = np.array([[60.0, 60.0], [220.0, 70.0], [80.0, 160.0], [200.0, 150.0]])


@pytest.fixture
def hepipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rgb = np.full((220, 300, 3), 240, np.uint8)
    rgb[30:-30, 30:-30] = (200, 140, 180)
    for x, y in rng.integers((40, 40), (250, 170), (60, 2)):
        rgb[y : y + 6, x : x + 6] = (70, 40, 110)
    Image.fromarray(rgb).save("he.png")
    Image.fromarray(np.roll(rgb, 12, axis=1)).save("ihc.png")
    write_registered(
        tmp_path / "t.zarr",
        Provenance(artefact="registered", subject="C1", status=failed("registration", "not alike")),
        ihc_from_he=None,
        he_from_ihc=None,
        summary={},
        proposed=Transform(translation(12.0, 0.0), 2.0, 2.0),
    )
    app = typer.Typer()
    commands.register(app)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


def pair(*more):
    return ["--he", "he.png", "--ihc", "ihc.png", *more]


def test_what_is_exported_edited_and_imported_is_a_landmarks_file(hepipe, tmp_path):
    said = hepipe("landmarks", "export", *pair(*MPP), "--transform", "t.zarr", "--folder", "out")
    assert "README.txt" in said
    said = hepipe("landmarks", "import", "out/he.geojson;out/ihc.geojson", *pair(*MPP), "--out", "landmarks.csv")
    assert (tmp_path / "landmarks.csv").read_text() == (tmp_path / "out/template.csv").read_text()
    rows = np.loadtxt(tmp_path / "landmarks.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(rows[:, 2:], rows[:, :2] + (12.0, 0.0), atol=0.011)


def test_a_page_of_a_failed_pair_proposes_what_was_proposed(hepipe, tmp_path):
    (tmp_path / "old.csv").write_text(pairs_csv(HE, HE + np.array([12.0, 0.0])))
    hepipe(
        *("landmarks", "page", *pair(*MPP), "--transform", "t.zarr", "--landmarks", "old.csv", "--page", "page.html"),
        *("--case", "C1"),
    )
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "he.png" not in page
    assert '"pairs":[[60.0,60.0,72.0,60.0]' in page
    assert '"case":"C1"' in page


def test_a_pair_of_unknown_pixel_sizes_has_a_page_in_px(hepipe, tmp_path):
    hepipe("landmarks", "page", *pair("--mpp-he", "unknown", "--mpp-ihc", "2"), "--page", "page.html")
    assert '"unit":"px"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_import_says_what_it_did_not_check_and_what_it_found(hepipe, tmp_path):
    (tmp_path / "in.csv").write_text(pairs_csv(HE, HE))
    assert "not checked against the slides" in hepipe("landmarks", "import", "in.csv", "--out", "out.csv")
    said = hepipe("landmarks", "import", "in.csv", *pair(*MPP), "--out", "out.csv")
    assert "4 pairs give a similarity only" in said


def test_exchanged_columns_are_refused_where_a_registration_shows_it(hepipe, tmp_path):
    shifted = np.clip(HE, 60, 200)
    (tmp_path / "in.csv").write_text(pairs_csv(shifted + np.array([12.0, 0.0]), shifted))
    with pytest.raises(RegistrationError, match="exchange them, H&E stands first"):
        hepipe("landmarks", "import", "in.csv", *pair(*MPP), "--transform", "t.zarr", "--out", "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_options_that_contradict_each_other_are_refused(hepipe, tmp_path):
    (tmp_path / "in.csv").write_text(pairs_csv(HE, HE))
    with pytest.raises(ConfigError, match="--he and --ihc go together"):
        hepipe("landmarks", "import", "in.csv", "--he", "he.png", "--out", "out.csv")
    with pytest.raises(SlideError, match="there is no such file"):
        hepipe("landmarks", "page", "--he", "he.png", "--ihc", "none.png", *MPP, "--page", "page.html")


def test_a_case_that_failed_its_check_has_a_page_that_says_why(hepipe, tmp_path):
    record = CheckedCase(
        case_id="C7",
        patient_id="P1",
        marker="HER2",
        her2_score=None,
        section="restained",
        provenance=Provenance(artefact="checked", subject="C7", status=failed("slides", "the file is empty")),
    )
    write_checked(tmp_path / "C7.json", record)
    hepipe("landmarks", "page", *pair("--checked", "C7.json"), "--page", "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "C7" in page
    assert "the file is empty" in page


def test_the_review_page_is_written_from_the_pictures_alone(hepipe, tmp_path):
    at = tmp_path / "results/set/pictures/C1"
    at.mkdir(parents=True)
    status = {"state": "review", "stage": "registration", "reason": "look"}
    facts = {"case_id": "C1", "status": status, "registration": {}, "pictures": []}
    (at / "facts.json").write_text(json.dumps(facts))
    said = hepipe("review", "--folder", "results/set", "--cases", "C1", "--page", "results/set/review.html")
    assert "1 pairs, 1 of them to look at" in said
    assert "Review of set" in (tmp_path / "results/set/review.html").read_text()
