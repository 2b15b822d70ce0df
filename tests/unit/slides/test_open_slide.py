from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_files import halves, tissue_picture, write_pyramid, write_svs

from hepipe.errors import SlideError
from hepipe.geometry import Box
from hepipe.slides import picture
from hepipe.slides.open import open_slide
from hepipe.slides.reader import Slide
from hepipe.specs.slides import SlidesSpec


def read_all(slide: Slide) -> np.ndarray:
    return slide.read(Box(0, 0, *slide.size_px0), mpp=slide.mpp, size=slide.size_px0)


@pytest.fixture
def tissue() -> np.ndarray:
    return tissue_picture(300, 200)


def test_a_pyramid_is_read_by_openslide(tmp_path: Path, tissue: np.ndarray):
    write_pyramid(tmp_path / "a.tif", tissue, mpp=0.5)
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he")
    assert (slide.reader, slide.mpp, slide.mpp_from) == ("openslide", 0.5, "file")
    assert slide.downsamples == (1.0, 2.0, 4.0)
    np.testing.assert_array_equal(read_all(slide), tissue)
    half = slide.read(Box(0, 0, 200, 300), mpp=1.0, size=(100, 150))
    np.testing.assert_array_equal(half, halves(tissue))
    slide.close()


def test_both_pyramid_readers_see_the_same_pixels(tmp_path: Path, tissue: np.ndarray):
    write_pyramid(tmp_path / "a.tif", tissue, mpp=0.5)
    box = {"mpp": 1.0, "size": (60, 50)}
    reads = []
    for reader in ("openslide", "tiffslide"):
        slide = open_slide(tmp_path / "a.tif", slide_id="c1-he", reader=reader)
        assert slide.reader == reader
        assert isinstance(slide, Slide)
        reads.append(slide.read(Box(20, 100, 120, 100), **box))
    np.testing.assert_array_equal(*reads)


def test_strips_are_read_by_tiffslide(tmp_path: Path, tissue: np.ndarray):
    tifffile.imwrite(
        tmp_path / "a.tif", tissue, photometric="rgb", rowsperstrip=16, resolution=(2e4, 2e4), resolutionunit=3
    )
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he")
    assert (slide.reader, slide.format, slide.mpp) == ("tiffslide", "generic-tiff", 0.5)
    np.testing.assert_array_equal(read_all(slide), tissue)


@pytest.mark.parametrize(("size", "unit"), [(0.25, "µm"), (250, "nm")])
@pytest.mark.parametrize(("tile", "reader"), [(None, "tiffslide"), ((64, 64), "openslide")])
def test_ome_tiff_states_its_pixel_size(
    tmp_path: Path, tissue: np.ndarray, size: float, unit: str, tile: object, reader: str
):
    metadata = {"axes": "YXS"} | {f"PhysicalSize{axis}": size for axis in "XY"}
    metadata |= {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    tifffile.imwrite(tmp_path / "a.ome.tif", tissue, photometric="rgb", tile=tile, metadata=metadata)
    slide = open_slide(tmp_path / "a.ome.tif", slide_id="c1-he")
    assert (slide.reader, slide.mpp, slide.mpp_from) == (reader, 0.25, "file")
    np.testing.assert_array_equal(read_all(slide), tissue)


@pytest.mark.parametrize("name", ["a.png", "named.wrong.svs"])
def test_a_picture_is_told_by_its_content(tmp_path: Path, tissue: np.ndarray, name: str):
    Image.fromarray(tissue).save(tmp_path / name, "PNG")
    slide = open_slide(tmp_path / name, slide_id="c1-he", mpp=2.0)
    assert (slide.reader, slide.mpp, slide.mpp_from) == ("picture", 2.0, "sheet")
    np.testing.assert_array_equal(read_all(slide), tissue)


def test_a_transparent_picture_lies_on_white(tmp_path: Path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_all(open_slide(tmp_path / "a.png", slide_id="c1-he", mpp=2.0))
    assert (read[:4].max(), read[4:].min()) == (0, 255)


def test_the_sheet_overrides_the_file(tmp_path: Path, tissue: np.ndarray):
    write_pyramid(tmp_path / "a.tif", tissue, mpp=1000.0)
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-ihc", mpp=0.4)
    assert (slide.mpp, slide.mpp_from) == (0.4, "sheet")


@pytest.mark.parametrize(
    ("mpp", "reason"),
    [
        (1000.0, r"the file states 1000 µm per px, 0.05 to 20 is plausible; fill mpp_ihc in its row"),
        (None, "no pixel size in the file; fill mpp_ihc in its row of the slide sheet"),
        ((0.5, 0.6), r"the file states pixels of 0.5 x 0.6 µm, square ones expected; fill mpp_ihc"),
    ],
)
@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_an_implausible_pixel_size_names_the_column_to_fill(
    tmp_path: Path, tissue: np.ndarray, mpp: object, reason: str, reader: str
):
    write_pyramid(tmp_path / "a.tif", tissue, mpp=mpp)
    with pytest.raises(SlideError, match=reason):
        open_slide(tmp_path / "a.tif", slide_id="c1-ihc", reader=reader)


@pytest.mark.parametrize("reader", ["openslide", "tiffslide", "picture"])
def test_a_pixel_size_said_to_be_unknown_reads_as_one(tmp_path: Path, tissue: np.ndarray, reader: str):
    write_pyramid(tmp_path / "a.tif", tissue, mpp=1000.0)
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he", mpp="unknown", reader=reader)
    assert (slide.mpp, slide.mpp_from) == (1.0, "unknown")


def test_a_picture_without_a_given_pixel_size_is_refused(tmp_path: Path, tissue: np.ndarray):
    Image.fromarray(tissue).save(tmp_path / "a.jpg", dpi=(72, 72))
    with pytest.raises(SlideError, match="slide c1-he: no pixel size in the file; fill mpp_he"):
        open_slide(tmp_path / "a.jpg", slide_id="c1-he")


def test_a_given_pixel_size_must_be_plausible_too(tmp_path: Path, tissue: np.ndarray):
    write_pyramid(tmp_path / "a.tif", tissue, mpp=0.5)
    with pytest.raises(SlideError, match=r"mpp_he is 250 µm per px, 0.05 to 20 expected"):
        open_slide(tmp_path / "a.tif", slide_id="c1-he", mpp=250.0)


def test_samples_other_than_8_bit_rgb_are_refused(tmp_path: Path, tissue: np.ndarray):
    gray, deep = tissue[..., 0], tissue.astype(np.uint16) * 200
    Image.fromarray(gray).save(tmp_path / "gray.png")
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", tile=(64, 64))
    tifffile.imwrite(tmp_path / "deep-strips.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "gray-tiles.tif", gray, tile=(64, 64))
    tifffile.imwrite(tmp_path / "many.ome.tif", np.zeros((5, 64, 64), np.uint8), metadata={"axes": "CYX"})
    deep_png = bytearray((tmp_path / "gray.png").read_bytes())
    assert deep_png[24] == 8, "bit depth of a PNG"
    for name, kind in (
        ("gray.png", "8-bit grayscale"),
        ("deep.tif", "16-bit 3 channels"),
        ("deep-strips.tif", "16-bit 3 channels"),
        ("gray-tiles.tif", "8-bit grayscale"),
        ("many.ome.tif", "8-bit 5 channels"),
    ):
        with pytest.raises(SlideError, match=f"{kind} found, 8-bit RGB expected: not a brightfield scan"):
            open_slide(tmp_path / name, slide_id="c1-he", mpp=0.5)


def test_a_picture_too_large_to_decode_whole_is_refused(
    tmp_path: Path, tissue: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    Image.fromarray(tissue).save(tmp_path / "a.png")
    monkeypatch.setattr(picture, "MAX_PICTURE_PX", 10_000)
    with pytest.raises(SlideError, match="Mpx without levels, at most 0 are decoded whole; save it as a tiled TIFF"):
        open_slide(tmp_path / "a.png", slide_id="c1-he", mpp=0.5)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SlideError, match="save it as a tiled TIFF pyramid"):
        open_slide(tmp_path / "a.png", slide_id="c1-he", mpp=0.5)


def test_a_picture_cut_short_is_an_error(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=95)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(SlideError, match="the picture does not decode to its end"):
        open_slide(tmp_path / "a.jpg", slide_id="c1-he", mpp=0.5)


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_a_damaged_tile_is_an_error_when_it_is_read(tmp_path: Path, tissue: np.ndarray, reader: str):
    path = tmp_path / "a.tif"
    write_pyramid(path, tissue, mpp=0.5)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    slide = open_slide(path, slide_id="c1-he", reader=reader)
    slide.read(Box(0, 0, 64, 64), mpp=0.5, size=(64, 64))
    with pytest.raises(SlideError, match="slide c1-he: some pixels do not decode"):
        slide.read(Box(160, 260, 40, 30), mpp=0.5, size=(40, 30))


def test_what_is_no_slide_is_refused_without_its_name(tmp_path: Path):
    (tmp_path / "DOE_JANE.svs").write_text("this is not a slide\n" * 50)
    (tmp_path / "empty.svs").touch()
    (tmp_path / "DOE_folder.svs").mkdir()
    for name, reason in (
        ("DOE_JANE.svs", r"no slide or picture that can be opened \(tried direct, openslide, tiffslide, picture\)"),
        ("DOE_none.svs", "there is no such file; correct its row of the slide sheet"),
        ("DOE_folder.svs", "a folder, not a file"),
        ("empty.svs", "the file is empty"),
    ):
        with pytest.raises(SlideError, match=reason) as caught:
            open_slide(tmp_path / name, slide_id="c1-he", mpp=0.5)
        assert "DOE" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_readers_are_tried_in_the_order_of_the_config(tmp_path: Path, tissue: np.ndarray):
    write_pyramid(tmp_path / "a.tif", tissue, mpp=0.5)
    spec = SlidesSpec(readers=("tiffslide", "openslide"))
    assert open_slide(tmp_path / "a.tif", slide_id="c1-he", spec=spec).reader == "tiffslide"


def test_properties_hold_no_text_of_the_file(tmp_path: Path, tissue: np.ndarray):
    write_svs(tmp_path / "a.svs", tissue, text="DOE^JANE", label=tissue[:64, :64])
    slide = open_slide(tmp_path / "a.svs", slide_id="c1-he")
    assert slide.format == "aperio"
    assert slide.downsamples == (1.0, 2.0)
    assert "DOE" not in repr(slide.properties())
    assert set(slide.properties()) == {
        "reader", "format", "mpp", "mpp_from", "width_px0", "height_px0", "levels"
    }  # fmt: skip
