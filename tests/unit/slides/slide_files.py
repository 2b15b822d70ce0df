"""Small slide files that the tests write: pyramids, an Aperio-like SVS, a MIRAX slide."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
import tifffile
from PIL import Image


def tissue_picture(height: int = 512, width: int = 512, *, seed: int = 0) -> np.ndarray:
    """White glass with a purple rectangle of noise in the middle."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 245, np.uint8)
    top, left = height // 4, width // 4
    noise = rng.integers(-30, 30, (height // 2, width // 2, 1))
    picture[top : top + height // 2, left : left + width // 2] = np.clip(np.array([170, 90, 160]) + noise, 0, 255)
    return picture


def halves(array: np.ndarray) -> np.ndarray:
    height, width = (side // 2 * 2 for side in array.shape[:2])
    blocks = array[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def write_pyramid(path: Path, array: np.ndarray, *, mpp: float | tuple[float, float] | None, n_levels: int = 3) -> None:
    """A tiled TIFF of lossless levels, as openslide's generic reader takes it."""
    x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    resolution = {} if x is None else {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        for level in range(n_levels):
            writer.write(
                array, tile=(64, 64), photometric="rgb", compression="deflate", metadata=None,
                subfiletype=1 if level else 0, **resolution,
            )  # fmt: skip
            array = halves(array)


def write_svs(path: Path, array: np.ndarray, *, text: str, label: np.ndarray, mpp: float = 0.5) -> None:
    """Aperio's layout: tiled levels, a thumbnail, a label and a macro, text in the descriptions, a date of the scan."""
    first = f"Aperio Image Library v12.0\r\n{array.shape[1]}x{array.shape[0]} (64x64) JPEG/RGB Q=70|AppMag = 20"
    jpeg = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            array, tile=(64, 64), description=f"{first}|MPP = {mpp}|ScanScope ID = SS1|Title = {text}|User = {text}",
            datetime="2019:03:04 05:06:07", **jpeg,
        )  # fmt: skip
        writer.write(halves(halves(array)), rowsperstrip=16, description=first, **jpeg)
        writer.write(
            halves(array), tile=(64, 64), description=f"{first}|MPP = {mpp}|Title = {text}", subfiletype=0, **jpeg
        )
        for name in ("label", "macro"):
            writer.write(label, rowsperstrip=16, description=f"Aperio Image Library\n{name} {text}", **jpeg)


def write_coded(
    path: Path,
    array: np.ndarray,
    *,
    codec: Literal["ycbcr", "rgb", "jpeg2000", "jpeg2000-ycbcr"] = "ycbcr",
    aperio: bool = False,
    tile: int = 64,
    n_levels: int = 3,
    missing: Collection[int] = (),
    tag: int | None = None,
    shared_tables: bool = False,
) -> None:
    """A pyramid whose tiles are coded here, at 0.5 µm per px.

    Args:
        path: To write.
        array: Level 0.
        codec: What a tile is: JPEG of YCbCr or RGB samples, or JPEG 2000 as Aperio writes it.
        aperio: Whether it is an SVS, or a plain TIFF.
        tile: Its side, px.
        n_levels: Each half the one before.
        missing: Tiles of every level that the file leaves out.
        tag: What the photometric tag says in the end.
        shared_tables: Whether JPEG tiles have their tables in a tag, as Aperio writes them.
    """
    compression, photometric = {
        "ycbcr": (7, "ycbcr"), "rgb": (7, "ycbcr"), "jpeg2000": (33005, "rgb"), "jpeg2000-ycbcr": (33003, "rgb"),
    }[codec]  # fmt: skip
    text = f"Aperio Image Library v12.0\r\n{array.shape[1]}x{array.shape[0]} (64x64) JPEG/RGB Q=70|MPP = 0.5"
    with tifffile.TiffWriter(path) as writer:
        for level in range(n_levels):
            tiles = list(_coded_tiles(array, codec, tile, missing))
            shared = []
            if shared_tables:
                shared = [(347, 7, None, b"\xff\xd8" + _parted(tiles[0])[0] + b"\xff\xd9", True)]
                tiles = [_parted(data)[1] for data in tiles]
            writer.write(
                iter(tiles), extratags=shared, shape=array.shape, dtype="uint8", tile=(tile, tile),
                compression=compression, photometric=photometric, metadata=None, description=text if aperio else None,
                subfiletype=0 if aperio or not level else 1, resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
            )  # fmt: skip
            array = halves(array)
    tag = {"rgb": 2}.get(codec) if tag is None else tag
    if tag is not None:
        with tifffile.TiffFile(path, mode="r+b") as file:
            for page in file.pages:
                page.tags["PhotometricInterpretation"].overwrite(tag)


def _coded_tiles(array: np.ndarray, codec: str, side: int, missing: Collection[int]) -> Iterator[bytes]:
    columns = -(-array.shape[1] // side)
    for number in range(columns * -(-array.shape[0] // side)):
        y, x = (side * place for place in divmod(number, columns))
        part = array[y : y + side, x : x + side]
        full = np.pad(part, ((0, side - part.shape[0]), (0, side - part.shape[1]), (0, 0)), mode="edge")
        if number in missing:
            yield b""
        elif codec.startswith("jpeg2000"):
            yield imagecodecs.jpeg2k_encode(full, level=0, codecformat="j2k", mct=codec == "jpeg2000")
        else:
            subsampling = {"subsampling": "420"} if codec == "ycbcr" else {}
            yield imagecodecs.jpeg8_encode(full, level=85, colorspace="rgb", outcolorspace=codec, **subsampling)


def _parted(data: bytes) -> tuple[bytes, bytes]:
    """The tables of a JPEG, and the picture without them and without a word on its colours."""
    tables, rest, at = b"", data[:2], 2
    while (marker := data[at : at + 2]) != b"\xff\xda":
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (b"\xff\xdb", b"\xff\xc4"):
            tables += data[at:end]
        elif marker not in (b"\xff\xe0", b"\xff\xee"):
            rest += data[at:end]
        at = end
    return tables, rest + data[at:]


def tile_bytes(path: Path, number: int, *, level: int = 0) -> tuple[int, int]:
    """Where the bytes of a tile lie, and how many they are."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        return page.dataoffsets[number], page.databytecounts[number]


def write_mrxs(path: Path, tiles: dict[tuple[int, int], np.ndarray], *, across: int, down: int, mpp: float) -> None:
    """A MIRAX slide of two levels without overlap: PNG tiles of level 0 by (column, row), the others are empty."""
    side = next(iter(tiles.values())).shape[0]
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(b"mirax")
    data = bytearray(b"data")
    pages: list[list[tuple[int, int, int]]] = [[], []]

    def store(level: int, column: int, row: int, pixels: np.ndarray) -> None:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        pages[level].append((row * across + column, len(data), len(buffer.getvalue())))
        data.extend(buffer.getvalue())

    for (column, row), pixels in sorted(tiles.items(), key=lambda item: item[0][::-1]):
        store(0, column, row, pixels)
    # A tile of the second level is four of the first, halved; one that only some of them fill is dark there.
    for row in range(0, down, 2):
        for column in range(0, across, 2):
            four = [(column + i, row + j) for j in (0, 1) for i in (0, 1)]
            if any(place in tiles for place in four):
                whole = np.zeros((2 * side, 2 * side, 3), np.uint8)
                for index, place in enumerate(four):
                    if place in tiles:
                        y, x = index // 2 * side, index % 2 * side
                        whole[y : y + side, x : x + side] = tiles[place]
                store(1, column, row, halves(whole))
    (folder / "Data0000.dat").write_bytes(data)

    head = b"01.02" + b"SLIDE1"
    start = len(head) + 8
    body = b""
    table_at, records_at = start, start + 8
    table = b""
    for page in pages:
        entries = b"".join(struct.pack("<4i", index, offset, length, 0) for index, offset, length in page)
        table += struct.pack("<i", records_at + len(body))
        first_page = records_at + len(body) + 8
        body += struct.pack("<2i", 0, first_page) + struct.pack("<2i", len(page), 0) + entries
    (folder / "Index.dat").write_bytes(head + struct.pack("<2i", table_at, 0) + table + body)

    level = "IMAGE_FORMAT = PNG\nOVERLAP_X = 0\nOVERLAP_Y = 0\nIMAGE_FILL_COLOR_BGR = 0\n"
    (folder / "Slidedat.ini").write_text(
        "[GENERAL]\nSLIDE_VERSION = 01.02\nSLIDE_ID = SLIDE1\n"
        f"IMAGENUMBER_X = {across}\nIMAGENUMBER_Y = {down}\nOBJECTIVE_MAGNIFICATION = 20\n"
        "CameraImageDivisionsPerSide = 1\nSLIDE_NAME = DOE JANE\n"
        "[HIERARCHICAL]\nHIER_COUNT = 1\nNONHIER_COUNT = 0\nINDEXFILE = Index.dat\n"
        "HIER_0_NAME = Slide zoom level\nHIER_0_COUNT = 2\n"
        "HIER_0_VAL_0_SECTION = LEVEL_0\nHIER_0_VAL_1_SECTION = LEVEL_1\n"
        "[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = Data0000.dat\n"
        + "".join(
            f"[LEVEL_{number}]\n{level}IMAGE_CONCAT_FACTOR = {number}\n"
            f"MICROMETER_PER_PIXEL_X = {mpp * 2**number}\nMICROMETER_PER_PIXEL_Y = {mpp * 2**number}\n"
            f"DIGITIZER_WIDTH = {side}\nDIGITIZER_HEIGHT = {side}\n"
            for number in (0, 1)
        ),
        encoding="utf-8",
    )
