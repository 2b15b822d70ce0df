from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from slide_files import tissue_picture, write_pyramid

from hepipe.errors import SlideError
from hepipe.slides.check import SlideFound, check_slide, tissue_mm2
from hepipe.slides.completeness import is_cut_short
from hepipe.specs.slides import SlidesSpec

SPEC = SlidesSpec(min_tissue_mm2=0.001)


def check(path: Path, *, mpp: float | None = None) -> SlideFound:
    return check_slide(path, slide_id="c1-ihc", mpp=mpp, spec=SPEC)


def test_a_good_slide_is_described_by_what_may_leave(tmp_path: Path):
    write_pyramid(tmp_path / "DOE_JANE.tif", tissue_picture(), mpp=0.5)
    found = check(tmp_path / "DOE_JANE.tif")
    assert (found.reader, found.format, found.mpp, found.size_px0) == ("openslide", "generic-tiff", 0.5, (512, 512))
    assert found.tissue_mm2 == pytest.approx(256 * 256 * 0.25e-6, rel=0.3)
    assert len(found.content_sha256) == 64
    assert found.icc_sha256 is None
    assert "DOE" not in repr(found)


def test_the_content_hash_follows_the_pixels_and_not_the_name(tmp_path: Path):
    for name, seed in (("a.tif", 0), ("b.tif", 0), ("c.tif", 1)):
        write_pyramid(tmp_path / name, tissue_picture(seed=seed), mpp=0.5)
    first, same, other = (check(tmp_path / name).content_sha256 for name in ("a.tif", "b.tif", "c.tif"))
    assert first == same != other


def test_a_colour_profile_is_hashed(tmp_path: Path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(tissue_picture()).save(tmp_path / "a.png", icc_profile=profile)
    assert len(check(tmp_path / "a.png", mpp=0.5).icc_sha256 or "") == 64


def test_a_dark_slide_is_not_brightfield(tmp_path: Path):
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[64:128, 64:128, 2] = 200
    write_pyramid(tmp_path / "a.tif", picture, mpp=0.5)
    with pytest.raises(SlideError, match=r"94% of it is dark, at most 60% expected: not a brightfield scan"):
        check(tmp_path / "a.tif")


def test_a_slide_without_colour_is_refused(tmp_path: Path):
    gray = tissue_picture().mean(axis=2).astype(np.uint8)
    write_pyramid(tmp_path / "a.tif", np.stack([gray] * 3, axis=2), mpp=0.5)
    with pytest.raises(SlideError, match="8-bit grayscale found, 8-bit RGB expected"):
        check(tmp_path / "a.tif")


@pytest.mark.parametrize("noise", [0, 4])
def test_bare_glass_is_empty(tmp_path: Path, noise: int):
    glass = np.full((512, 512, 3), 240, np.uint8)
    glass += np.random.default_rng(0).integers(0, noise + 1, glass.shape, np.uint8)
    write_pyramid(tmp_path / "a.tif", glass, mpp=0.5)
    with pytest.raises(SlideError, match=r"0 mm² of tissue, at least 0.001 expected: the slide looks empty"):
        check(tmp_path / "a.tif")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99, 0.999])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, kept: float):
    write_pyramid(tmp_path / "a.tif", tissue_picture(), mpp=0.5)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(SlideError, match="the file is cut short: bytes that it points to are missing"):
        check(tmp_path / "a.tif")


def test_whole_files_and_other_formats_are_not_cut_short(tmp_path: Path):
    write_pyramid(tmp_path / "a.tif", tissue_picture(), mpp=0.5)
    Image.fromarray(tissue_picture()).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("text")
    assert [is_cut_short(tmp_path / name) for name in ("a.tif", "a.png", "a.txt")] == [False, False, False]


def test_tissue_is_what_is_darker_than_the_glass():
    picture = np.full((100, 100, 3), 230, np.uint8)
    picture[:50, :50] = (200, 150, 190)
    assert tissue_mm2(picture, mpp=10.0) == pytest.approx(0.25, rel=0.01)


def test_pale_stroma_around_dark_nuclei_is_tissue():
    picture = np.full((200, 200, 3), 244, np.uint8)
    picture[:100] = 225
    picture[4:100:16, 4:100:16] = (60, 60, 120)
    assert tissue_mm2(picture, mpp=5.0) == pytest.approx(200 * 100 * 25e-6, rel=0.05)
