"""Which tiles two data sets differ in, and why."""

import csv
import io
import shutil

import pytest
from small_set import assemble, run, write_case, write_set

from hepipe.dataset.curation import content_id
from hepipe.dataset.diff import CHANGES, diff_datasets
from hepipe.status import failed
from hepipe.stores.tables import INDEX, read_table


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("base") / "set")


@pytest.fixture
def changed(base, tmp_path):
    """A factory of copies of the base whose case a was made otherwise."""

    def make(**changes):
        folder = tmp_path / f"other{len(list(tmp_path.iterdir()))}"
        shutil.copytree(base, folder / "set")
        shutil.rmtree(folder / "set/tiles/a.zarr")
        write_case(folder / "set", "a", **{"score": "0", **changes})
        return assemble(folder / "set", *"abcd")

    return make


def found(a, b):
    return {(one.change, one.case_id, one.why) for one in diff_datasets(a, b).tiles if one.change != "split"}


def test_a_data_set_made_again_elsewhere_is_the_same(base, changed):
    other = changed()
    done = diff_datasets(base, other)
    assert done.is_empty
    assert done.n_same == 16
    assert "the same data set: 16 tiles" in run("dataset", "diff", base, other)


PIXELS = [
    ({"slide": "x"}, "H&E: another slide"),
    ({"reader": "tiffslide"}, "H&E: another reader (picture, as_scanned; tiffslide, as_scanned)"),
    ({"tiling": {"mpp": 0.25}}, "H&E: section tiling: mpp 0.5 -> 0.25"),
    ({"version": "0.2.0"}, "H&E: another version of hepipe (0.1.0; 0.2.0)"),
    ({"decoder": "pillow 13"}, "H&E: another library decodes (pillow 12; pillow 13)"),
    ({"codec": "jpeg"}, "H&E: kept with another loss (greendelta level 1; jpeg quality 90 subsampling 420)"),
    ({}, "H&E: unexplained: slide, transform, reader, sections, version and the library that decodes are the same"),
]


@pytest.mark.parametrize(
    ("change", "why"), PIXELS, ids=["slide", "reader", "section", "version", "decoder", "loss", "unexplained"]
)
def test_other_pixels_are_put_down_to_what_differs(base, changed, change, why):
    other = changed(shade={"he": 1}, **change)
    assert found(base, other) == {("pixels", "a", why)}


def test_another_library_that_gives_the_same_pixels_is_the_same_data_set(base, changed):
    assert diff_datasets(base, changed(decoder="pillow 13")).is_empty


def test_another_transform_explains_the_ihc_alone(base, changed):
    other = changed(shade={"he": 1, "ihc": 1}, shift=2.0)
    whys = {why for _, _, why in found(base, other)}
    assert "IHC: another transform" in whys
    assert any(why.startswith("H&E: unexplained") for why in whys)


def test_a_dropped_tile_names_its_limit_and_whether_limits_changed(base, changed):
    same = changed(drop={1: "blur_he"})
    assert found(base, same) == {
        ("only in A", "a", "dropped in B by blur_he (the same section quality: it measures otherwise)")
    }
    stricter = changed(drop={1: "blur_he"}, quality={"alarm_filter_frac": 0.4})
    (one,) = found(base, stricter)
    assert one[2] == "dropped in B by blur_he (section quality: alarm_filter_frac none -> 0.4)"
    assert found(same, base) == {
        ("only in B", "a", "dropped in A by blur_he (the same section quality: it measures otherwise)")
    }


def test_a_tile_that_was_not_cut_names_the_section_of_its_grid(base, changed):
    other = changed(n_tiles=3, tiling={"mpp": 0.5, "min_tissue_frac": 0.9})
    assert found(base, other) == {
        ("only in A", "a", "not cut in B: section tiling: min_tissue_frac none -> 0.9"),
    }


def test_a_failed_case_and_a_missing_case_are_told_apart(base, changed, tmp_path):
    lost = changed(status=failed("tissue", "no tissue on the IHC"))
    assert ("only in A", "a", "its case failed in B at tissue: no tissue on the IHC") in found(base, lost)
    fewer = tmp_path / "2/set"
    for case_id, score in (("b", "1+"), ("c", "2+"), ("d", "3+")):
        write_case(fewer, case_id, score=score)
    assemble(fewer, "b", "c", "d")
    assert found(base, fewer) == {("only in A", "a", "B has no such case")}


def test_a_person_is_named_as_one_who_drops(base, changed, tmp_path):
    other = changed()
    row = read_table(other / "index.parquet", INDEX)[0]
    decisions = tmp_path / "ann.csv"
    decisions.write_text(f"content_id,tile_id,decision,reason\n{content_id(row)},{row['tile_id']},drop,pen\n")
    files = ["--index", other / "index.parquet", "--card", other / "dataset.json", "--decisions", decisions]
    run("assemble", "--folder", other, "--cases", "a,b,c,d", *files)
    assert found(base, other) == {("only in A", "a", "dropped in B by a person")}
    assert "curation" in diff_datasets(base, other).parts


def test_another_score_is_a_change_of_label(base, changed):
    (one,) = {(one.change, one.case_id, one.why, one.a, one.b) for one in _labels(base, changed(score="1+"))}
    assert one == ("labels", "a", "her2_score", "0", "1+")


def _labels(a, b):
    return [one for one in diff_datasets(a, b).tiles if one.change == "labels"]


def test_tiles_that_moved_to_another_split_name_the_section(base, tmp_path):
    other = shutil.copytree(base, tmp_path / "set")
    splits = {}
    for seed in range(1, 30):
        assemble(other, *"abcd", seed=seed, shares={"train": 0.25, "val": 0.25, "test": 0.5})
        splits = {one.why for one in diff_datasets(base, other).tiles if one.change == "split"}
        if splits:
            break
    (why,) = splits
    assert why.startswith("section splits: ")
    assert "shares.test 0.2 -> 0.5" in why
    assert "splits" in diff_datasets(base, other).parts


def test_the_same_pixels_under_another_name_are_no_loss(base, tmp_path):
    other = tmp_path / "set"
    for case_id, score in (("a", "0"), ("b", "1+"), ("c", "2+"), ("d", "3+")):
        write_case(other, case_id, score=score, first=1 if case_id == "a" else 0)
    assemble(other, *"abcd")
    # Cells 1 to 3 are in both, cell 0 in A alone, cell 4 in B alone.
    assert {(one.change, one.tile_id) for one in diff_datasets(base, other).tiles} == {
        ("only in A", "a/0-0"),
        ("only in B", "a/4-0"),
    }
    renamed = tmp_path / "renamed"
    for case_id, score in (("a", "0"), ("b", "1+"), ("c", "2+"), ("d", "3+")):
        write_case(renamed, case_id, score=score)
    _rename(renamed)
    assemble(renamed, *"abcd")
    done = [one for one in diff_datasets(base, renamed).tiles if one.case_id == "a"]
    assert {one.change for one in done} == {"renamed"}
    assert done[0].why == f"the same pixels are tile {done[0].b} in B"


def _rename(folder):
    """Give the tiles of case a other ids, as another grid would."""
    from hepipe.stores.tables import TILES, VERDICTS, read_provenance, write_table

    for room, schema in (("tiles", TILES), ("verdict", VERDICTS)):
        path = folder / room / "a.parquet"
        rows = [{**row, "tile_id": f"a/9{row['tile_id'][2:]}"} for row in read_table(path, schema)]
        write_table(rows, path, schema, read_provenance(path))


def test_the_command_writes_every_difference_as_csv_and_ends_with_1(base, changed, tmp_path):
    other = changed(drop={1: "blur_he"}, shade={"he": 1}, slide="x")
    said = run("dataset", "diff", base, other, "--csv", tmp_path / "out.csv", code=1)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert {row["change"] for row in rows} >= {"only in A", "pixels"}
    assert {row["change"] for row in rows} <= set(CHANGES)
    assert "slides: other in a" in said
    assert "  a: 3, H&E: another slide" in said
    assert len(rows) == len(diff_datasets(base, other).tiles)


def test_without_the_tables_of_a_case_the_reason_is_unknown_and_not_made_up(base, changed):
    other = changed(drop={1: "blur_he"})
    (other / "tiles/a.parquet").unlink()
    assert found(base, other) == {("only in A", "a", "unknown: the tables of its case do not lie in B")}
