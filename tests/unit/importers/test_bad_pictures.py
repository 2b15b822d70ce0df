"""Files of strangers: what they cannot be is said before anything is decoded, and one bad tile stops no other."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from hepipe.errors import ConfigError
from hepipe.importers.files import decode_picture, read_header, tiles_below
from hepipe.importers.pairs import import_tiles
from hepipe.specs.imports import ImportSpec
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.codecs import Passthrough
from hepipe.stores.provenance import Provenance
from hepipe.stores.tiles import TileStore, TileWriter
from hepipe.tiling.cut import ARRAYS


def both(put, name, **how):
    put(f"HE/{name}", f"IHC/{name}", **how)


def png_of(width: int, height: int) -> bytes:
    """A PNG header that states a size, and a little data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def test_a_cmyk_jpeg_is_named(put, opened):
    both(put, "a.jpg")
    both(put, "b.jpg", mode="CMYK")
    with pytest.raises(ConfigError, match=r"b.jpg \(mode CMYK, 8-bit RGB expected\)"):
        opened("folder", mpp=0.5)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_named_though_they_could_be_cut_to_eight(put, opened, root, suffix):
    both(put, "a.png", format="PNG")
    for stain in ("HE", "IHC"):
        pixels = np.random.default_rng(1).integers(0, 65_536, (16, 16, 3), dtype=np.uint16)
        (root / stain / f"b.{suffix}").write_bytes(cv2.imencode(f".{suffix}", pixels)[1].tobytes())
    with pytest.raises(ConfigError, match=rf"b.{suffix} \(mode RGB, 16 bits, 8-bit RGB expected\)"):
        opened("folder", mpp=0.5)


def test_several_pictures_in_a_file_are_named(put, opened, root):
    both(put, "a.png", format="PNG")
    for stain in ("HE", "IHC"):
        pages = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
        pages[0].save(root / stain / "b.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ConfigError, match=r"b.tif \(2 pictures in one file\)"):
        opened("folder", mpp=0.5)


def test_a_picture_bomb_is_refused_by_its_header(put, opened, root):
    both(put, "a.png", format="PNG")
    for stain in ("HE", "IHC"):
        (root / stain / "b.png").write_bytes(png_of(20_000, 8_000))
        (root / stain / "c.png").write_bytes(png_of(200_000, 200_000))
    with pytest.raises(ConfigError, match=r"b.png \(20000 x 8000 px, at most 8192 expected\), c.png \(more px than"):
        opened("folder", mpp=0.5)


def test_a_file_much_larger_than_its_pixels_is_refused(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (16, 16)).save(file)
    with file.open("ab") as more:
        more.write(bytes(2_000_000))
    assert str(read_header(file)).endswith("bytes for 16 x 16 px")


def test_a_file_that_became_another_is_not_decoded_to_its_size():
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG")
    with pytest.raises(ValueError, match="no sound JPEG of 16 x 16 px"):
        decode_picture(file.getvalue(), (16, 16))
    with pytest.raises(ValueError, match="not as when opened"):
        decode_picture(png_of(64, 64), (16, 16))


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_file_that_ends_early_is_a_dropped_row_and_stops_nothing(put, opened, rows_of, root, format):
    for name in "abc":
        both(put, f"{name}.x.png", format=format, side=(64, 64))
    file = root / "IHC" / "b.x.png"
    file.write_bytes(file.read_bytes()[:-40])
    tiles = opened("folder", mpp=0.5)
    rows = rows_of(tiles, "folder", mpp=0.5)
    assert [bool(row["problem"]) for row in rows] == [False, True, False]
    assert [row["row_in_store"] for row in rows] == [0, None, 1]
    assert "b.x" not in rows[1]["problem"]


def test_a_progressive_jpeg_is_read_but_not_kept_as_it_is(put, opened, rows_of):
    both(put, "a.jpg")
    both(put, "b.jpg", progressive=True)
    tiles = opened("folder", mpp=0.5)
    assert tiles.passes == frozenset()
    assert "not all are sequential" in tiles.told["kept"]["he"]
    assert len(rows_of(tiles, "folder", mpp=0.5)) == 2


def test_a_jpeg_decodes_here_as_in_the_store():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=70)
    codec = Passthrough((32, 32))
    out = np.empty((32, 32, 3), np.uint8)
    codec.decode(codec.pack([file.getvalue()], shape=(32, 32)), out)
    np.testing.assert_array_equal(decode_picture(file.getvalue(), (32, 32)), out)


def test_links_out_of_the_set_are_refused_and_named(put, opened, root, tmp_path):
    both(put, "a.jpg")
    (tmp_path / "secret.jpg").write_bytes((root / "HE/a.jpg").read_bytes())
    (root / "HE" / "b.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ConfigError, match=r"not followed: b.jpg; put the files themselves"):
        opened("folder", mpp=0.5)


def test_a_folder_that_is_a_link_is_refused(put, opened, root, tmp_path):
    both(put, "a.jpg")
    (tmp_path / "more").mkdir()
    (root / "HE" / "train").symlink_to(tmp_path / "more")
    with pytest.raises(ConfigError, match="links to folders or out of the set are not followed: train"):
        opened("folder", mpp=0.5)
    (root / "HE" / "train").unlink()
    (root / "HE").rename(tmp_path / "real")
    (root / "HE").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="HE is a link out of the set's folder"):
        opened("folder", mpp=0.5)


def test_control_characters_in_names_are_refused(put, opened, root):
    both(put, "a.jpg")
    (root / "HE" / "b\n.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"control characters in names: 'b\\n.jpg'"):
        opened("folder", mpp=0.5)


def test_zone_and_hidden_files_are_counted(put, opened, root):
    both(put, "a.jpg")
    for name in ("a.jpg:Zone.Identifier", "a.jpgZone.Identifier", "._a.jpg", ".DS_Store", "Thumbs.db"):
        (root / "HE" / name).write_text("x")
    assert opened("folder", mpp=0.5).told["skipped"] == {"hidden or zone file": 5}


def test_lists_and_notes_between_tiles_are_counted_and_other_files_are_errors(put, opened, root):
    put("train/a.png", side=(32, 16))
    for name in ("manifest.csv", "dataset.json", "CARD.md", "TERMS.txt"):
        (root / name).write_text("x")
    tiles = opened("aligned", mpp=0.5)
    assert tiles.told["skipped"] == {"licence or readme": 1, "text or table": 3}
    assert tiles.told["terms"][0]["texts"] == {"TERMS.txt": "x"}
    (root / "a.exe").write_text("x")
    with pytest.raises(ConfigError, match=r"a.exe \(no readable picture\)"):
        opened("aligned", mpp=0.5)


def test_a_plus_and_a_dot_survive_in_names(tmp_path):
    for name in ("00001_train_1+.png", "a.b+c.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [tile.name for tile in tiles_below(tmp_path)] == ["00001_train_1+", "a.b+c"]


def test_an_import_that_was_stopped_goes_on_with_its_unreadable_tiles(put, opened, root, tmp_path):
    for number in range(9):
        both(put, f"{number}.jpg", side=(64, 64))
    for number in (1, 5):
        file = root / "HE" / f"{number}.jpg"
        file.write_bytes(file.read_bytes()[:-40])
    tiles = opened("folder", mpp=0.5)
    spec = ImportSpec(kind="folder", mpp=0.5)
    seen = []

    def bring(store_path, stop_at=99):
        def measure(he, ihc, mpp):
            seen.append(1)
            if len(seen) == stop_at:
                raise RuntimeError("killed")
            return {"white_frac_he": 0.0, "white_frac_ihc": 0.0}

        made = Provenance(artefact="tiles", subject="imported")
        how = StoreSpec(tiles_per_shard=2)
        with TileWriter(store_path, made, mpp=0.5, tile_px=64, arrays=ARRAYS, spec=how) as store:
            rows = import_tiles(
                tiles, spec, measures=[measure], dab_mask=lambda ihc, mpp, measured: ihc[..., 0] > 9, store=store
            )
            store.finish()
        return rows

    with pytest.raises(RuntimeError, match="killed"):
        bring(tmp_path / "a.zarr", stop_at=5)
    seen.clear()
    rows = bring(tmp_path / "a.zarr")
    assert len(seen) < 7
    assert rows == bring(tmp_path / "b.zarr")
    assert [row["row_in_store"] for row in rows] == [0, None, 1, 2, 3, None, 4, 5, 6]
    assert TileStore(tmp_path / "a.zarr").digest == TileStore(tmp_path / "b.zarr").digest
