"""A slide's two digests: one of the file, one of what it shows."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_files import tissue_picture, write_coded, write_mrxs, write_pyramid, write_svs

from hepipe.slides import digests
from hepipe.slides.digests import SlideDigests, slide_digests
from hepipe.slides.open import closing, decoder_of, open_slide


def digests_of(path: Path, *, mpp: float | None = None) -> SlideDigests:
    slide = open_slide(path, slide_id="c1-he", mpp=mpp)
    with closing(slide):
        return slide_digests(path, slide)


def without_its_names(source: Path, target: Path) -> None:
    """A copy as de-identification tools make it: no texts, dates, label or macro; smaller levels last to first."""
    with tifffile.TiffFile(source) as file, tifffile.TiffWriter(target, bigtiff=True) as writer:
        levels = [page for page in file.pages if page.is_tiled]
        for number, page in sorted(enumerate(levels), key=lambda level: (level[0] > 0, -level[0])):
            data = []
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                file.filehandle.seek(offset)
                data.append(file.filehandle.read(count))
            writer.write(
                iter(data), shape=page.shape, dtype=page.dtype, tile=page.chunks[:2], compression=page.compression,
                photometric=page.photometric, jpegtables=page.jpegtables, metadata=None, software=False,
                subfiletype=1 if number else 0, resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
                subsampling=(2, 2) if page.photometric == 6 else None,
            )  # fmt: skip


@pytest.mark.parametrize("codec", ["ycbcr", "jpeg2000"])
def test_a_de_identified_copy_keeps_the_content_and_is_another_file(tmp_path: Path, codec):
    write_coded(tmp_path / "a.svs", tissue_picture(200, 300), codec=codec, aperio=True)
    without_its_names(tmp_path / "a.svs", tmp_path / "b.tif")
    before, after = (digests_of(tmp_path / name, mpp=0.5) for name in ("a.svs", "b.tif"))
    assert before.content_of == after.content_of == "tiles"
    assert before.content == after.content
    assert before.file != after.file
    assert b"Aperio" in (tmp_path / "a.svs").read_bytes()
    assert b"Aperio" not in (tmp_path / "b.tif").read_bytes()


def test_a_label_that_is_painted_over_changes_the_file_alone(tmp_path: Path):
    for name, text, shade in (("a.svs", "DOE JANE", 30), ("b.svs", "none", 0)):
        label = np.full((32, 48, 3), shade, np.uint8)
        write_svs(tmp_path / name, tissue_picture(), text=text, label=label)
    first, second = (digests_of(tmp_path / name) for name in ("a.svs", "b.svs"))
    assert first.content == second.content
    assert first.file != second.file


def test_one_other_tile_of_level_0_is_another_content_and_one_of_level_1_is_not(tmp_path: Path):
    write_pyramid(tmp_path / "a.tif", tissue_picture(), mpp=0.5)
    whole = (tmp_path / "a.tif").read_bytes()
    before = digests_of(tmp_path / "a.tif")
    for level, same in ((0, False), (1, True)):
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            at = file.pages[level].dataoffsets[-1] + file.pages[level].databytecounts[-1] - 1
        (tmp_path / "b.tif").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        after = digests_of(tmp_path / "b.tif")
        assert (after.content == before.content) is same
        assert after.file != before.file


def test_other_tables_for_the_same_tiles_are_another_content(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue_picture(), shared_tables=True)
    before = digests_of(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        tag = file.pages[0].tags["JPEGTables"]
        file.filehandle.seek(tag.valueoffset + 20)
        (old,) = file.filehandle.read(1)
        file.filehandle.seek(tag.valueoffset + 20)
        file.filehandle.write(bytes([old ^ 1]))
    assert digests_of(tmp_path / "a.tif").content != before.content


def test_the_file_digest_is_what_sha256sum_prints(tmp_path: Path):
    write_pyramid(tmp_path / "a.tif", tissue_picture(), mpp=0.5)
    assert digests_of(tmp_path / "a.tif").file == hashlib.sha256((tmp_path / "a.tif").read_bytes()).hexdigest()


@pytest.mark.parametrize("block", [97, 1000, 8 << 20])
def test_the_size_of_a_block_is_no_part_of_a_digest(tmp_path: Path, monkeypatch, block):
    write_coded(tmp_path / "a.tif", tissue_picture(200, 300))
    before = digests_of(tmp_path / "a.tif")
    monkeypatch.setattr(digests, "BLOCK_BYTES", block)
    assert digests_of(tmp_path / "a.tif") == before


def test_tiles_that_share_their_bytes_and_missing_ones_are_told_apart(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    ranges = [(0, 50), (0, 50), (10, 60), (0, 0), (199, 200), (0, 200)]
    whole, found = digests._hashed(path, ranges)
    assert whole == found[0, 200] == hashlib.sha256(bytes(range(200))).digest()
    for start, end in ranges:
        assert found[start, end] == hashlib.sha256(bytes(range(start, end))).digest()
    with pytest.raises(OSError, match="ends before"):
        digests._hashed(path, [(190, 201)])


def test_a_picture_has_the_content_of_its_pixels(tmp_path: Path):
    Image.fromarray(tissue_picture()).save(tmp_path / "a.png", compress_level=1)
    Image.fromarray(tissue_picture()).save(tmp_path / "b.png", compress_level=9)
    first, second = (digests_of(tmp_path / name, mpp=0.5) for name in ("a.png", "b.png"))
    assert first.content_of == "pixels"
    assert first.content == second.content
    assert first.file != second.file


def test_a_file_whose_tiles_list_more_than_it_holds_is_decoded_instead(tmp_path: Path, monkeypatch):
    write_pyramid(tmp_path / "a.tif", tissue_picture(), mpp=0.5)
    monkeypatch.setattr(digests, "MAX_OVERLAP", 1e-3)
    assert digests_of(tmp_path / "a.tif").content_of == "pixels"


def mirax(folder: Path, *, shade: int = 0) -> Path:
    folder.mkdir()
    tile = tissue_picture(64, 64)
    write_mrxs(folder / "a.mrxs", {(2, 2): tile, (3, 2): tile - np.uint8(shade)}, across=6, down=4, mpp=0.5)
    return folder / "a.mrxs"


def test_all_parts_of_a_mirax_slide_are_its_file(tmp_path: Path):
    path = mirax(tmp_path / "one")
    before = digests_of(path)
    assert before.content_of == "tiles"
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  .mrxs\n"] + [
        f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n"
        for part in sorted((tmp_path / "one/a").iterdir())
    ]
    assert before.file == hashlib.sha256("".join(lines).encode()).hexdigest()
    settings = tmp_path / "one/a/Slidedat.ini"
    settings.write_text(settings.read_text().replace("DOE JANE", "C1"))
    after = digests_of(path)
    assert after.content == before.content
    assert after.file != before.file


def test_a_renamed_mirax_slide_keeps_both_digests(tmp_path: Path):
    path = mirax(tmp_path / "one")
    before = digests_of(path)
    path.rename(tmp_path / "one/b.mrxs")
    (tmp_path / "one/a").rename(tmp_path / "one/b")
    assert digests_of(tmp_path / "one/b.mrxs") == before


def test_another_picture_or_place_is_another_content_of_a_mirax_slide(tmp_path: Path):
    before = digests_of(mirax(tmp_path / "one"))
    assert digests_of(mirax(tmp_path / "two", shade=1)).content != before.content
    (tmp_path / "three").mkdir()
    tile = tissue_picture(64, 64)
    write_mrxs(tmp_path / "three/a.mrxs", {(2, 2): tile, (4, 2): tile}, across=6, down=4, mpp=0.5)
    assert digests_of(tmp_path / "three/a.mrxs").content != before.content


def test_a_mirax_slide_whose_parts_are_named_elsewhere_is_not_read_there(tmp_path: Path):
    path = mirax(tmp_path / "one")
    (tmp_path / "secret.dat").write_bytes((tmp_path / "one/a/Data0000.dat").read_bytes())
    settings = tmp_path / "one/a/Slidedat.ini"
    settings.write_text(settings.read_text().replace("Data0000.dat", "../../secret.dat"))
    assert digests._mirax_level0(path) is None


def test_who_decodes_a_slide_is_told_with_the_version_of_the_library(tmp_path: Path):
    write_pyramid(tmp_path / "a.tif", tissue_picture(), mpp=0.5)
    Image.fromarray(tissue_picture()).save(tmp_path / "a.png")
    for name, library in (("a.tif", "openslide"), ("a.png", "pillow")):
        slide = open_slide(tmp_path / name, slide_id="c1-he", mpp=0.5)
        with closing(slide):
            assert re.fullmatch(rf"{library} \d+\.\d+.*", decoder_of(slide))
