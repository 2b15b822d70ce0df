"""Transforms that travel with a data set are taken in place of a new registration, if they are of these slides."""

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import registration
from hepipe.geometry import Transform
from hepipe.status import OK, CaseStatus, failed, review
from hepipe.stores.arrays import Registered, read_registered, write_registered
from hepipe.stores.cases import CheckedCase, SlideFacts, write_checked
from hepipe.stores.provenance import Provenance

app = typer.Typer()
registration.register(app)
app.command("other")(lambda: None)

AFFINE = np.array([[1.0, 0.01, 3.0], [-0.01, 1.0, -4.0], [0.0, 0.0, 1.0]])
SHEET_DOUBT = review("slides", "two scores")
DOUBT = review("registration", "look at the overlay")


def facts(stain: str, content: str, mpp: float) -> SlideFacts:
    return SlideFacts(
        slide_id=f"c1-{stain}", reader="picture", format="picture", mpp=mpp, mpp_from="sheet", size_px0=(160, 160),
        origin_px0=(0, 0), downsamples=(1.0,), tissue_mm2=0.05, content_sha256=content,
    )  # fmt: skip


def check(folder: Path, *, he="h" * 64, ihc="i" * 64, mpp=0.5, status=OK, accepted=None) -> Path:
    write_checked(
        folder / "c1.json",
        CheckedCase(
            case_id="c1", patient_id="p1", marker="HER2", her2_score=None, section="restained", accepted=accepted,
            he=facts("he", he, mpp), ihc=facts("ihc", ihc, 0.5),
            provenance=Provenance(artefact="checked", subject="c1", status=status),
        ),
    )  # fmt: skip
    return folder / "c1.json"


def store(folder: Path, *, subject="c1", status=OK, found=True, **inputs: str) -> Path:
    field = np.linspace(-3, 3, 2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    forward = Transform(AFFINE, 0.5, 0.5, field, 40.0) if found else None
    back = Transform(np.linalg.inv(AFFINE), 0.5, 0.5, -field, 40.0) if found else None
    write_registered(
        folder / "registered/c1.zarr",
        Provenance(
            artefact="registered", subject=subject, spec={"seed": 7}, status=status, version="0.0.9",
            inputs={"he": "h" * 64, "ihc": "i" * 64, **inputs},
        ),
        ihc_from_he=forward,
        he_from_ihc=back,
        summary={"unit": "µm", "verdict": status.state},
        evidence={"trust": np.ones((4, 5), np.uint8)},
    )  # fmt: skip
    return folder


def take(folder: Path, checked: Path, source: Path) -> Registered:
    arguments = ["register", "--he", "none", "--ihc", "none", "--checked", checked, "--transform", folder / "out.zarr"]
    done = CliRunner().invoke(app, [str(one) for one in [*arguments, "--from", source]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return read_registered(folder / "out.zarr")


def test_the_stored_transform_is_taken_without_opening_a_slide(tmp_path):
    source = store(tmp_path / "set")
    before, after = read_registered(source / "registered/c1.zarr"), take(tmp_path, check(tmp_path), source)
    assert after.digest == before.digest != ""
    assert after.provenance.status.state == "ok"
    np.testing.assert_array_equal(after.evidence["trust"], before.evidence["trust"])
    assert after.summary == before.summary


def test_the_section_and_version_that_found_it_stay_and_the_record_says_where_it_is_from(tmp_path):
    made = take(tmp_path, check(tmp_path), store(tmp_path / "set")).provenance
    assert (made.spec, made.version) == ({"seed": 7}, "0.0.9")
    assert made.inputs == {"he": "h" * 64, "ihc": "i" * 64}
    assert made.told["transform"].startswith("taken from the data set")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"he": "x" * 64}, "of another H&E slide: content hhhhhhhhhhhhhhhh there, xxxxxxxxxxxxxxxx here"),
        ({"ihc": "x" * 64}, "of another IHC slide: content iiiiiiiiiiiiiiii there, xxxxxxxxxxxxxxxx here"),
        ({"mpp": 0.25}, "takes a px of the H&E slide for 0.5 µm, and it is 0.25 here"),
    ],
)
def test_a_transform_of_other_slides_fails_the_case_and_says_which(tmp_path, change, reason):
    found = take(tmp_path, check(tmp_path, **change), store(tmp_path / "set"))
    assert found.provenance.status.failed
    assert found.provenance.status.stage == "registration"
    assert reason in found.provenance.status.reason
    assert found.ihc_from_he is None


def test_a_case_without_a_stored_transform_fails(tmp_path):
    (tmp_path / "set").mkdir()
    found = take(tmp_path, check(tmp_path), tmp_path / "set")
    assert "no stored transform of this case" in found.provenance.status.reason
    assert str(tmp_path) not in found.provenance.status.reason


def test_a_damaged_one_fails_the_case_and_names_no_folder(tmp_path):
    source = store(tmp_path / "set")
    (source / "registered/c1.zarr/ihc_from_he/zarr.json").write_text("{")
    found = take(tmp_path, check(tmp_path), source)
    assert "its stored transform is unusable" in found.provenance.status.reason
    assert str(tmp_path) not in found.provenance.status.reason


def test_the_transform_of_another_case_is_not_taken(tmp_path):
    found = take(tmp_path, check(tmp_path), store(tmp_path / "set", subject="c2"))
    assert found.provenance.status.reason == "its stored transform is that of case c2"


@pytest.mark.parametrize(
    ("stored", "checked", "accepted", "expected"),
    [
        (DOUBT, CaseStatus(), None, DOUBT),
        (DOUBT, CaseStatus(), "yes", CaseStatus()),
        (SHEET_DOUBT, CaseStatus(), None, CaseStatus()),
        (CaseStatus(), SHEET_DOUBT, None, SHEET_DOUBT),
    ],
)
def test_a_doubt_of_the_registration_stays_until_a_person_accepts_the_pair(
    tmp_path, stored, checked, accepted, expected
):
    source = store(tmp_path / "set", status=stored)
    made = take(tmp_path, check(tmp_path, status=checked, accepted=accepted), source)
    assert made.provenance.status == expected


def test_a_pair_that_could_not_be_registered_still_cannot(tmp_path):
    lost = failed("registration", "not alike")
    made = take(tmp_path, check(tmp_path), store(tmp_path / "set", status=lost, found=False))
    assert made.provenance.status == lost


def test_a_failed_check_needs_no_transform(tmp_path):
    lost = failed("slides", "no such file")
    assert take(tmp_path, check(tmp_path, status=lost), tmp_path / "nowhere").provenance.status == lost
