import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from slide_files import tissue_picture, write_coded

from hepipe.geometry import Box
from hepipe.slides.check import check_slide
from hepipe.slides.open import open_slide
from hepipe.specs.slides import SlidesSpec

SRGB = SlidesSpec(icc="srgb", min_tissue_mm2=0.0)


def profile(kind: str = "sRGB") -> bytes:
    """A profile that ships with the library; of sRGB, with red and green primaries exchanged for `swapped`."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB" if kind == "LAB" else "sRGB")).tobytes()
    if kind != "swapped":
        return data
    names = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    count = int.from_bytes(data[128:132], "big")
    table = bytearray(data)
    for entry in range(132, 132 + 12 * count, 12):
        name = bytes(table[entry : entry + 4])
        table[entry : entry + 4] = names.get(name, name)
    return bytes(table)


def write(path: Path, icc: bytes | None) -> np.ndarray:
    """A slide with a profile; its pixels as they decode."""
    write_coded(path, tissue_picture(256, 256), n_levels=1)
    if icc is not None:
        pages = tifffile.imread(path)
        tifffile.imwrite(
            path, pages, tile=(64, 64), photometric="rgb", compression="jpeg", iccprofile=icc, metadata=None
        )
    return np.asarray(open_slide(path, slide_id="c1-he", mpp=0.5).read(Box(0, 0, 256, 256), mpp=0.5, size=(256, 256)))


def test_pixels_stay_as_scanned_by_default(tmp_path: Path):
    write(tmp_path / "a.tif", profile("swapped"))
    found = check_slide(tmp_path / "a.tif", slide_id="c1-he", mpp=0.5, spec=SlidesSpec(min_tissue_mm2=0.0))
    assert found.color == "as_scanned"
    assert found.icc_sha256


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_pixels_are_converted_by_the_slides_own_profile(tmp_path: Path, reader: str):
    scanned = write(tmp_path / "a.tif", profile("swapped"))
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he", mpp=0.5, spec=SRGB, reader=reader)
    read = slide.read(Box(0, 0, 256, 256), mpp=0.5, size=(256, 256))
    assert slide.color == "srgb"
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile("swapped"))),
        ImageCms.createProfile("sRGB"),
        "RGB",
        "RGB",
    )
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(scanned), transform))
    np.testing.assert_array_equal(read, expected)
    assert np.abs(read.astype(int) - scanned).max() > 20


def test_a_read_in_parts_converts_as_one_does_and_the_outside_stays_white(tmp_path: Path):
    write(tmp_path / "a.tif", profile("swapped"))
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he", mpp=0.5, spec=SRGB)
    whole = slide.read(Box(0, 0, 256, 256), mpp=0.5, size=(256, 256))
    part = slide.read(Box(-20, 50, 100, 90), mpp=0.5, size=(100, 90))
    np.testing.assert_array_equal(part[:, 20:], whole[50:140, :80])
    assert part[:, :20].min() == 255


@pytest.mark.parametrize(
    ("icc", "reason"),
    [
        (None, "file carries no colour profile that can be read"),
        (b"no profile", "file carries no colour profile that can be read"),
        (profile("LAB"), "colour profile is not of RGB pixels"),
    ],
)
def test_a_slide_that_cannot_be_converted_says_so_and_stays_as_scanned(tmp_path: Path, icc: bytes | None, reason: str):
    scanned = write(tmp_path / "a.tif", icc)
    found = check_slide(tmp_path / "a.tif", slide_id="c1-he", mpp=0.5, spec=SRGB)
    assert found.color == f"as_scanned: the {reason}"
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he", mpp=0.5, spec=SRGB)
    np.testing.assert_array_equal(slide.read(Box(0, 0, 256, 256), mpp=0.5, size=(256, 256)), scanned)
