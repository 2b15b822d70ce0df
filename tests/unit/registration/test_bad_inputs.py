"""What people hand in by mistake: each ends in a verdict or in one error, and both say what to do."""

import json

import cv2
import numpy as np
import pytest
import typer
import zarr
from PIL import Image
from registration_drawing import MPP, draw_section, partner, stain, turn
from typer.testing import CliRunner

from hepipe.cli import commands
from hepipe.errors import HepipeError
from hepipe.stores.arrays import read_registered

QUICK = {"search": {"rotation_step_deg": 20.0, "flips": False}, "chain": ["search", "affine"], "overview_px": 224}
HE_COLOR, IHC_COLOR = (0.6, 1.0, 0.5), (0.8, 0.7, 0.4)


class Desk:
    """Two pictures on disk and the command line."""

    def __init__(self, folder):
        self.folder = folder
        self.app = typer.Typer()
        commands.register(self.app)

    def put(self, he_density, ihc_density, *, ink=None):
        he, ihc = stain(he_density, HE_COLOR, 1), stain(ihc_density * 0.7, IHC_COLOR, 2)
        if ink is not None:
            ihc[ink] = (20, 60, 30)
        for name, rgb in (("he", he), ("ihc", ihc)):
            Image.fromarray(rgb).save(self.folder / f"{name}.png")

    def run(self, *words):
        """What it printed; an error of another kind than a user's is a failure of the test."""
        result = CliRunner().invoke(self.app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, (HepipeError, SystemExit)):
            raise result.exception
        return result

    def register(self, *more, mpp_ihc=MPP, spec=None):
        """The verdict and the record of a pair that was registered."""
        out = self.folder / "t.zarr"
        result = self.run(
            *("register", "--he", self.folder / "he.png", "--ihc", self.folder / "ihc.png", "--transform", out),
            *("--mpp-he", MPP, "--mpp-ihc", mpp_ihc, "--spec", json.dumps(spec or QUICK), *more),
        )
        assert result.exit_code == 0, result.exception
        registered = read_registered(out)
        status = registered.provenance.status
        assert (registered.ihc_from_he is None) == status.failed
        # Told at the terminal as it is recorded.
        assert status.state in result.output
        return status, registered


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def four_pieces(numbers):
    """A canvas with drawn pieces of tissue at its corners; one density for all `numbers` of 0 to 3."""
    canvas = np.zeros((448, 448), np.float32)
    for number in numbers:
        y, x = divmod(number, 2)
        canvas[y * 224 : y * 224 + 224, x * 224 : x * 224 + 224] = draw_section(20 + number)
    return canvas


def test_a_wrong_pair_does_not_pass_and_the_reason_names_the_sheet_or_the_overlay(desk, section):
    desk.put(section, draw_section(77))
    status, _ = desk.register()
    assert status.state in ("failed", "review")
    # Drawn strangers of another size are alike enough for the pixel sizes to be doubted instead.
    assert any(word in status.reason for word in ("check the pair", "look at the overlay", "correct the slide sheet"))


def test_a_mirrored_slide_is_registered_and_said_to_be_mirrored(desk, section, tissue_points):
    moved, truth = partner(section, turn(30.0, mirrored=True), warp_px=0.0)
    desk.put(section, moved)
    status, registered = desk.register(spec={**QUICK, "search": {"rotation_step_deg": 20.0}})
    assert not status.failed
    assert registered.summary["mirrored"]
    errors = np.linalg.norm(registered.ihc_from_he(tissue_points) - truth(tissue_points), axis=1)
    assert np.median(errors) < 1.0


@pytest.mark.parametrize("blank", ["he", "ihc"])
def test_a_blank_slide_is_named(desk, section, blank):
    empty = np.zeros_like(section)
    desk.put(*((empty, section) if blank == "he" else (section, empty)))
    status, _ = desk.register()
    assert status.failed
    assert f"no tissue found on case-{blank}; look at the slide" in status.reason


def test_pen_over_half_the_tissue_ends_in_a_verdict_and_never_in_a_wrong_pass(desk, section, tissue_points):
    moved, truth = partner(section, turn(20.0), warp_px=0.0)
    ink = np.zeros(moved.shape, bool)
    ink[:, :112] = moved[:, :112] > 0.2
    desk.put(section, moved, ink=cv2.dilate(ink.astype(np.uint8), np.ones((5, 5))) > 0)
    status, registered = desk.register()
    if status.failed:
        assert "check the pair" in status.reason
    else:
        errors = np.linalg.norm(registered.ihc_from_he(tissue_points) - truth(tissue_points), axis=1)
        assert status.state == "review" or np.median(errors) < 3.0


def test_of_four_pieces_the_one_that_is_missing_is_named(desk):
    he, ihc = four_pieces([0, 1, 2, 3]), four_pieces([0, 1, 2])
    desk.put(he, np.roll(ihc, (5, -8), axis=(0, 1)))
    status, registered = desk.register()
    assert not status.failed
    alone = [one for one in registered.summary["pieces"] if one["role"] != "matched"]
    assert [(one["stain"], one["role"]) for one in alone] == [("he", "missing")]
    # The others still lie on each other.
    points = np.array([[112.0, 112.0], [336.0, 112.0], [112.0, 336.0]])
    np.testing.assert_allclose(registered.ihc_from_he(points), points + np.array([-8, 5]), atol=2.5)


def test_an_mpp_that_is_one_and_a_half_times_too_large_is_suspected_by_name(desk, section):
    moved, _ = partner(section, turn(10.0), warp_px=0.0)
    desk.put(section, moved)
    status, _ = desk.register(mpp_ihc=1.5 * MPP)
    assert status.state in ("failed", "review")
    assert "mpp_ihc" in status.reason
    assert "correct the slide sheet" in status.reason


def write_landmarks(path, he, ihc):
    rows = [",".join(f"{value:.2f}" for value in (*one, *other)) for one, other in zip(he, ihc, strict=True)]
    path.write_text("\n".join(["x_he,y_he,x_ihc,y_ihc", *rows]) + "\n")
    return path


def test_landmarks_whose_columns_are_exchanged_do_not_pass(desk, section, tissue_points):
    moved, truth = partner(section, turn(40.0, shift=(10.0, 4.0)), warp_px=0.0)
    desk.put(section, moved)
    he = tissue_points[:: len(tissue_points) // 12]
    swapped = write_landmarks(desk.folder / "points.csv", truth(he), he)
    status, _ = desk.register("--landmarks", swapped, spec=QUICK)
    assert status.state in ("failed", "review")
    assert "landmarks" in status.reason


def test_three_landmarks_are_enough_for_a_similarity_and_two_are_said_to_be_too_few(desk, section, tissue_points):
    moved, truth = partner(section, turn(40.0), warp_px=0.0)
    desk.put(section, moved)
    he = tissue_points[[0, len(tissue_points) // 2, -1]]
    only = {**QUICK, "chain": ["landmarks"]}
    status, registered = desk.register("--landmarks", write_landmarks(desk.folder / "3.csv", he, truth(he)), spec=only)
    assert not status.failed
    assert registered.summary["rotation_deg"] == pytest.approx(40.0, abs=1.0)
    two = write_landmarks(desk.folder / "2.csv", he[:2], truth(he[:2]))
    status, _ = desk.register("--landmarks", two, spec=only)
    assert status.failed
    assert "at least 3 expected" in status.reason


def test_a_chain_with_landmarks_but_without_a_file_says_so(desk, section):
    desk.put(section, section)
    status, _ = desk.register(spec={"chain": ["landmarks"]})
    assert status.failed
    assert "no landmarks file" in status.reason


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda part: part.attrs.update(affine=[[float("nan")] * 3] * 3), "finite"),
        (lambda part: part.attrs.update(affine=[[0.0] * 3, [0.0] * 3, [0.0, 0.0, 1.0]]), "affine"),
        (
            lambda part: part.create_array(
                "field_um", shape=(2, 400_000, 400_000), chunks=(2, 1024, 1024), dtype="float32", overwrite=True
            ),
            "320,000,000,000 values",
        ),
    ],
)
def test_a_stranger_s_transform_is_refused_with_a_reason(desk, section, spoil, message):
    desk.put(section, section)
    desk.register(spec={"chain": ["identity"]})
    spoil(zarr.open_group(desk.folder / "t.zarr", mode="r+")["ihc_from_he"])
    points = desk.folder / "points.csv"
    points.write_text("x,y\n10,10\n")
    result = desk.run(
        *("warp-points", "--transform", desk.folder / "t.zarr", "--points", points),
        *("--out", desk.folder / "out.csv", "--from", "he", "--to", "ihc"),
    )
    assert result.exit_code != 0
    assert isinstance(result.exception, HepipeError)
    assert message in str(result.exception)
    assert not (desk.folder / "out.csv").exists()


def test_a_folder_that_is_no_transform_is_refused_with_a_reason(desk, section):
    other = desk.folder / "other.zarr"
    zarr.open_group(other, mode="w").attrs.update(title="something else")
    points = desk.folder / "points.csv"
    points.write_text("x,y\n10,10\n")
    result = desk.run(
        *("warp-points", "--transform", other, "--points", points),
        *("--out", desk.folder / "out.csv", "--from", "he", "--to", "ihc"),
    )
    assert isinstance(result.exception, HepipeError)
