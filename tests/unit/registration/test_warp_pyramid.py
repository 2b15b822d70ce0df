"""The file that a warped slide becomes, as openslide, tiffslide and tifffile see it."""

import itertools
import signal
import subprocess
import sys

import cv2
import numpy as np
import openslide
import pytest
import tifffile
import tiffslide

from hepipe.errors import SlideError
from hepipe.geometry import Transform, identity, scaling, translation
from hepipe.registration import warped_pyramid
from hepipe.registration.warped_pyramid import warp_slide
from hepipe.slides import writer as writing
from hepipe.slides.picture import ArraySlide
from hepipe.slides.writer import PyramidForm, PyramidWriter, encode_tile, level_sizes

WIDTH, HEIGHT, MPP = 1407, 1111, 0.25


@pytest.fixture(scope="module")
def picture():
    """Smooth colours, a white corner, sizes that are no multiple of anything."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4).astype(float)
    tinted = np.clip((smooth - 127) * 5 + [190, 140, 180], 0, 250).astype(np.uint8)
    tinted[:600, :700] = 255
    return tinted


@pytest.fixture(scope="module")
def write(picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("warped")
    names = itertools.count()

    def made(*, transform=None, size=(WIDTH, HEIGHT), mpp=MPP, form=None, icc=None, **options):
        path = folder / f"{next(names)}.tif"
        warped = warp_slide(
            ArraySlide(picture, mpp=MPP, slide_id="case-ihc", icc=icc),
            transform or identity(fixed_mpp=MPP, moving_mpp=MPP),
            path,
            fixed_size_px0=size,
            mpp=mpp,
            form=form or PyramidForm(compression="deflate"),
            **options,
        )
        return path, warped

    return made


def area_mean(picture, level):
    step = 2**level
    height, width = picture.shape[0] // step, picture.shape[1] // step
    whole = picture[: height * step, : width * step].astype(float)
    return whole.reshape(height, step, width, step, 3).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def lossless(write):
    return write()[0]


@pytest.mark.parametrize("reader", [openslide.OpenSlide, tiffslide.TiffSlide])
def test_every_level_opens_with_its_size_mpp_and_the_area_mean_of_level_0(lossless, picture, reader):
    name = reader.__module__.split(".")[0]
    with reader(lossless) as slide:
        assert slide.level_count == 4
        assert slide.level_dimensions == ((1407, 1111), (703, 555), (351, 277), (175, 138))
        assert float(slide.properties[f"{name}.mpp-x"]) == pytest.approx(MPP, rel=1e-6)
        assert float(slide.properties[f"{name}.mpp-y"]) == pytest.approx(MPP, rel=1e-6)
        for level, size in enumerate(slide.level_dimensions):
            found = np.asarray(slide.read_region((0, 0), level, size))[..., :3]
            # Half a grey level: rounded once, whatever the level.
            assert np.abs(found - area_mean(picture, level)).max() <= 0.5


def test_pages_are_reduced_resolutions_with_their_own_tags(lossless):
    with tifffile.TiffFile(lossless) as file:
        assert [page.subfiletype for page in file.pages] == [0, 1, 1, 1]
        assert [page.tags["ResolutionUnit"].value for page in file.pages] == [3] * 4
        per_cm = [np.divide(*page.tags["XResolution"].value) for page in file.pages]
        np.testing.assert_allclose(per_cm, [40_000, 20_000, 10_000, 5_000])
        assert not file.is_bigtiff
        assert {"DateTime", "Software", "ImageDescription"}.isdisjoint(file.pages.first.tags.keys())


def test_ome_holds_its_levels_in_sub_ifds_and_its_pixel_size_in_the_description(write, picture):
    path, _ = write(form=PyramidForm(layout="ome", compression="deflate"))
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert len(file.pages) == 1
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(1111, 1407, 3), (555, 703, 3), (277, 351, 3), (138, 175, 3)]
        assert all(np.abs(one.asarray() - area_mean(picture, level)).max() <= 0.5 for level, one in enumerate(levels))
        assert 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"' in file.ome_metadata
    with tiffslide.TiffSlide(path) as slide:
        assert slide.level_count == 4
    # As the help says: openslide knows no sub-IFDs.
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 1


def test_jpeg_is_close_to_lossless_in_colour_and_in_place(write, picture):
    path, _ = write(form=PyramidForm(quality=90))
    with openslide.OpenSlide(path) as slide:
        for level, size in enumerate(slide.level_dimensions):
            found = np.asarray(slide.read_region((0, 0), level, size))[..., :3].astype(float)
            difference = found - area_mean(picture, level)
            # The smaller the level, the more is the picture noise from px to px, which JPEG is made to drop.
            assert np.abs(difference).mean() < 1.5 + level
            assert np.abs(difference.mean(axis=(0, 1))).max() < 0.1
    with tifffile.TiffFile(path) as file:
        # Two decoders see the same: the tags agree with the streams.
        decoded = file.pages.first.asarray().astype(int)
    with openslide.OpenSlide(path) as slide:
        other = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    assert np.abs(decoded - other).max() <= 3


def test_the_same_bytes_for_any_number_of_threads(write):
    turned = Transform(translation(300.0, -40.0) @ np.array([[0.9, 0.2, 0], [-0.2, 0.9, 90], [0, 0, 1]]), MPP, MPP)
    files = {write(transform=turned, form=PyramidForm(), workers=n)[0].read_bytes() for n in (1, 3)}
    assert len(files) == 1


def test_another_resolution_keeps_the_corner_and_covers_the_frame(write, picture):
    path, warped = write(mpp=1.0)
    assert warped.size == (352, 278)
    with tifffile.TiffFile(path) as file:
        found = file.pages.first.asarray()
    assert np.abs(found[:277, :351] - area_mean(picture, 2)).max() <= 1


def test_frame_and_shown_share_follow_the_transform(write, picture):
    moved = Transform(translation(-500.0, 200.0), MPP, MPP)
    path, warped = write(transform=moved, size=(600, 520))
    with tifffile.TiffFile(path) as file:
        found = file.pages.first.asarray()
    np.testing.assert_array_equal(found[:, 500:], picture[200:720, :100])
    assert (found[:, :500] == 255).all()
    assert warped.shown_frac == pytest.approx(1 / 6)
    assert warped.size == (600, 520)


def test_white_tiles_share_their_bytes(write):
    nothing = Transform(translation(1e5, 0.0), MPP, MPP)
    path, warped = write(transform=nothing, size=(5000, 5000))
    assert warped.shown_frac == 0
    with tifffile.TiffFile(path) as file:
        offsets = {offset for page in file.pages for offset in page.dataoffsets}
        assert sum(len(page.dataoffsets) for page in file.pages) > 500
        assert len(offsets) == 1
        assert (file.pages.first.asarray() == 255).all()
    assert path.stat().st_size < 30_000


def test_the_colour_profile_of_the_slide_goes_along_and_an_unknown_pixel_size_is_not_made_up(write):
    path, _ = write(icc=b"profile", has_mpp=False)
    with tifffile.TiffFile(path) as file:
        assert all(bytes(page.tags["InterColorProfile"].value) == b"profile" for page in file.pages)
        assert file.pages.first.tags["ResolutionUnit"].value == 1
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 4
        assert "openslide.mpp-x" not in slide.properties


@pytest.mark.parametrize("size", [(1, 1), (1, 600), (257, 255), (1025, 3), (2049, 1023)])
def test_sizes_of_every_kind_have_all_their_tiles(write, picture, size):
    path, warped = write(size=size)
    with tifffile.TiffFile(path) as file:
        shapes = [page.shape[:2][::-1] for page in file.pages]
        assert shapes == level_sizes(size)
        assert warped.levels == len(shapes)
        seen = np.full((size[1], size[0], 3), 255, np.uint8)
        part = picture[: size[1], : size[0]]
        seen[: part.shape[0], : part.shape[1]] = part
        for level, page in enumerate(file.pages):
            assert np.abs(page.asarray() - area_mean(seen, level)).max() <= 0.5


def test_a_file_too_large_for_a_classic_tiff_becomes_a_big_one(write, picture, monkeypatch):
    monkeypatch.setattr(writing, "CLASSIC_LIMIT", 100_000)
    for form in (PyramidForm(compression="deflate"), PyramidForm("ome", "deflate")):
        path, _ = write(form=form)
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff
            assert [level.shape[0] for level in file.series[0].levels] == [1111, 555, 277, 138]
            np.testing.assert_array_equal(file.pages.first.asarray(), picture)
        with openslide.OpenSlide(path) as slide:
            assert slide.level_count == (4 if form.layout == "pyramid" else 1)


def test_tiles_may_come_in_any_order_and_a_missing_one_is_no_file(tmp_path):
    form = PyramidForm(compression="deflate")
    tile = np.random.default_rng(2).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    with writing.whole_file(tmp_path / "a.tif") as file, PyramidWriter(file, (512, 300), mpp=0.5, form=form) as writer:
        writer.put(1, 0, 0, None)
        for column, row in ((1, 1), (0, 0), (1, 0), (0, 1)):
            writer.put(0, column, row, encode_tile(tile if (column, row) == (1, 0) else 255 - tile, form))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif")[:256, 256:], tile)

    def forget():
        with (
            writing.whole_file(tmp_path / "b.tif") as file,
            PyramidWriter(file, (512, 300), mpp=0.5, form=form) as writer,
        ):
            writer.put(0, 0, 0, None)

    with pytest.raises(ValueError, match="4 tiles were never put"):
        forget()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


WRITER = """
import sys
from pathlib import Path
from hepipe.slides.writer import whole_file

with whole_file(Path(sys.argv[1])) as file:
    file.write(b"from another process")
    file.flush()
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def begun(tmp_path):
    """Start another process that is in the midst of `o.tif`, with the file that it writes beside it."""
    processes = []

    def start():
        before = set(tmp_path.iterdir())
        command = [sys.executable, "-c", WRITER, str(tmp_path / "o.tif")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "begun\n"
        (beside,) = set(tmp_path.iterdir()) - before
        return process, beside

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_what_a_killed_writer_left_goes_with_the_next_one_to_the_same_file(tmp_path, picture, begun):
    process, leftover = begun()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert leftover.read_bytes() == b"from another process"
    others = [tmp_path / name for name in (f"{leftover.name}.txt", leftover.name.replace("o.tif", "p.tif"), ".o.tif.7")]
    for other in others:
        other.write_bytes(b"of somebody else")
    warp_slide(
        ArraySlide(picture[:300, :300], mpp=MPP, slide_id="case-ihc"),
        identity(fixed_mpp=MPP, moving_mpp=MPP),
        tmp_path / "o.tif",
        fixed_size_px0=(300, 300),
        mpp=MPP,
        form=PyramidForm(compression="deflate"),
    )
    assert set(tmp_path.iterdir()) == {tmp_path / "o.tif", *others}


def test_what_a_living_writer_writes_stays_and_takes_its_place(tmp_path, begun):
    process, beside = begun()
    out = tmp_path / "o.tif"
    with writing.whole_file(out) as file:
        file.write(b"from here")
        with writing.whole_file(out) as second:
            second.write(b"within")
        assert out.read_bytes() == b"within"
    assert out.read_bytes() == b"from here"
    assert beside.exists()
    process.communicate()
    assert process.returncode == 0
    assert out.read_bytes() == b"from another process"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_taken_for_a_leftover_before_its_lock_is_begun_again(tmp_path, monkeypatch):
    real, taken = writing.fcntl.flock, []

    def slow(descriptor, operation):
        if not taken:
            (beside,) = tmp_path.iterdir()
            taken.append(beside)
            beside.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(writing.fcntl, "flock", slow)
    with writing.whole_file(tmp_path / "o.tif") as file:
        file.write(b"whole")
    assert taken
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_slide_that_stops_decoding_leaves_no_file_and_the_old_one(tmp_path, picture):
    class Broken(ArraySlide):
        def decode(self, level, x, y, width, height):
            if y > 900:
                raise SlideError(self.slide_id, "some pixels do not decode; the file is damaged or cut short")
            return super().decode(level, x, y, width, height)

    out = tmp_path / "o.tif"
    out.write_bytes(b"old")
    with pytest.raises(SlideError, match="do not decode"):
        warp_slide(
            Broken(picture, mpp=MPP, slide_id="case-ihc"),
            identity(fixed_mpp=MPP, moving_mpp=MPP),
            out,
            fixed_size_px0=(WIDTH, HEIGHT),
            mpp=MPP,
            form=PyramidForm(),
            workers=2,
        )
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


@pytest.mark.parametrize("grid", [(1, 1), (5, 3), (2, 9), (8, 8)])
def test_the_order_of_blocks_visits_each_once_and_keeps_few_tiles_under_way(grid):
    places = list(warped_pyramid._z_order(*grid))
    assert sorted(places) == sorted(itertools.product(range(grid[0]), range(grid[1])))
    for start in range(0, len(places) - 3, 4):
        if grid == (8, 8):
            assert len({(column // 2, row // 2) for column, row in places[start : start + 4]}) == 1


def test_a_huge_frame_holds_only_a_few_tiles_of_each_level(tmp_path, monkeypatch):
    most = []
    add = warped_pyramid._UpperLevels.add

    def watched(self, *arguments):
        add(self, *arguments)
        most.append(len(self._waiting))

    monkeypatch.setattr(warped_pyramid._UpperLevels, "add", watched)
    dot = np.zeros((64, 64, 3), np.uint8)
    warp_slide(
        ArraySlide(dot, mpp=MPP, slide_id="case-ihc"),
        Transform(scaling(1.0), MPP, MPP, np.zeros((2, 1, 1), np.float32), 16.0),
        tmp_path / "o.tif",
        fixed_size_px0=(20_000, 12_000),
        mpp=MPP,
        form=PyramidForm(),
    )
    assert max(most) <= len(level_sizes((20_000, 12_000))) - warped_pyramid.BLOCK_LEVELS
    with openslide.OpenSlide(tmp_path / "o.tif") as slide:
        assert slide.level_dimensions[-1] == (156, 93)
        # 64 x 64 black px, seen from the level 128 times smaller; a JPEG spreads them a little.
        assert slide.read_region((0, 0), 7, (1, 1)).getpixel((0, 0))[0] == pytest.approx(255 * (1 - 1 / 4), abs=30)
