import json
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image, ImageCms
from slide_files import tissue_picture, write_pyramid, write_svs
from typer.testing import CliRunner

from hepipe.cli import slides
from hepipe.cli.pairs import open_pair
from hepipe.errors import SlideError
from hepipe.stores.cases import CheckedCase, read_checked

app = typer.Typer()
slides.register(app)


def check(folder: Path, **columns: Any) -> CheckedCase:
    row = {
        "case_id": "c1", "patient_id": "p1", "he": str(folder / "he.tif"), "ihc": str(folder / "ihc.tif"),
        "marker": "HER2", "her2_score": "2+", "section": "restained",
    }  # fmt: skip
    outputs = ["--checked", str(folder / "out/c1.json"), "--private", str(folder / "private/c1/row.json")]
    spec = json.dumps({"min_tissue_mm2": 0.001})
    result = CliRunner().invoke(app, ["check", "--row", json.dumps(row | columns), "--spec", spec, *outputs])
    assert result.exit_code == 0, result.output
    return read_checked(folder / "out/c1.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pyramid(tmp_path / "he.tif", tissue_picture(seed=0), mpp=0.5)
    write_pyramid(tmp_path / "ihc.tif", tissue_picture(seed=1), mpp=0.25)
    return tmp_path


def test_two_good_slides_pass(folder: Path):
    checked = check(folder)
    assert checked.provenance.status.state == "ok"
    assert checked.he is not None
    assert checked.ihc is not None
    assert (checked.he.slide_id, checked.he.mpp, checked.ihc.mpp) == ("c1-he", 0.5, 0.25)
    assert checked.provenance.inputs == {"he": checked.he.content_sha256, "ihc": checked.ihc.content_sha256}


def test_a_pair_of_two_colour_profiles_is_noted_and_passes(folder: Path):
    for name, seed, kind in (("he.png", 0, "sRGB"), ("ihc.png", 1, "LAB")):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()
        Image.fromarray(tissue_picture(seed=seed)).save(folder / name, icc_profile=profile)
    paths = {"he": str(folder / "he.png"), "ihc": str(folder / "ihc.png"), "mpp_he": "0.5", "mpp_ihc": "0.5"}
    checked = check(folder, **paths)
    assert checked.provenance.status.state == "ok"
    assert checked.provenance.told["notes"] == ["the two slides carry different colour profiles (ICC)"]
    Image.fromarray(tissue_picture(seed=1)).save(folder / "ihc.png")
    assert check(folder, **paths).provenance.told["notes"] == checked.provenance.told["notes"]
    assert check(folder).provenance.told == {}


def test_the_private_row_alone_knows_the_paths(folder: Path):
    check(folder)
    assert str(folder) in (folder / "private/c1/row.json").read_text()
    assert str(folder) not in (folder / "out/c1.json").read_text()


def test_the_same_input_writes_the_same_bytes(folder: Path):
    check(folder)
    first = (folder / "out/c1.json").read_bytes()
    check(folder)
    assert (folder / "out/c1.json").read_bytes() == first


def test_a_bad_slide_fails_the_case_and_the_other_is_still_described(folder: Path):
    (folder / "ihc.tif").write_text("not a slide")
    checked = check(folder)
    status = checked.provenance.status
    assert (status.state, status.stage) == ("failed", "slides")
    assert status.reason.startswith("slide c1-ihc: no slide or picture that can be opened")
    assert checked.he is not None
    assert checked.ihc is None


def test_both_problems_of_a_pair_are_told(folder: Path):
    write_pyramid(folder / "he.tif", tissue_picture(), mpp=1000.0)
    (folder / "ihc.tif").unlink()
    reason = check(folder).provenance.status.reason
    assert "fill mpp_he" in reason
    assert "slide c1-ihc: there is no such file" in reason


def test_the_sheet_gives_a_missing_pixel_size(folder: Path):
    write_pyramid(folder / "ihc.tif", tissue_picture(seed=1), mpp=None)
    checked = check(folder, mpp_ihc=0.4)
    assert checked.ihc is not None
    assert (checked.ihc.mpp, checked.ihc.mpp_from) == (0.4, "sheet")


def test_one_unknown_pixel_size_leaves_neither_to_go_by(folder: Path):
    checked = check(folder, mpp_ihc="unknown")
    assert checked.provenance.status.state == "ok"
    assert checked.ihc is not None
    assert (checked.ihc.mpp, checked.ihc.mpp_from, checked.mpp_unknown) == (1.0, "unknown", True)
    with open_pair(folder / "he.tif", folder / "ihc.tif", checked) as (he, ihc):
        assert [(slide.mpp, slide.mpp_from) for slide in (he, ihc)] == [(1.0, "unknown")] * 2


def test_one_slide_in_both_columns_fails(folder: Path):
    (folder / "copy.tif").write_bytes((folder / "he.tif").read_bytes())
    for name in ("he.tif", "copy.tif"):
        status = check(folder, ihc=str(folder / name)).provenance.status
        assert (status.state, status.reason) == (
            "failed",
            "he and ihc are the same slide; correct the row of the slide sheet",
        )


def test_a_rejected_registration_fails_at_that_stage(folder: Path):
    status = check(folder, accepted="no").provenance.status
    assert (status.state, status.stage) == ("failed", "registration")


def test_scores_that_disagree_ask_for_review(folder: Path):
    status = check(folder, her2_score_restained="1+").provenance.status
    assert (status.state, status.stage) == ("review", "slides")
    assert "2+" in status.reason
    assert "1+" in status.reason


def test_a_checked_pair_opens_as_it_was_checked(folder: Path):
    checked = check(folder, mpp_he=0.75)
    with open_pair(folder / "he.tif", folder / "ihc.tif", checked) as (he, ihc):
        assert (he.mpp, ihc.mpp, he.slide_id, ihc.reader) == (0.75, 0.25, "c1-he", "openslide")


def test_a_pair_that_has_changed_or_failed_does_not_open(folder: Path):
    checked = check(folder)
    write_pyramid(folder / "he.tif", tissue_picture(256, 256), mpp=0.5)
    with (
        pytest.raises(SlideError, match=r"\(256, 256\) px now, \(512, 512\) when it was checked; run check again"),
        open_pair(folder / "he.tif", folder / "ihc.tif", checked),
    ):
        pass
    (folder / "ihc.tif").unlink()
    failed = check(folder)
    with (
        pytest.raises(SlideError, match="slide c1-ihc: failed its check"),
        open_pair(folder / "he.tif", folder / "ihc.tif", failed),
    ):
        pass


def test_nothing_of_a_patient_gets_into_the_record(tmp_path: Path):
    """The name stands in the label, macro, ImageDescription, file name and folder."""
    folder = tmp_path / "DOE_JANE"
    folder.mkdir()
    picture = tissue_picture()
    for stain in ("HE", "HER2"):
        write_svs(
            folder / f"{stain}_DOE_JANE.svs", tissue_picture(seed=len(stain)), text="DOE_JANE", label=picture[:64, :64]
        )
    check(folder, he=str(folder / "HE_DOE_JANE.svs"), ihc=str(folder / "HER2_DOE_JANE.svs"))
    passed = (folder / "out/c1.json").read_text()
    assert '"state": "ok"' in passed
    (folder / "HER2_DOE_JANE.svs").write_bytes((folder / "HE_DOE_JANE.svs").read_bytes()[:30_000])
    check(folder, he=str(folder / "HE_DOE_JANE.svs"), ihc=str(folder / "HER2_DOE_JANE.svs"))
    failed = (folder / "out/c1.json").read_text()
    assert '"state": "failed"' in failed
    for text in (passed, failed):
        for word in ("DOE", "JANE", "svs", "2019", "ScanScope", "SS1", str(tmp_path)):
            assert word not in text
