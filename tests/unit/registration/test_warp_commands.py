"""`hepipe warp` and `hepipe warp-points` as a person types them."""

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import openslide
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from hepipe.cli import warp as commands
from hepipe.errors import ConfigError, SlideError, StoreError
from hepipe.geometry import Transform, translation
from hepipe.registration.transform import from_mapping, invert
from hepipe.status import failed
from hepipe.stores.arrays import write_registered
from hepipe.stores.provenance import Provenance

HE, IHC = (420, 300), (400, 330)
SHIFT = (-25.0, 12.0)


def smooth(size, seed):
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return np.clip((cv2.GaussianBlur(noise, (0, 0), 4).astype(float) - 127) * 5 + 150, 0, 240).astype(np.uint8)


@pytest.fixture
def run():
    app = typer.Typer()
    commands.register(app)

    def go(*arguments):
        result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return go


@pytest.fixture
def pair(tmp_path):
    """Both slides as pictures of 0.5 µm per px, and their registration: a shift and a bend of 4 px."""
    for name, size, seed in (("he", HE, 1), ("ihc", IHC, 2)):
        Image.fromarray(smooth(size, seed)).save(tmp_path / f"{name}.png")

    def place(points):
        return points + SHIFT + 4 * np.sin(points[:, ::-1] / 60)

    forward = from_mapping(place, translation(*SHIFT), fixed_size_px0=HE, fixed_mpp=0.5, moving_mpp=0.5, grid_um=4.0)
    back = invert(forward, a_size_px0=HE, b_size_px0=IHC).transform
    store(tmp_path / "T.zarr", forward, back)
    return tmp_path


def store(path, forward, back, **provenance):
    given = Provenance(artefact="registered", subject="C7", **provenance)
    write_registered(path, given, ihc_from_he=forward, he_from_ihc=back, summary={})


def slides(folder, mpp="0.5"):
    return ["--he", folder / "he.png", "--ihc", folder / "ihc.png", "--mpp-he", mpp, "--mpp-ihc", mpp]


def pixels(path, level=0):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3].astype(int)


def test_either_slide_is_written_in_the_frame_of_the_other_and_comes_back(run, pair):
    said = run("warp", *slides(pair), "--transform", pair / "T.zarr", "--of", "ihc", "--out", pair / "o.tif")
    assert f"o.tif: {HE[0]} x {HE[1]} px, 2 levels, 0.5 µm per px; " in said
    assert "lie on case-ihc, the rest is white" in said
    run("warp", *slides(pair), "--transform", pair / "T.zarr", "--of", "he", "--out", pair / "h.tif")
    assert pixels(pair / "o.tif").shape[:2] == HE[::-1]
    assert pixels(pair / "h.tif").shape[:2] == IHC[::-1]
    # H&E at a point, and the H&E as warped at that point's place on the IHC slide.
    source, warped = np.asarray(Image.open(pair / "he.png")).astype(int), pixels(pair / "h.tif")
    places = np.array([(x + 0.5, y + 0.5) for x in range(60, 380, 40) for y in range(30, 290, 40)])
    found = places + SHIFT + 4 * np.sin(places[:, ::-1] / 60)
    rows, columns = np.rint(found.T[::-1] - 0.5).astype(int)
    near = source[places[:, 1].astype(int), places[:, 0].astype(int)]
    assert np.median(np.abs(warped[rows, columns] - near)) < 6
    assert np.median(np.abs(warped[rows, columns - 8] - near)) > 15


def test_the_form_is_the_persons_choice(run, pair):
    common = ["warp", *slides(pair), "--transform", pair / "T.zarr", "--of", "ihc", "--out", pair / "o.tif"]
    run(*common, "--format", "ome", "--compression", "deflate", "--mpp", "2")
    import tifffile

    with tifffile.TiffFile(pair / "o.tif") as file:
        assert file.is_ome
        assert file.pages.first.compression.name == "ADOBE_DEFLATE"
        assert file.pages.first.shape[:2] == (75, 105)
    run(*common, "--quality", "30")
    small = (pair / "o.tif").stat().st_size
    run(*common, "--quality", "95")
    assert (pair / "o.tif").stat().st_size > 1.5 * small


def test_unknown_pixel_sizes_leave_the_file_without_one(run, pair):
    scaled = Transform(translation(*SHIFT), 1.0, 1.0)
    store(pair / "U.zarr", scaled, Transform(np.linalg.inv(scaled.affine), 1.0, 1.0))
    said = run("warp", *slides(pair, "unknown"), "--transform", pair / "U.zarr", "--of", "ihc", "--out", pair / "o.tif")
    assert "1 µm per px nominally (unknown, not in the file)" in said
    with openslide.OpenSlide(pair / "o.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_mistakes_are_named_before_anything_is_written(run, pair):
    common = ["warp", *slides(pair), "--transform", pair / "T.zarr", "--of", "ihc"]
    out = ["--out", pair / "o.tif"]

    def refused(message, *arguments, kind=ConfigError):
        with pytest.raises(kind, match=message):
            run(*arguments)
        assert not (pair / "o.tif").exists()

    refused(r"o\.png: \.tif or \.tiff expected", *common, "--out", pair / "o.png")
    refused(r"--mpp 0\.1: case-ihc has 0\.5 µm per px at level 0; 0\.5 to 500 expected", *common, *out, "--mpp", "0.1")
    refused(r"--mpp nan: case-ihc has", *common, *out, "--mpp", "nan")
    refused(
        r"made for 0\.5 µm per px, case-(he|ihc) has 0\.25; give the pixel sizes that the pair was registered with",
        *("warp", *slides(pair, "0.25"), "--transform", pair / "T.zarr", "--of", "ihc", *out),
    )
    refused("--mpp-he is 'x'", "warp", *slides(pair, "x"), "--transform", pair / "T.zarr", "--of", "ihc", *out)
    for nothing in (pair / "none.zarr", pair, pair / "he.png"):
        refused(
            "no registration; the folder that hepipe register writes expected",
            *("warp", *slides(pair), "--transform", nothing, "--of", "ihc", *out),
        )
    swapped = ["--he", pair / "ihc.png", "--ihc", pair / "he.png", "--mpp-he", "0.5", "--mpp-ihc", "0.5"]
    Image.fromarray(smooth((900, 700), 3)).save(pair / "ihc.png")
    refused(
        r"made for a slide of about 42\d x 304 px, case-he has 900 x 700; give the slides that were registered",
        *("warp", *swapped, "--transform", pair / "T.zarr", "--of", "ihc", *out),
    )
    (pair / "ihc.png").write_bytes(b"no picture")
    refused("case-ihc: no slide or picture that can be opened", *common, *out, kind=SlideError)


def test_the_slide_itself_is_never_replaced(run, pair):
    os.link(pair / "he.png", pair / "he.tif")
    with pytest.raises(ConfigError, match=r"he\.tif: would replace one of the two slides"):
        run("warp", *slides(pair), "--transform", pair / "T.zarr", "--of", "ihc", "--out", pair / "he.tif")


def test_a_failed_case_and_a_strangers_file_say_what_to_do(run, pair):
    common = ["warp", *slides(pair), "--of", "he", "--out", pair / "o.tif", "--transform"]
    store(pair / "F.zarr", None, None, status=failed("registration", "no tissue found on C7-he"))
    with pytest.raises(ConfigError, match=r"case C7 is failed \(no tissue found on C7-he\) and holds no transform to"):
        run(*common, pair / "F.zarr")
    document = json.loads((pair / "T.zarr/he_from_ihc/zarr.json").read_text())
    document["attributes"]["moving_mpp"] = -1
    (pair / "T.zarr/he_from_ihc/zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"he_from_ihc: moving_mpp is -1, 0\.05 to 20 µm per px expected"):
        run(*common, pair / "T.zarr")


def test_points_go_there_and_back_within_a_hundredth_of_a_px(run, pair):
    (pair / "p.csv").write_text(",X,Y\n1,63,109\n2,200.5,250\n")
    way = ["warp-points", "--transform", pair / "T.zarr", "--points"]
    said = run(*way, pair / "p.csv", "--out", pair / "q.csv", "--from", "he", "--to", "ihc")
    assert "q.csv: 2 points, 0 of them extrapolated" in said
    first = [float(value) for value in (pair / "q.csv").read_text().splitlines()[1].split(",")[1:3]]
    expected = [63 + SHIFT[0] + 4 * np.sin(109 / 60), 109 + SHIFT[1] + 4 * np.sin(63 / 60)]
    np.testing.assert_allclose(first, expected, atol=0.02)
    run(*way, pair / "q.csv", "--out", pair / "r.csv", "--from", "ihc", "--to", "he")
    back = [line.split(",") for line in (pair / "r.csv").read_text().splitlines()]
    assert back[0] == ["", "X", "Y", "extrapolated"]
    np.testing.assert_allclose(np.array(back[1:], float), [[1, 63, 109, 0], [2, 200.5, 250, 0]], atol=0.01)
    with pytest.raises(ConfigError, match="--from and --to are both he; one he, the other ihc"):
        run(*way, pair / "p.csv", "--out", pair / "s.csv", "--from", "he", "--to", "he")


def test_a_kill_leaves_no_half_file_under_the_name(pair):
    out = pair / "o.tif"
    program = (
        "import time\n"
        "from hepipe.registration import warped_pyramid\n"
        "reduce = warped_pyramid._reduce\n"
        "def slow(*arguments, **options):\n"
        "    print('begun', flush=True); time.sleep(60)\n"
        "    return reduce(*arguments, **options)\n"
        "warped_pyramid._reduce = slow\n"
        "from hepipe.cli.app import main\n"
        "main()\n"
    )
    arguments = ["warp", *slides(pair), "--transform", pair / "T.zarr", "--of", "ihc", "--out", out]
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert child.stdout.readline() == b"begun\n"
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        assert not out.exists()
    finally:
        child.kill()
        child.stdout.close()
