"""Registrations from a stranger: each ends in an error that says what to do, before memory is spent."""

import json
import resource
import shutil

import numpy as np
import pytest
import zarr

from hepipe.errors import StoreError
from hepipe.geometry import Transform, translation
from hepipe.stores.arrays import read_registered, write_registered
from hepipe.stores.provenance import Provenance


@pytest.fixture
def stored(tmp_path):
    """A sound registration on disk."""
    path = tmp_path / "T.zarr"
    field = np.random.default_rng(0).normal(0, 5, (2, 30, 40)).astype(np.float32)
    forward = Transform(translation(3.0, -4.0), 0.25, 0.5, field, 16.0)
    back = Transform(translation(-3.0, 4.0), 0.5, 0.25, field, 16.0)
    write_registered(
        path,
        Provenance(artefact="registered", subject="C1"),
        ihc_from_he=forward,
        he_from_ihc=back,
        summary={"mpp": 1.0},
        evidence={"trust": np.ones((30, 40), np.uint8)},
    )
    return path


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def set_attribute(path, direction, key, value):
    edit(path / direction / "zarr.json", lambda document: document["attributes"].__setitem__(key, value))


def test_a_sound_registration_comes_back_as_it_was(stored):
    registered = read_registered(stored)
    np.testing.assert_array_equal(registered.ihc_from_he.affine, translation(3.0, -4.0))
    assert registered.he_from_ihc.fixed_mpp == 0.5
    assert registered.ihc_from_he.field_um.shape == (2, 30, 40)
    assert registered.evidence["trust"].all()


@pytest.mark.parametrize("direction", ["ihc_from_he", "he_from_ihc"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("affine", [[1, 0, 0], [0, 1, 0]], "no 3 x 3 matrix of numbers"),
        ("affine", "identity", "no 3 x 3 matrix of numbers"),
        ("affine", [[1, 0, float("nan")], [0, 1, 0], [0, 0, 1]], "no finite number"),
        ("affine", [[1, 0, 0], [0, 1, 0], [0.1, 0, 1]], r"last row of its affine is \[0\.1, 0\.0, 1\.0\], 0 0 1"),
        ("affine", [[1, 2, 0], [2, 4, 0], [0, 0, 1]], "scales by .* to 5, 0.001 to 1000 expected"),
        ("affine", [[1e9, 0, 0], [0, 1e9, 0], [0, 0, 1]], r"scales by 1e\+09 to 1e\+09"),
        ("affine", [[1, 0, 1e12], [0, 1, 0], [0, 0, 1]], "shifts by more than"),
        ("fixed_mpp", -0.25, r"fixed_mpp is -0\.25, 0\.05 to 20 µm per px expected"),
        ("moving_mpp", 0, "moving_mpp is 0, "),
        ("moving_mpp", float("nan"), "moving_mpp is nan, "),
        ("moving_mpp", "0.25", "moving_mpp is 0.25, "),
        ("moving_mpp", None, "moving_mpp is None, "),
        ("moving_mpp", True, "moving_mpp is True, "),
        ("grid_um", 0.0, r"grid_um is 0\.0, "),
        ("grid_um", 1e300, r"grid_um is 1e\+300, "),
    ],
)
def test_numbers_that_no_registration_has_are_named(stored, direction, key, value, message):
    set_attribute(stored, direction, key, value)
    with pytest.raises(StoreError, match=message) as caught:
        read_registered(stored)
    assert direction in str(caught.value)
    assert str(caught.value).endswith("register the pair again with this version of hepipe")


def test_two_directions_of_different_slides_are_refused(stored):
    set_attribute(stored, "he_from_ihc", "fixed_mpp", 0.75)
    with pytest.raises(
        StoreError, match=r"ihc_from_he is for \(0\.25, 0\.5\) µm per px, he_from_ihc for \(0\.25, 0\.75\)"
    ):
        read_registered(stored)


def replace_field(stored, values, *, direction="ihc_from_he", **settings):
    shutil.rmtree(stored / direction / "field_um")
    part = zarr.open_group(stored, mode="a")[direction]
    array = part.create_array(
        "field_um", shape=values.shape, dtype=values.dtype, chunks=settings.pop("chunks", values.shape), **settings
    )
    array[...] = values


@pytest.mark.parametrize("direction", ["ihc_from_he", "he_from_ihc"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 4, 5), np.nan, np.float32), "holds 40 values that are no finite number"),
        (np.full((2, 4, 5), np.inf, np.float32), "holds 40 values that are no finite number"),
        (np.full((2, 4, 5), 1e9, np.float32), r"a displacement of 1e\+09 µm, at most 1e\+06 expected"),
        (np.zeros((3, 4, 5), np.float32), "is 3 x 4 x 5 of float32, 2 x n x n of float32 expected"),
        (np.zeros((4, 5), np.float32), "is 4 x 5 of float32"),
        (np.zeros((2, 4, 5), np.float64), "of float64, 2 x n x n of float32 expected"),
        (np.zeros((2, 0, 5), np.float32), "has no values, 1 to 64,000,000 expected"),
    ],
)
def test_fields_that_are_none_are_named(stored, direction, values, message):
    replace_field(stored, values, direction=direction, chunks=tuple(max(1, side) for side in values.shape))
    with pytest.raises(StoreError, match=message) as caught:
        read_registered(stored)
    assert f"{direction}/field_um" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "chunk", "message"),
    [
        ([2, 1_000_000_000, 1], [2, 30, 40], "2,000,000,000 values, 1 to 64,000,000 expected"),
        ([2, 31_623, 31_623], [2, 31_623, 31_623], "2,000,028,258 values"),
        ([2, 30, 40], [2, 100_000, 100_000], "20,000,000,000 values"),
        ([2, 5000, 5000], [2, 1, 1], "in more than 4096 chunks"),
        ([2, 10**18, 10**18], [2, 10**18, 10**18], "values, 1 to 64,000,000 expected|damaged"),
    ],
)
def test_an_absurd_size_is_refused_before_memory_is_spent(stored, shape, chunk, message):
    def change(document):
        document["shape"] = shape
        document["chunk_grid"]["configuration"]["chunk_shape"] = chunk

    edit(stored / "ihc_from_he/field_um/zarr.json", change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StoreError, match=message):
        read_registered(stored)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_chunk_that_unpacks_to_more_than_its_array_is_refused_before_it_is_unpacked(stored):
    import numcodecs

    bomb = numcodecs.Zstd(level=1).encode(bytes(400_000_000))
    chunk = stored / "ihc_from_he/field_um/c/0/0/0"
    chunk.write_bytes(bomb)
    assert chunk.stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StoreError, match=r"a chunk says it holds 400,000,000 bytes, 9,600 expected"):
        read_registered(stored)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_compression_that_cannot_be_checked_is_refused(stored):
    replace_field(stored, np.ones((2, 4, 5), np.float32), compressors=zarr.codecs.GzipCodec())
    with pytest.raises(StoreError, match="is stored through bytes, gzip; bytes and zstd expected"):
        read_registered(stored)


@pytest.mark.parametrize("content", [b"", b"no zstd at all", b"\x28\xb5\x2f\xfd\x00\x00\x00\x00"])
def test_a_damaged_chunk_is_an_error_that_says_what_to_do(stored, content):
    (stored / "ihc_from_he/field_um/c/0/0/0").write_bytes(content)
    with pytest.raises(StoreError, match=r"a chunk says it holds -1 bytes|damaged"):
        read_registered(stored)


def test_a_chunk_cut_short_is_an_error_that_says_what_to_do(stored):
    chunk = stored / "ihc_from_he/field_um/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"a damaged registration \(RuntimeError\); register the pair again"):
        read_registered(stored)


def test_evidence_of_absurd_size_is_refused_too(stored):
    edit(stored / "trust/zarr.json", lambda document: document.__setitem__("shape", [10**6, 10**6]))
    with pytest.raises(StoreError, match=r"trust has 1,000,000,000,000 values, 1 to 32,000,000 expected"):
        read_registered(stored)


def test_metadata_of_absurd_size_is_refused_before_it_is_parsed(stored):
    with (stored / "ihc_from_he/zarr.json").open("ab") as file:
        file.truncate(20_000_000)
    with pytest.raises(StoreError, match="metadata of 20 MB, at most 16 expected"):
        read_registered(stored)


def test_metadata_nested_without_end_is_an_error_and_no_crash(stored):
    (stored / "zarr.json").write_text('{"attributes":' + "[" * 200_000)
    with pytest.raises(StoreError, match=r"register the pair again|run its rule again"):
        read_registered(stored)
