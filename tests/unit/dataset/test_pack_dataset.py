"""What a data set is made again from, in a few files."""

import json
import shutil

import pytest
from small_set import run, write_case, write_set

from hepipe.dataset.card import read_card
from hepipe.dataset.diff import diff_datasets
from hepipe.dataset.pack import pack_dataset
from hepipe.dataset.verify import verify_dataset
from hepipe.errors import ConfigError, StoreError
from hepipe.stores.arrays import read_registered


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("whole") / "set", shift=2.0)


def test_a_pack_holds_transforms_sections_splits_and_the_card_and_no_pixels(whole, tmp_path):
    said = run("dataset", "pack", whole, tmp_path / "pack")
    assert "4 transforms" in said
    card = read_card(whole / "dataset.json")
    for case_id, parts in card.made_of.cases.items():
        assert read_registered(tmp_path / f"pack/registered/{case_id}.zarr").digest == parts.transforms
    sections = json.loads((tmp_path / "pack/sections.json").read_text())
    assert sections["tiling"] == [{"cases": ["a", "b", "c", "d"], "section": {"mpp": 0.5}}]
    assert sections["fingerprint"] == card.fingerprint
    assert not list((tmp_path / "pack").glob("tiles*"))
    assert card.fingerprint in (tmp_path / "pack/README.md").read_text()


def test_a_pack_is_the_data_set_as_far_as_it_goes(whole, tmp_path):
    pack_dataset(whole, tmp_path / "pack")
    assert verify_dataset(tmp_path / "pack").mismatches == ()
    assert diff_datasets(whole, tmp_path / "pack").is_empty


def test_a_transform_of_a_pack_that_was_exchanged_or_damaged_is_found(whole, tmp_path):
    pack_dataset(whole, tmp_path / "pack")
    shutil.rmtree(tmp_path / "pack/registered/a.zarr")
    shutil.copytree(tmp_path / "pack/registered/b.zarr", tmp_path / "pack/registered/a.zarr")
    (tmp_path / "pack/registered/c.zarr/ihc_from_he/zarr.json").write_text("{")
    found = [(one.case_id, one.part) for one in verify_dataset(tmp_path / "pack").mismatches]
    assert found == [("a", "transforms"), ("c", "transforms")]


def test_a_transform_that_is_not_the_fingerprints_does_not_travel(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "set")
    shutil.rmtree(folder / "tiles/b.zarr")
    write_case(folder, "b", score="1+", shift=5.0)
    with pytest.raises(StoreError, match="not the transform that the fingerprint was taken of"):
        pack_dataset(folder, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_nothing_is_written_over(whole, tmp_path):
    (tmp_path / "pack").mkdir()
    with pytest.raises(ConfigError, match="stands there already"):
        pack_dataset(whole, tmp_path / "pack")
