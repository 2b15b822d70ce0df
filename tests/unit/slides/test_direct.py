import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_files import tile_bytes, write_coded, write_pyramid

from hepipe.errors import SlideError
from hepipe.geometry import Box
from hepipe.slides import direct
from hepipe.slides.check import check_slide
from hepipe.slides.direct import DirectSlide
from hepipe.slides.open import open_slide
from hepipe.slides.openslide import OpenSlideSlide
from hepipe.slides.source_tiles import NotDirect, TileGrid
from hepipe.slides.tile_cache import TileCache
from hepipe.specs.slides import SlidesSpec


def tissue(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Smooth colours everywhere, so that any px out of place or of another colour shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 250, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def both(path: Path) -> tuple[DirectSlide, OpenSlideSlide]:
    return DirectSlide(path, slide_id="c1-he", mpp=None), OpenSlideSlide(path, slide_id="c1-he", mpp=None)


@pytest.mark.parametrize("aperio", [False, True])
@pytest.mark.parametrize("codec", ["ycbcr", "rgb"])
def test_every_px_of_jpeg_tiles_is_what_openslide_shows(tmp_path: Path, codec: str, aperio: bool):
    write_coded(tmp_path / "a.svs", tissue(256, 384), codec=codec, aperio=aperio)
    ours, theirs = both(tmp_path / "a.svs")
    for level, (width, height) in enumerate(ours.level_sizes):
        whole = theirs.decode(level, 0, 0, width, height)
        np.testing.assert_array_equal(ours.decode(level, 0, 0, width, height), whole)
        for x, y, across, down in ((64, 0, 32, 64), (13, 7, 51, 31), (width - 9, height - 5, 9, 5), (31, 33, 1, 1)):
            np.testing.assert_array_equal(ours.decode(level, x, y, across, down), whole[y : y + down, x : x + across])


@pytest.mark.parametrize("codec", ["jpeg2000", "jpeg2000-ycbcr"])
def test_every_px_of_aperios_jpeg_2000_tiles_is_what_openslide_shows(tmp_path: Path, codec: str):
    noise = np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)
    write_coded(tmp_path / "a.svs", noise, codec=codec, aperio=True)
    slide = open_slide(tmp_path / "a.svs", slide_id="c1-he")
    theirs = OpenSlideSlide(tmp_path / "a.svs", slide_id="c1-he", mpp=None)
    assert (slide.reader, slide.not_direct) == ("direct", "")
    found = slide.decode(0, 0, 0, 300, 400)
    np.testing.assert_array_equal(found, theirs.decode(0, 0, 0, 300, 400))
    assert np.array_equal(found, noise) == (codec == "jpeg2000")


@pytest.mark.parametrize("codec", ["ycbcr", "rgb"])
def test_tiles_with_shared_tables_and_no_word_on_their_colours_follow_the_tag(tmp_path: Path, codec: str):
    array = tissue(200, 200)
    write_coded(tmp_path / "a.svs", array, codec=codec, aperio=True, shared_tables=True)
    slide = open_slide(tmp_path / "a.svs", slide_id="c1-he")
    theirs = OpenSlideSlide(tmp_path / "a.svs", slide_id="c1-he", mpp=None)
    assert slide.reader == "direct"
    np.testing.assert_array_equal(slide.decode(0, 0, 0, 200, 200), theirs.decode(0, 0, 0, 200, 200))
    assert np.abs(slide.decode(0, 0, 0, 200, 200).astype(int) - array).mean() < 8


def test_levels_of_odd_sizes_show_their_own_pixels(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(333, 271))
    ours, theirs = both(tmp_path / "a.tif")
    width, height = ours.level_sizes[1]
    whole = theirs.decode(1, 0, 0, width, height)  # only from its corner does openslide not interpolate
    np.testing.assert_array_equal(ours.decode(1, 70, 90, 40, 50), whole[90:140, 70:110])
    assert open_slide(tmp_path / "a.tif", slide_id="c1-he").reader == "direct"


@pytest.mark.parametrize("codec", ["ycbcr", "rgb"])
def test_a_photometric_tag_that_lies_never_gives_other_pixels_than_openslide(tmp_path: Path, codec: str):
    write_coded(tmp_path / "a.tif", tissue(256, 256), codec=codec, tag={"ycbcr": 2, "rgb": 6}[codec])
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he")
    theirs = OpenSlideSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    np.testing.assert_array_equal(slide.decode(0, 30, 20, 99, 77), theirs.decode(0, 30, 20, 99, 77))


def test_pixels_that_differ_from_openslides_leave_the_slide_to_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_coded(tmp_path / "a.tif", tissue(256, 256))
    as_it_is = TileGrid.decode

    def one_px_off(grid: TileGrid, data: bytes, out: np.ndarray) -> None:
        as_it_is(grid, data, out)
        if grid.size == (64, 64):
            out[63, 63, 2] ^= 1

    monkeypatch.setattr(TileGrid, "decode", one_px_off)
    found = check_slide(tmp_path / "a.tif", slide_id="c1-he", mpp=None, spec=SlidesSpec(min_tissue_mm2=0.0))
    assert found.reader == "openslide"
    assert found.not_direct == "level 2: its tiles decode to other colours than openslide's, by up to 1 of 255"


def test_what_a_check_found_is_not_compared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_coded(tmp_path / "a.tif", tissue(128, 128))
    monkeypatch.setattr(OpenSlideSlide, "decode", lambda *_: pytest.fail("compared"))
    assert open_slide(tmp_path / "a.tif", slide_id="c1-he", reader="direct").reader == "direct"


def test_other_kinds_of_tiles_are_left_to_openslide_with_the_reason(tmp_path: Path):
    write_pyramid(tmp_path / "deflate.tif", tissue(128, 128), mpp=0.5)
    write_coded(tmp_path / "left_out.svs", tissue(256, 256), aperio=True, missing=[5])
    for name, reason in (("deflate.tif", "level 0 is neither JPEG nor JPEG 2000"), ("left_out.svs", "left out")):
        slide = open_slide(tmp_path / name, slide_id="c1-he")
        assert slide.reader == "openslide"
        assert reason in slide.not_direct
    asked = open_slide(tmp_path / "deflate.tif", slide_id="c1-he", spec=SlidesSpec(readers=("openslide",)))
    assert asked.not_direct == "not among the readers to try"


def test_tiles_that_a_plain_tiff_leaves_out_are_white(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(256, 256), missing=[5])
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he")
    theirs = OpenSlideSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    assert slide.reader == "direct"
    assert slide.decode(0, 64, 64, 64, 64).min() == 255
    np.testing.assert_array_equal(slide.decode(0, 40, 40, 100, 100), theirs.decode(0, 40, 40, 100, 100))


def test_reads_along_a_grid_decode_every_source_tile_once_and_keep_one_row_of_them(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(640, 1280), n_levels=1)
    slide, most = DirectSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None), 0
    for y in range(0, 600, 150):
        for x in range(0, 1200, 150):
            slide.decode(0, x, y, 150, 150)
            most = max(most, slide.tiles.nbytes)
    columns, rows = 1200 // 64 + 1, 600 // 64 + 1
    assert slide.tiles.decoded == columns * rows
    assert most <= (columns + 4 + rows) * 64 * 64 * 3  # a row, one tile's own, and what no tile needed at the right


def test_reads_that_overlap_soon_decode_no_tile_twice(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(128, 1280), n_levels=1)
    slide = DirectSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    for x in range(0, 1280 - 160, 96):
        slide.decode(0, x, 0, 160, 128)
    assert slide.tiles.decoded <= 2 * 20 + 2  # those of the first overlap


@pytest.mark.parametrize("shape", [(64, 64, 3), (7, 5, 3), (2048, 2048, 3)])
def test_arrays_for_tiles_are_apart_and_lie_between_multiples_of_32_bytes(shape: tuple[int, int, int]):
    cache = TileCache(max_bytes=1 << 30, max_spent_bytes=0)
    tiles = [
        cache.take((0, n), shape=shape, px=0, of=1, decode=lambda key, out: out.fill(key[1])).tile for n in range(3)
    ]
    assert [int(tile.max()) for tile in tiles] == [int(tile.min()) for tile in tiles] == [0, 1, 2]
    assert all(tile.ctypes.data % 32 == 16 and tile.flags.c_contiguous for tile in tiles)


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(direct, "CACHE_MB", 0)
    monkeypatch.setattr(direct, "SPENT_MB", 0)
    write_coded(tmp_path / "a.tif", tissue(128, 128), n_levels=1)
    slide = DirectSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    expected = slide.decode(0, 0, 0, 128, 128)
    np.testing.assert_array_equal(slide.decode(0, 32, 32, 64, 64), expected[32:96, 32:96])
    assert (slide.tiles.nbytes, slide.tiles.decoded) == (0, 8)


def test_threads_share_tiles_and_see_the_same_pixels(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(512, 512), n_levels=1)
    expected = OpenSlideSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None).decode(0, 0, 0, 512, 512)
    slide = DirectSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    places = [(x, y) for y in range(5, 430, 70) for x in range(5, 430, 70)]
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda at: slide.decode(0, *at, 70, 70), places)
        for (x, y), pixels in zip(places, read, strict=True):
            np.testing.assert_array_equal(pixels, expected[y : y + 70, x : x + 70])
    assert slide.tiles.decoded == 8 * 8


def test_two_threads_that_want_one_tile_decode_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_coded(tmp_path / "a.tif", tissue(64, 64), n_levels=1)
    slide = DirectSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    as_it_is, other_waits = TileGrid.decode, threading.Event()

    def slowly(grid: TileGrid, data: bytes, out: np.ndarray) -> None:
        other_waits.wait(10)
        as_it_is(grid, data, out)

    monkeypatch.setattr(TileGrid, "decode", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(slide.decode, 0, x, 0, 32, 64) for x in (0, 32))
        threading.Timer(0.2, other_waits.set).start()
        assert first.result().shape == second.result().shape
    assert slide.tiles.decoded == 1


DAMAGE = {
    "zeros": lambda data: bytes(len(data)),
    "cut short": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "ends early": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2 - 2) + b"\xff\xd9",
    "a marker inside": lambda data: data[: len(data) // 2] + b"\xff\xd9" + data[len(data) // 2 + 2 :],
    "another size": lambda data: data.replace(b"\x08\x00\x40\x00\x40\x03", b"\x08\xff\xdc\xff\xdc\x03"),
}


@pytest.mark.parametrize("reader", ["direct", "openslide"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_tile_spoils_only_the_reads_that_need_it(tmp_path: Path, kind: str, reader: str):
    path = tmp_path / "DOE.tif"
    write_coded(path, tissue(256, 256), n_levels=1)
    expected = open_slide(path, slide_id="c1-he").decode(0, 0, 0, 256, 256)
    start, count = tile_bytes(path, 5)
    data = path.read_bytes()
    damaged = DAMAGE[kind](data[start : start + count])
    assert len(damaged) == count
    assert damaged != data[start : start + count]
    path.write_bytes(data[:start] + damaged + data[start + count :])
    slide = open_slide(path, slide_id="c1-he", reader=reader)
    for _ in range(2):
        with pytest.raises(
            SlideError, match=r"slide c1-he: (a tile of level 0 is damaged|some pixels do not)"
        ) as caught:
            slide.decode(0, 60, 60, 100, 100)
        assert "DOE" not in str(caught.value)
        np.testing.assert_array_equal(slide.decode(0, 128, 0, 128, 256), expected[:, 128:])


def test_bytes_beyond_the_end_of_the_file_are_a_damaged_tile(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(128, 128), n_levels=1)
    slide = DirectSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    slide.grids[0].offsets[1] = 1 << 40
    slide.grids[0].counts[2] = 1 << 40
    slide.grids[0].offsets[3] = -1
    for x, y in ((64, 0), (0, 64), (64, 64)):
        with pytest.raises(SlideError, match="a tile of level 0 cannot be read"):
            slide.decode(0, x, y, 9, 9)
    assert slide.decode(0, 0, 0, 64, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("codec", ["ycbcr", "rgb"])
def test_source_tiles_are_the_scanners_bytes(tmp_path: Path, codec: str):
    path = tmp_path / "a.tif"
    write_coded(path, tissue(128, 192), codec=codec, n_levels=1, missing=[1])
    slide = open_slide(path, slide_id="c1-he")
    grid = slide.grids[0]
    assert (grid.columns, grid.rows, grid.tile, grid.codec, grid.color) == (3, 2, (64, 64), "jpeg", codec)
    start, count = tile_bytes(path, 4)
    assert slide.source_tile(0, 4) == path.read_bytes()[start : start + count]
    assert slide.source_tile(0, 1) == b""


def test_a_source_tile_with_its_shared_tables_is_a_whole_jpeg(tmp_path: Path):
    write_coded(tmp_path / "a.svs", tissue(256, 256), aperio=True, shared_tables=True)
    slide = open_slide(tmp_path / "a.svs", slide_id="c1-he")
    data = slide.source_tile(0, 5)
    assert b"\xff\xdb" not in data[:100]
    tile = np.asarray(Image.open(io.BytesIO(slide.grids[0].standalone(data))).convert("RGB"))
    np.testing.assert_array_equal(tile, slide.decode(0, 64, 64, 64, 64))


def test_a_read_fills_the_array_that_is_given(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(256, 256))
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he")
    for box, mpp, size in ((Box(9, 9, 64, 64), 0.5, (64, 64)), (Box(-9, 9, 90, 60), 0.75, (60, 40))):
        out = np.zeros((size[1], size[0], 3), np.uint8)
        assert slide.read(box, mpp=mpp, size=size, out=out) is out
        np.testing.assert_array_equal(out, slide.read(box, mpp=mpp, size=size))
    with pytest.raises(ValueError, match="an array of shape"):
        slide.read(Box(0, 0, 9, 9), mpp=0.5, size=(9, 9), out=out)


def test_a_closed_slide_holds_no_file(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(128, 128))
    slide = open_slide(tmp_path / "a.tif", slide_id="c1-he")
    slide.close()
    with pytest.raises(AssertionError, match="closed"):
        slide.decode(0, 0, 0, 9, 9)


def test_a_level_that_is_two_pages_is_not_guessed(tmp_path: Path):
    write_coded(tmp_path / "a.tif", tissue(128, 128), n_levels=1)
    slide = DirectSlide(tmp_path / "a.tif", slide_id="c1-he", mpp=None)
    with pytest.raises(NotDirect, match="level 0 is 0 tiled pages of the file, not one"):
        direct.read_grids(tmp_path / "a.tif", [(127, 128)])
    slide.close()


def test_a_jpeg_2000_tile_that_claims_another_size_is_never_decoded(tmp_path: Path):
    path = tmp_path / "a.svs"
    write_coded(path, tissue(128, 128), codec="jpeg2000", aperio=True, n_levels=1)
    start, _ = tile_bytes(path, 0)
    data = bytearray(path.read_bytes())
    data[start + 8 : start + 16] = b"\x00\x01\x00\x00" * 2  # 65,536 px wide and high
    path.write_bytes(data)
    slide = DirectSlide(path, slide_id="c1-he", mpp=None)
    with pytest.raises(SlideError, match="no JPEG 2000 stream of the tile's size"):
        slide.decode(0, 0, 0, 9, 9)
    assert slide.decode(0, 64, 64, 9, 9).shape == (9, 9, 3)
