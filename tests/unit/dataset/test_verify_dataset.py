"""A data set is computed again from its artefacts, and what differs is named by case and part."""

import json
import shutil

import pytest
from small_set import assemble, run, write_case, write_set

from hepipe.dataset.card import read_card
from hepipe.dataset.cases import read_case
from hepipe.dataset.verify import verify_dataset
from hepipe.errors import StoreError
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.cases import read_stains, write_stains
from hepipe.stores.tables import INDEX, VERDICTS, read_provenance, read_table, write_table


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("whole") / "set")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def wrong(folder, **options):
    return {(one.case_id, one.part) for one in verify_dataset(folder, **options).mismatches}


def edit(table, schema, change):
    rows = read_table(table, schema)
    write_table(change(rows), table, schema, read_provenance(table))


def test_a_data_set_is_what_its_card_says(folder):
    done = verify_dataset(folder, deep=True)
    assert done.mismatches == ()
    assert (done.tiles, done.deep, done.cases, done.without) == (16, 16, ("a", "b", "c", "d"), ())
    assert read_card(folder / "dataset.json").fingerprint in run("dataset", "verify", folder, "--deep")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"slide": "x"}, "slides"),
        ({"shift": 1.0}, "transforms"),
        ({"reader": "tiffslide"}, "readers"),
        ({"tiling": {"mpp": 0.25}}, "sections"),
        ({"vector": 0.3}, "stains"),
        ({"shade": {"he": 1}}, "tiles"),
        ({"score": "1+"}, "labels"),
        ({"version": "0.0.1"}, "versions"),
    ],
)
def test_an_artefact_that_was_made_anew_is_named_with_its_case_and_part(folder, change, part):
    shutil.rmtree(folder / "tiles/a.zarr")
    write_case(folder, "a", **{"score": "0", **change})
    assert ("a", part) in wrong(folder)
    assert {case_id for case_id, _ in wrong(folder)} == {"a"}


def test_the_command_names_what_differs_and_ends_with_1(folder):
    shutil.rmtree(folder / "tiles/a.zarr")
    write_case(folder, "a", score="0", shift=2.0)
    said = run("dataset", "verify", folder, code=1)
    before = read_card(folder / "dataset.json").made_of.cases["a"].transforms
    after = read_case(folder, "a").transform
    assert f"a, transforms: {before[:16]} in the card, {after[:16]} now" in said
    assert str(folder) not in said


def test_other_vectors_in_a_record_are_found(folder):
    path = folder / "stains/b.json"
    record = read_stains(path)
    other = record.ihc.model_copy(update={"second": (0.3, 0.57, 0.76)})
    write_stains(path, record.model_copy(update={"ihc": other}))
    assert wrong(folder) == {("b", "stains")}


@pytest.mark.parametrize(
    ("column", "value", "parts"),
    [
        ("split", "test", {"splits"}),
        ("her2_score", "3+", {"labels"}),
        ("patient_id", "p-b", {"labels"}),
        ("he_sha256", "0" * 64, {"tiles"}),
        ("region", "invasive", {"tiles"}),
    ],
)
def test_an_index_that_was_edited_is_found(folder, column, value, parts):
    first = read_table(folder / "index.parquet", INDEX)[0]
    assert first[column] != value
    edit(folder / "index.parquet", INDEX, lambda rows: [{**rows[0], column: value}, *rows[1:]])
    assert {part for _, part in wrong(folder)} == parts


def test_a_tile_that_left_the_index_is_named(folder):
    edit(folder / "index.parquet", INDEX, lambda rows: rows[1:])
    said = [one.what for one in verify_dataset(folder).mismatches]
    assert "3 tiles in the index, 4 expected" in said
    assert any("dropped by nobody" in what and "a/0-0" in what for what in said)


def test_a_tile_that_the_filters_drop_now_is_named(folder):
    edit(folder / "verdict/c.parquet", VERDICTS, lambda rows: [{**rows[0], "keep": False, "reason": "pen"}, *rows[1:]])
    assert ("c", "tiles") in wrong(folder)


def test_a_card_that_was_edited_contradicts_itself(folder):
    path = folder / "dataset.json"
    text = path.read_text()
    card = json.loads(text)
    card["made_of"]["cases"]["a"]["slides"]["he"] = "another"
    path.write_text(json.dumps(card))
    assert {("", "slides"), ("a", "slides")} <= wrong(folder)
    path.write_text(text.replace(card["fingerprint"], "0" * 64, 1))
    assert ("", "card") in wrong(folder)
    key, section = next(iter(card["made_of"]["sections"].items()))
    card = json.loads(text)
    card["made_of"]["sections"][key] = {**section, "more": 1}
    path.write_text(json.dumps(card))
    assert wrong(folder) == {("", "sections")}


def test_a_case_name_that_leads_elsewhere_is_no_card(folder):
    path = folder / "dataset.json"
    card = json.loads(path.read_text())
    card["made_of"]["cases"]["../a"] = card["made_of"]["cases"]["a"]
    path.write_text(json.dumps(card))
    with pytest.raises(StoreError, match="not a readable card"):
        verify_dataset(folder)


def test_a_data_set_without_its_cases_is_checked_as_far_as_it_goes(folder):
    for room in ("checked", "registered", "tissue", "stains", "verdict"):
        shutil.rmtree(folder / room)
    for table in (folder / "tiles").glob("*.parquet"):
        table.unlink()
    done = verify_dataset(folder, deep=True)
    assert done.mismatches == ()
    assert done.without == ("a", "b", "c", "d")
    assert done.deep == 16
    assert "4 cases do not lie here" in run("dataset", "verify", folder)


def test_a_missing_artefact_of_a_case_is_named_without_the_folder(folder):
    (folder / "stains/b.json").unlink()
    (found,) = verify_dataset(folder).mismatches
    assert (found.case_id, found.part) == ("b", "artefacts")
    assert str(folder) not in found.what


def test_flipped_bytes_of_a_store_are_found_only_when_asked_for(folder):
    shard = next(
        path for path in sorted((folder / "tiles/b.zarr/he").rglob("*")) if path.is_file() and path.name != "zarr.json"
    )
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert wrong(folder) == set()
    assert ("b", "store") in wrong(folder, deep=True)


def test_other_pixels_in_a_sound_store_are_found_by_their_hash(folder, tmp_path):
    write_case(tmp_path / "other", "b", score="1+", shade={"ihc": 3})
    shutil.rmtree(folder / "tiles/b.zarr")
    shutil.copytree(tmp_path / "other/tiles/b.zarr", folder / "tiles/b.zarr")
    assert wrong(folder) == set()
    done = verify_dataset(folder, deep=True, workers=2)
    assert {one.part for one in done.mismatches} == {"pixels"}
    assert [one.what for one in done.mismatches][:1] == ["tile b/0-0: its ihc pixels are not those of its hash"]


def test_a_card_from_before_fingerprints_had_parts_says_what_to_do(folder):
    path = folder / "dataset.json"
    card = json.loads(path.read_text())
    del card["made_of"]
    path.write_text(json.dumps(card))
    with pytest.raises(StoreError, match="run assemble again"):
        verify_dataset(folder)


def test_tiles_kept_in_another_lossless_codec_are_the_same_data_set(folder, tmp_path):
    from hepipe.stores.upkeep import convert

    convert(folder / "tiles/a.zarr", tmp_path / "a.zarr", StoreSpec(codec="zstd"))
    shutil.rmtree(folder / "tiles/a.zarr")
    (tmp_path / "a.zarr").rename(folder / "tiles/a.zarr")
    assert wrong(folder, deep=True) == set()


def test_a_failed_case_and_dropped_tiles_verify(tmp_path):
    from hepipe.status import failed

    folder = tmp_path / "set"
    for case_id, score in (("a", "0"), ("b", "1+"), ("c", "2+")):
        write_case(folder, case_id, score=score, drop={1: "blur_he"} if case_id == "b" else None)
    write_case(folder, "lost", status=failed("tissue", "no tissue"))
    assemble(folder, "a", "b", "c", "lost", seed=3)
    assert wrong(folder, deep=True) == set()


def test_curated_tiles_verify_and_one_more_lost_tile_does_not(tmp_path):
    from hepipe.dataset.curation import content_id

    folder = write_set(tmp_path / "set")
    row = read_table(folder / "index.parquet", INDEX)[2]
    decisions = tmp_path / "ann.csv"
    decisions.write_text(f"content_id,tile_id,decision,reason\n{content_id(row)},{row['tile_id']},drop,pen\n")
    files = ["--index", folder / "index.parquet", "--card", folder / "dataset.json", "--decisions", decisions]
    run("assemble", "--folder", folder, "--cases", "a,b,c,d", *files)
    assert len(read_table(folder / "index.parquet", INDEX)) == 15
    assert wrong(folder, deep=True) == set()
    edit(folder / "index.parquet", INDEX, lambda rows: rows[1:])
    assert ("a", "tiles") in wrong(folder)
