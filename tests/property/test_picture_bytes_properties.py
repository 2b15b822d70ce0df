"""Whatever a stranger's file holds, it is a picture of the stated size or it is told why not."""

import contextlib
import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hepipe.importers.files import Header, decode_picture, read_header

SIZE = (32, 32)


def encoded() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    kinds = [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"})]
    kinds += [("TIFF", {}), ("WEBP", {"lossless": True}), ("BMP", {})]
    files = []
    for kind, how in kinds:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **how)
        files.append(file.getvalue())
    return files


FILES = encoded()
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12)


@given(st.sampled_from(FILES), changes, st.integers(0, 400), st.booleans())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_a_picture_of_the_size_or_an_error(tmp_path_factory, data, changed, cut, in_head):
    damaged = bytearray(data[: len(data) - cut] if cut < len(data) else b"")
    reach = min(len(damaged), 200) if in_head else len(damaged)
    for place, value in changed:
        if reach:
            damaged[int(place * reach)] = value
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(bytes(damaged))
    header = read_header(file)
    assert isinstance(header, Header | str)
    with contextlib.suppress(ValueError):
        assert decode_picture(bytes(damaged), SIZE).shape == (*SIZE, 3)
