import numpy as np
import pytest
import tifffile

from hepipe.geometry import Box
from hepipe.slides.direct import DirectSlide
from hepipe.slides.picture import ArraySlide
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.provenance import Provenance
from hepipe.stores.shards import sealed
from hepipe.stores.tiles import TileStore, TileWriter
from hepipe.tiling.passing import pass_through

SIDE, JPEG = 256, 64
MPP = 0.25


@pytest.fixture
def slide(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(0, 4, (700, 600, 3)), axis=1).clip(-90, 90) + 150
    file = tmp_path / "slide.tif"
    per_cm = (10_000 / MPP, 10_000 / MPP)
    with tifffile.TiffWriter(file) as tiff:
        for down in (1, 2):
            tiff.write(
                smooth.astype(np.uint8)[::down, ::down],
                tile=(JPEG, JPEG),
                photometric="ycbcr",
                compression="jpeg",
                resolution=tuple(value / down for value in per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(down > 1),
            )
    opened = DirectSlide(file, slide_id="c-he", mpp=None)
    yield opened
    opened.close()


@pytest.mark.parametrize("mpp", [MPP, 2 * MPP])
def test_a_store_of_the_scanners_bytes_shows_the_slides_pixels(slide, tmp_path, mpp):
    side_px0 = SIDE * mpp / MPP
    boxes = [Box(x * side_px0, y * side_px0, side_px0, side_px0) for y in range(2) for x in range(2)]
    passed = pass_through(slide, boxes, mpp=mpp, tile_px=SIDE)
    provenance = Provenance(artefact="tiles", subject="c", spec={})
    with TileWriter(
        tmp_path / "c.zarr",
        provenance,
        mpp=mpp,
        tile_px=SIDE,
        arrays={"he": 3},
        spec=StoreSpec(codec="passthrough"),
        passthrough={"he": passed.codec},
    ) as writer:
        for box in boxes:
            writer.append({}, {"he": sealed(passed.chunk(box))})
        writer.finish()
    store = TileStore(tmp_path / "c.zarr")
    for row, box in enumerate(boxes):
        np.testing.assert_array_equal(store.read("he", row), slide.read(box, mpp=mpp, size=(SIDE, SIDE)))
    first = slide.source_tile(passed.level, 0)
    assert first in store.chunk("he", 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mpp": 0.3}, "no level has 0.3 µm per px; there are 0.25, 0.5"),
        ({"tile_px": 200}, "tiles of 200 px are not whole JPEGs of 64 x 64 px"),
        ({"x": 3.0}, "the grid does not fall on the JPEGs of 64 x 64 px"),
        ({"x": -64.0}, "the grid does not fall on the JPEGs of 64 x 64 px"),
    ],
)
def test_why_tiles_cannot_be_passed_through_is_said(slide, changes, reason):
    given = {"mpp": MPP, "tile_px": SIDE, "x": 0.0, **changes}
    side = given["tile_px"] * given["mpp"] / MPP
    made = pass_through(slide, [Box(given["x"], 0.0, side, side)], mpp=given["mpp"], tile_px=given["tile_px"])
    assert made == reason


def test_only_tiles_that_are_read_as_they_are_can_be_passed_through():
    picture = ArraySlide(np.full((64, 64, 3), 200, np.uint8), mpp=MPP, slide_id="c-he")
    assert "not tile by tile" in pass_through(picture, [], mpp=MPP, tile_px=64)


def test_a_coarser_level_is_not_passed_through_where_tiles_are_made_of_level_0(slide):
    slide.from_level0 = True
    boxes = [Box(0.0, 0.0, SIDE * 2.0, SIDE * 2.0)]
    assert pass_through(slide, boxes, mpp=2 * MPP, tile_px=SIDE) == "its tiles are to be made of level 0"
    assert not isinstance(pass_through(slide, [Box(0.0, 0.0, SIDE, SIDE)], mpp=MPP, tile_px=SIDE), str)
