import base64
import json

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import zstd
from small_stores import tissue

from hepipe.stores.codecs import (
    DamagedChunk,
    Greendelta,
    Jpeg,
    Jxl,
    Passthrough,
    Raw,
    Zstd,
    codec_of,
    jpeg_size,
    named_codec,
)

LOSSLESS = [Greendelta(), Greendelta(9), Jxl(), Jxl(3), Zstd(), Raw()]
TILE = tissue(1, 64)[0]


def decoded(codec, data, shape=(64, 64, 3)):
    out = np.full(shape, 7, np.uint8)
    codec.decode(data, out)
    return out


def jpegs(tile, px=16, **how):
    return [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(tile[y : y + px, x : x + px]), level=80, **how)
        for y in range(0, tile.shape[0], px)
        for x in range(0, tile.shape[1], px)
    ]


def whole(parts, shape=(64, 64), px=16, **how):
    out = np.empty((*shape, 3), np.uint8)
    for place, part in enumerate(parts):
        y, x = divmod(place, shape[1] // px)
        out[y * px : (y + 1) * px, x * px : (x + 1) * px] = imagecodecs.jpeg8_decode(part, **how)
    return out


@pytest.mark.parametrize("codec", LOSSLESS, ids=str)
@pytest.mark.parametrize("side", [1, 15, 16, 33, 64])
def test_every_pixel_comes_back(codec, side):
    rng = np.random.default_rng(side)
    for tile in (tissue(1, side)[0], rng.integers(0, 256, (side, side, 3), dtype=np.uint8), np.zeros((side, side, 3))):
        tile = tile.astype(np.uint8)
        np.testing.assert_array_equal(decoded(codec, codec.encode(tile), tile.shape), tile)


@pytest.mark.parametrize("codec", LOSSLESS, ids=str)
def test_a_tile_that_is_a_view_is_encoded_as_its_copy(codec):
    view = tissue(1, 80)[0][8:72, 8:72]
    assert codec.encode(view) == codec.encode(view.copy())


def test_greendelta_is_smaller_than_zstd_of_pixels():
    assert len(Greendelta().encode(TILE)) < 0.8 * len(Zstd().encode(TILE))


@pytest.mark.parametrize("codec", [*LOSSLESS, Jpeg(80, "444")], ids=str)
def test_a_part_of_a_tile_is_that_part_of_the_whole(codec):
    data = codec.encode(TILE)
    out = np.empty((20, 31, 3), np.uint8)
    codec.decode_crop(data, TILE.shape, top=17, left=5, out=out)
    np.testing.assert_array_equal(out, decoded(codec, data)[17:37, 5:36])


def test_greendelta_is_exact_where_its_sums_pass_32_bits():
    # The largest difference at every px: 255 * 3000 * 3000 is over 2**31.
    codec, side = Greendelta(), 3000
    planes = np.full((3, side, side), 255, np.uint8)
    row = np.cumsum(planes[0, 0], dtype=np.uint8)
    out = np.empty((side, side, 3), np.uint8)
    codec.decode(zstd.compress(planes, 1), out)
    np.testing.assert_array_equal(out[0, :, 1], row)
    np.testing.assert_array_equal(out[-1, :, 1], (row.astype(int) * side % 256).astype(np.uint8))


def test_jpeg_is_near_and_says_that_it_is_lossy():
    codec = Jpeg(95, "444")
    assert not codec.lossless
    assert np.abs(decoded(codec, codec.encode(TILE)).astype(int) - TILE).mean() < 3


@pytest.mark.parametrize("codec", [*LOSSLESS, Jpeg(71, "422"), Passthrough((16, 16), "AAAA", "RGB")], ids=str)
def test_a_codec_is_found_again_by_its_metadata(codec):
    assert codec_of(json.loads(json.dumps(codec.chain()))) == codec


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"codec": "webp"},
        {"codec": "greendelta", "level": 99},
        {"codec": "greendelta", "level": True},
        {"codec": "greendelta", "more": 1},
        {"codec": "jpeg", "quality": 90, "subsampling": "411"},
        {"codec": "passthrough", "tile_px": [0, 16]},
        {"codec": "passthrough", "tile_px": [16, 16], "tables": "?"},
        {"codec": "passthrough", "tile_px": [16, 16], "tables": "A" * 200_000},
        {"codec": "passthrough", "tile_px": [16, 16], "colorspace": "CMYK"},
    ],
    ids=str,
)
def test_settings_that_no_codec_takes_are_refused(settings):
    with pytest.raises(ValueError, match=r"."):
        named_codec(settings)


@pytest.mark.parametrize("chain", [None, [], ["bytes"], [{"name": "gzip"}], [{"name": "bytes"}, {"name": "blosc"}]])
def test_a_chain_that_is_not_ours_is_refused(chain):
    with pytest.raises(ValueError, match="codecs"):
        codec_of(chain)


@pytest.mark.parametrize("codec", [*LOSSLESS, Jpeg(80, "444")], ids=str)
def test_a_tile_of_another_size_is_refused(codec):
    data = codec.encode(TILE)
    for shape in ((32, 64, 3), (64, 63, 3), (128, 128, 3)):
        with pytest.raises(DamagedChunk):
            decoded(codec, data, shape)


@pytest.mark.parametrize(
    ("codec", "bomb"),
    [
        (Greendelta(), lambda big: zstd.compress(big, 1)),
        (Zstd(), lambda big: zstd.compress(big, 1)),
        (Jpeg(), lambda big: imagecodecs.jpeg8_encode(big, level=50)),
        (Jxl(), lambda big: imagecodecs.jpegxl_encode(big, lossless=True, effort=1)),
    ],
    ids=["greendelta", "zstd", "jpeg", "jxl"],
)
def test_small_bytes_of_a_huge_picture_are_refused(codec, bomb):
    with pytest.raises(DamagedChunk):
        decoded(codec, bomb(np.zeros((2048, 2048, 3), np.uint8)))


def test_a_zstd_frame_that_states_no_size_is_refused():
    # The magic number, a descriptor without content size, a window, an empty last block.
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, 0x50, 1, 0, 0]) + bytes(20)
    for codec in (Greendelta(), Zstd()):
        with pytest.raises(DamagedChunk, match="frame of -1 bytes"):
            decoded(codec, frame)


def test_a_progressive_jpeg_is_refused_before_it_is_decoded():
    data = bytearray(Jpeg().encode(TILE))
    assert jpeg_size(bytes(data)) == (64, 64, 3)
    data[data.index(b"\xff\xc0") + 1] = 0xC2
    with pytest.raises(DamagedChunk, match="sequential"):
        decoded(Jpeg(), bytes(data))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_bytes_end_in_an_error_or_in_pixels(data):
    codec = data.draw(st.sampled_from([Greendelta(), Jxl(), Zstd(), Raw(), Jpeg(), Passthrough((16, 16))]))
    if isinstance(codec, Passthrough):
        good = bytearray(codec.pack(jpegs(TILE), shape=(64, 64)))
    else:
        good = bytearray(codec.encode(TILE))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for chunk in (bytes(good), bytes(good[:cut])):
        out = np.empty((64, 64, 3), np.uint8)
        try:
            codec.decode(chunk, out)
        except DamagedChunk as error:
            assert str(error)  # noqa: PT017


def test_the_scanner_s_jpegs_give_the_pixels_that_they_give_alone():
    parts = jpegs(TILE, subsampling="422")
    codec = Passthrough((16, 16))
    chunk = codec.pack(parts, shape=(64, 64))
    np.testing.assert_array_equal(decoded(codec, chunk), whole(parts))
    assert len(chunk) == 4 * (2 + 16) + sum(map(len, parts))


def test_jpegs_that_hold_rgb_are_not_taken_for_ycbcr():
    # As scanners write them: nothing in the JPEG says what its three channels are.
    parts = [part.replace(b"JFIF", b"none") for part in jpegs(TILE, colorspace="YCBCR", outcolorspace="YCBCR")]
    codec = Passthrough((16, 16), colorspace="RGB")
    assert np.abs(decoded(codec, codec.pack(parts, shape=(64, 64))).astype(int) - TILE).mean() < 5
    assert np.abs(decoded(Passthrough((16, 16)), codec.pack(parts, shape=(64, 64))).astype(int) - TILE).mean() > 20


def test_shared_tables_stand_once_in_the_metadata():
    parts = jpegs(TILE)
    tables, short = zip(*(abbreviated(part) for part in parts), strict=True)
    assert len(set(tables)) == 1
    codec = Passthrough((16, 16), base64.b64encode(tables[0]).decode())
    chunk = codec.pack(list(short), shape=(64, 64))
    np.testing.assert_array_equal(decoded(codec, chunk), whole(parts))
    assert len(chunk) < sum(map(len, parts))


def abbreviated(jpeg):
    """Tables and the rest of a JPEG, as TIFF divides them."""
    tables, rest, place = b"", b"", 2
    while jpeg[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if jpeg[place + 1] in (0xDB, 0xC4):
            tables += jpeg[place:end]
        else:
            rest += jpeg[place:end]
        place = end
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + jpeg[place:]


def test_what_the_slide_has_not_is_white():
    parts = jpegs(TILE)
    parts[5] = b""
    codec = Passthrough((16, 16))
    found = decoded(codec, codec.pack(parts, shape=(64, 64), inside=(64, 40)))
    assert (found[16:32, 16:32] == 255).all()
    assert (found[:, 40:] == 255).all()
    np.testing.assert_array_equal(found[:16, :40], whole(parts[:4], (16, 64))[:, :40])


@pytest.mark.parametrize("harm", ["short", "long", "lengths", "outside", "size"])
def test_a_container_that_contradicts_itself_is_refused(harm):
    codec = Passthrough((16, 16))
    parts = jpegs(TILE)
    chunk = codec.pack(parts, shape=(64, 64))
    numbers = np.frombuffer(chunk[:72], "<u4").copy()
    if harm == "short":
        chunk = chunk[:70]
    elif harm == "long":
        chunk += b"\0"
    elif harm == "lengths":
        numbers[2] = 2**32 - 1
    elif harm == "outside":
        numbers[0] = 65
    else:
        other = imagecodecs.jpeg8_encode(np.zeros((32, 16, 3), np.uint8))
        chunk = codec.pack([other, *parts[1:]], shape=(64, 64))
    if harm in ("lengths", "outside"):
        chunk = numbers.tobytes() + chunk[72:]
    with pytest.raises(DamagedChunk):
        decoded(codec, chunk)
