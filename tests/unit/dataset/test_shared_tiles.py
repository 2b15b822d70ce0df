"""What a run's test tiles share with its training, over data sets."""

import pytest

from hepipe.dataset.audit import EMPTY_HASH
from hepipe.dataset.shared import Shared, shared_tiles
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, write_table

PLAIN = {
    "row_in_store": 0, "x_px0": 0, "y_px0": 0, "canvas_x_px0": 0, "canvas_y_px0": 0, "mpp": 0.5, "her2_score": None,
    "marker": "HER2", "section": "restained", "source_split": None, "tissue_frac": 1.0, "region": "",
    "place": "inside", "slide_id": None, "batch": None, "score_level": "none", "source_set": "", "source_name": "",
    "warped_stain": "ihc", "he_phash": "1" * 16, "ihc_phash": "1" * 16, "problem": "", "measurements": {},
    "store": "tiles/c.zarr", "alignment": "aligned", "he_reader": None, "ihc_reader": None, "fold": None,
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def index(name, *tiles, **common):
        rows = [
            {
                **PLAIN,
                **common,
                "tile_id": f"{split}/{number}",
                "case_id": None,
                "split": split,
                "patient_id": patient,
                "he_sha256": f"he-{pixels}",
                "ihc_sha256": f"ihc-{pixels}",
            }
            for number, (split, pixels, patient) in enumerate(tiles)
        ]
        path = tmp_path / name / "index.parquet"
        write_table(rows, path, INDEX, Provenance(artefact="index", subject=name))
        return path

    return index


def test_tiles_of_the_same_pixels_are_met_whatever_they_are_called(write):
    learned = write("a", ("train", 1, "p1"), ("train", 2, "p1"), ("val", 3, "p2"), ("test", 4, "p3"))
    judging = write("b", ("test", 2, "q1"), ("test", 3, "q2"), ("test", 5, "q3"), ("val", 1, "q4"))
    found = shared_tiles(judging, "test", [learned], is_chosen=True)
    assert (found.n_tiles, found.trained, found.chosen) == (3, {"pixels": 1}, {"pixels": 1})
    assert found.line() == "1 of 3 tiles met in training: 1 by the same pixels"
    assert shared_tiles(judging, "test", [learned], is_chosen=False).chosen == {}


def test_other_tiles_of_a_patient_are_met_where_both_sets_name_people_alike(write):
    learned = write("a", ("train", 1, "p1"))
    judging = write("b", ("test", 2, "p1"), ("test", 3, "p2"), ("test", 1, "p1"))
    assert shared_tiles(judging, "test", [learned], is_chosen=False).trained == {"pixels": 1, "patient": 1}


def test_ids_of_plain_folders_and_of_other_kinds_of_sets_name_nobody_elsewhere(write):
    learned = write("a", ("train", 1, "p1"), source_set="folder")
    assert shared_tiles(
        write("b", ("test", 2, "p1"), source_set="folder"), "test", [learned], is_chosen=False
    ) == Shared(n_tiles=1, trained={})
    learned = write("c", ("train", 1, "p1"), source_set="mist")
    other = write("d", ("test", 2, "p1"), source_set="her2match")
    assert shared_tiles(other, "test", [learned], is_chosen=False).trained == {}


def test_one_set_of_plain_folders_knows_its_own_patients(write):
    index = write("a", ("train", 1, "p1"), ("test", 2, "p1"), source_set="folder")
    assert shared_tiles(index, "test", [index], is_chosen=False).trained == {"patient": 1}


def test_empty_tiles_share_nothing(write):
    learned = write("a", ("train", 1, None), he_phash=EMPTY_HASH, ihc_phash=EMPTY_HASH)
    judging = write("b", ("test", 1, None), he_phash=EMPTY_HASH, ihc_phash=EMPTY_HASH)
    assert shared_tiles(judging, "test", [learned], is_chosen=False).line() == ""


def test_tiles_beside_the_tumour_were_never_trained_on(write):
    learned = write("a", ("train", 1, "p1"), place="outside")
    assert shared_tiles(write("b", ("test", 1, "p1")), "test", [learned], is_chosen=False).trained == {}


def test_what_the_runs_that_it_builds_on_were_trained_on_counts_and_what_chose_them_does_not(write):
    own = write("a", ("train", 1, "p1"), ("val", 2, "p2"))
    teacher = write("b", ("train", 3, "q1"), ("val", 4, "q2"))
    judging = write("c", *(("test", number, f"r{number}") for number in range(1, 6)))
    found = shared_tiles(judging, "test", [own, teacher], is_chosen=True)
    assert (found.trained, found.chosen) == ({"pixels": 2}, {"pixels": 1})
