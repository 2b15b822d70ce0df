"""HER2match, MIST and IHC4BC, in their layouts, and pictures side by side."""

import numpy as np
import pytest

from hepipe.errors import ConfigError
from hepipe.importers.division import draw, whole_groups
from hepipe.importers.kinds import open_set
from hepipe.importers.names import alias
from hepipe.importers.pairs import Facts, Pair
from hepipe.importers.records import write_contact_sheet, write_names
from hepipe.importers.tileset import Inputs, Told, _with_aliases
from hepipe.specs.imports import ImportSpec


@pytest.fixture
def her2match(put):
    """Two slides in train, one in val and test; 512 px copies are made with side."""

    def write(side=(1024, 1024), he="HE", ihc="IHC"):
        for split, slide in (("train", "wsi005"), ("train", "wsi010"), ("val", "wsi013"), ("test", "wsi020")):
            for number in range(2):
                name = f"{split}/{slide}_id{number}_x{1024 * number}_y97280.jpg"
                put(f"{he}/{name}", f"{ihc}/{name}", side=side)

    return write


def test_her2match_names_say_slide_and_place(her2match, opened, rows_of):
    her2match()
    tiles = opened("her2match", halve=True)
    assert (tiles.tile_px, tiles.mpp) == (512, 0.5)
    rows = rows_of(tiles, "her2match", halve=True)
    row = next(row for row in rows if row["tile_id"] == "train/wsi010_id1_x1024_y97280")
    assert (row["slide_id"], row["case_id"], row["canvas_x_px0"], row["y_px0"]) == ("wsi010", "wsi010", 1024, 97280)
    assert (row["her2_score"], row["score_level"], row["section"], row["warped_stain"]) == (
        None, "none", "restained", "ihc",
    )  # fmt: skip
    assert any("states none" in text for text in tiles.told["warnings"])
    assert "her2match train: 4 pairs found, 11,610 expected" in tiles.told["warnings"]
    assert "2 x 2" in tiles.told["halved"]
    assert tiles.told["side_px0"] == 1024
    assert tiles.told["decoders"]["he"].startswith("imagecodecs ")


def test_quarters_of_a_placed_tile_have_their_own_places(her2match, opened, rows_of):
    her2match(side=(512, 512))
    tiles = opened("her2match", quarter=True)
    rows = {row["tile_id"]: row for row in rows_of(tiles, "her2match", quarter=True)}
    row = rows["test/wsi020_id1_x1024_y97280_r1c0"]
    assert (row["x_px0"], row["y_px0"], tiles.told["side_px0"]) == (1024, 97280 + 512, 512)


def test_her2match_knows_a_halved_copy_by_size_and_folders(her2match, opened):
    her2match(side=(512, 512), he="HE_20x", ihc="IHC_20x")
    tiles = opened("her2match")
    assert (tiles.tile_px, tiles.mpp, tiles.passes) == (512, 0.5, {"he", "ihc"})
    with pytest.raises(ConfigError, match="halved before"):
        opened("her2match", halve=True)


def test_a_halved_copy_in_plain_folders_is_told_by_its_size(her2match, opened):
    her2match(side=(512, 512))
    assert opened("her2match").mpp == 0.5
    assert opened("her2match", mpp=0.3).mpp == 0.3


def test_sizes_that_contradict_the_folders_need_a_persons_word(her2match, opened):
    her2match(he="HE_20x", ihc="IHC_20x")
    with pytest.raises(ConfigError, match=r"1024 px in HE_20x; .* give mpp"):
        opened("her2match")
    assert opened("her2match", mpp=0.25).mpp == 0.25


def test_her2match_scores_come_from_a_table(her2match, opened, tmp_path):
    her2match(side=(512, 512))
    (tmp_path / "scores.csv").write_text("slide,score\nwsi010,3+\n5,0\n13,2\n099,1+\n")
    tiles = opened("her2match", scores="scores.csv")
    scores = {pair.facts.slide_id: pair.facts.score for pair in tiles.pairs}
    assert scores == {"wsi005": "0", "wsi010": "3+", "wsi013": "2+", "wsi020": None}
    assert "no HER2 score for wsi020" in tiles.told["warnings"]
    (tmp_path / "scores.csv").write_text("slide,score\nwsi010,strong\n")
    with pytest.raises(ConfigError, match=r"wsi010 \('strong'\)"):
        opened("her2match", scores="scores.csv")


@pytest.fixture
def mist(put):
    """Ten slides of five tiles; slide 0 to 4 lie in train and val."""
    for marker in ("HER2-004", "ER"):
        for slide in range(10):
            for column in range(5):
                part = "val" if slide < 5 and column == 0 else "train"
                name = f"67M21006{slide:02d}_3_{column}.jpg"
                put(f"MIST/{marker}/TrainValAB/{part}A/{name}", f"MIST/{marker}/TrainValAB/{part}B/{name}")


def test_mist_as_published_tells_its_leak_and_carves_validation_by_slide(mist, opened):
    tiles = opened("mist", validation=10)
    assert tiles.told["leaks"] == "slides shared"
    assert any(text.startswith("leaks: 5 of 10 slides") for text in tiles.told["warnings"])
    counts = {split: sum(pair.split == split for pair in tiles.pairs) for split in ("train", "val", "test")}
    assert counts["test"] == 5
    assert abs(counts["val"] - 10) <= 1
    slides = {split: {p.facts.slide_id for p in tiles.pairs if p.split == split} for split in ("train", "val")}
    assert not slides["train"] & slides["val"]
    assert "mist HER2 train: 45 pairs found, 4,642 expected" in tiles.told["warnings"]


def test_mist_by_slide_shares_no_slide_and_has_the_published_sizes(mist, opened):
    tiles = opened("mist", preset="by_slide", validation=10)
    slides = {s: {p.facts.slide_id for p in tiles.pairs if p.split == s} for s in ("train", "val", "test")}
    assert len(slides["train"] | slides["val"] | slides["test"]) == sum(map(len, slides.values()))
    assert sum(pair.split == "test" for pair in tiles.pairs) == 5
    assert sum(pair.split == "val" for pair in tiles.pairs) == 10
    assert "leaks" not in tiles.told


def test_mist_ids_look_like_laboratory_numbers_and_are_replaced(mist, opened, rows_of, tmp_path, root):
    tiles = opened("mist")
    rows = rows_of(tiles, "mist")
    assert "67M" not in str(rows)
    own = alias("67M2100603")
    assert any(row["tile_id"] == f"train/{own}_3_2" and row["slide_id"] == own for row in rows)
    assert {pair.facts.slide_id for pair in opened("mist", marker="ER").pairs} == {row["slide_id"] for row in rows}
    assert "67M" not in str(tiles.told)
    write_names(tmp_path / "names.csv", root, tiles.pairs)
    assert f"train/{own}_3_2,MIST/HER2-004/TrainValAB/trainA/67M2100603_3_2.jpg" in (tmp_path / "names.csv").read_text()
    assert "train/67M2100603_3_2" in {pair.tile_id for pair in opened("mist", alias="never").pairs}


def test_mist4000_drops_the_worst_aligned_of_train_and_says_whose_list_it_is(mist, opened, rows_of, monkeypatch):
    monkeypatch.setattr("hepipe.importers.pairs.MIST_KEPT", 40)
    monkeypatch.setattr("hepipe.importers.mist.MIST_KEPT", 40)
    tiles = opened("mist", preset="mist4000")
    assert "rebuilt, not the authors' list" in tiles.told["division"]

    def measured(he, ihc):
        peak = float(he.mean())
        return {"ncc_peak": np.nan if peak > 180 else peak, "shift_um": float(ihc.mean())}

    rows = rows_of(tiles, "mist", measured, preset="mist4000")
    train = [row for row in rows if row["source_split"] == "train"]
    worst = [row for row in train if row["problem"] == "worst aligned"]
    assert (len(train), len(worst)) == (45, 5)
    assert not [row for row in rows if row["source_split"] == "test" and row["problem"]]
    kept = {row["tile_id"] for row in train if not row["problem"]}
    carved = rows_of(opened("mist", preset="mist4000", validation=10), "mist", measured, preset="mist4000")
    assert {row["tile_id"] for row in carved if row["tile_id"][:5] == "train" and not row["problem"]} == kept
    assert any(row["source_split"] == "val" for row in carved)
    best = max(
        -np.inf if np.isnan(row["measurements"]["ncc_peak"]) else row["measurements"]["ncc_peak"] for row in worst
    )
    assert all(row["measurements"]["ncc_peak"] >= best for row in train if row not in worst)


def test_mist_alone_or_within_its_folders_is_found(mist, opened, root, monkeypatch):
    for below in ("MIST", "MIST/HER2-004", "MIST/HER2-004/TrainValAB"):
        assert len(open_set(root / below, ImportSpec(kind="mist"), Inputs()).pairs) == 50
    with pytest.raises(ConfigError, match="trainA and trainB of PR"):
        opened("mist", marker="PR")
    with pytest.raises(ValueError, match="kind mist has HER2, ER, PR, Ki67"):
        opened("mist", marker="CD3")


@pytest.fixture
def ihc4bc(put):
    """Six cases of two by four overlapping tiles."""
    for case in range(6):
        for row in range(2):
            for column in range(4):
                name = f"Her2/Patient_{case}/Subregion_1/a_{case:02d}_1_{row}_{column}.jpg"
                put(f"IHC4BC_Compressed/Images/HandE/{name}", f"IHC4BC_Compressed/Images/IHC/{name}")


def test_ihc4bc_is_divided_by_case_and_its_test_thinned(ihc4bc, opened, rows_of):
    tiles = opened("ihc4bc", mpp=0.25)
    everything = [*tiles.pairs, *tiles.dropped]
    cases = {s: {p.facts.case_id for p in everything if p.split == s} for s in ("train", "val", "test")}
    assert {split: len(found) for split, found in cases.items()} == {"train": 4, "val": 1, "test": 1}
    assert len(cases["train"] | cases["val"] | cases["test"]) == 6
    assert sorted(p.name[-3:] for p in tiles.pairs if p.split == "test") == ["0_0", "0_2"]
    rows = rows_of(tiles, "ihc4bc", mpp=0.25)
    assert sum(row["problem"] == "overlaps neighbours" for row in rows) == 6
    assert len(opened("ihc4bc", mpp=0.25, thin=False).pairs) == 48
    assert not any("Patient" in row["tile_id"] for row in rows)


def test_ihc4bc_needs_a_pixel_size(opened):
    with pytest.raises(ValueError, match="mpp is missing: kind ihc4bc"):
        opened("ihc4bc")


def test_rows_and_columns_in_px_are_thinned_alike(put, opened):
    for case in range(3):
        for row in (0, 1500, 3000):
            name = f"Her2/P/S/a_{case}_1_{row}_1500.jpg"
            put(f"Images/HandE/{name}", f"Images/IHC/{name}")
    tiles = opened("ihc4bc", mpp=0.25)
    assert not [pair for pair in tiles.pairs if pair.split == "test"]
    assert len(tiles.dropped) == 3


def test_ihc4bc_labels_are_numbers_of_a_tile_and_no_scores(ihc4bc, opened, rows_of, tmp_path):
    (tmp_path / "labels.csv").write_text("a_00_1_0_0.png,a,2,0.25,0.75\na_00_1_0_1.png,d,0\n")
    tiles = opened("ihc4bc", mpp=0.25, labels="labels.csv", thin=False)
    rows = {row["source_name"]: row for row in rows_of(tiles, "ihc4bc", mpp=0.25)}
    assert rows["a_00_1_0_0"]["measurements"]["label_mean_dab"] == 0.5
    assert rows["a_00_1_0_0"]["her2_score"] is None
    assert rows["a_00_1_0_1"]["problem"] == "discarded by its makers"
    (tmp_path / "labels.csv").write_text("a_00_1_0_0,a,2,0.25\na_00_1_0_1,z,1,1\n")
    with pytest.raises(ConfigError, match=r"import.labels, row 2: name, mark \(a, 0, d\)"):
        opened("ihc4bc", mpp=0.25, labels="labels.csv")


def test_side_by_side_jpegs_are_kept_as_pixels_and_that_is_told(put, opened):
    put("train/a.jpg", "train/b.jpg", side=(32, 16))
    tiles = opened("aligned", mpp=0.5)
    assert tiles.passes == frozenset()
    assert tiles.told["kept"] == dict.fromkeys(("he", "ihc"), "pixels of 2 JPEG: two tiles share a file")


def test_an_option_of_another_kind_is_refused(opened):
    with pytest.raises(ValueError, match="scores is an option of kind her2match, not of bci"):
        ImportSpec.model_validate({"kind": "bci", "scores": "x.csv"})
    with pytest.raises(ValueError, match="preset mist4000: kind bci has bci_paper, bci_val"):
        opened("bci", preset="mist4000")


def test_groups_come_as_near_to_the_wanted_number_as_any_subset():
    rng = np.random.default_rng(0)
    for wanted in (1, 7, 20, 33):
        sizes = {f"g{n}": int(size) for n, size in enumerate(rng.integers(1, 12, 8))}
        taken = whole_groups(sizes, wanted, 1)
        values = list(sizes.values())
        sums = {sum(v for place, v in enumerate(values) if subset >> place & 1) for subset in range(1, 2**8 - 1)}
        assert abs(sum(sizes[g] for g in taken) - wanted) == min(abs(one - wanted) for one in sums)
    assert whole_groups({"only": 3}, 2, 1) == set()


def test_what_is_drawn_has_the_shares_of_the_strata():
    names = {"0": [f"a{n}" for n in range(90)], "1+": [f"b{n}" for n in range(10)]}
    drawn = draw(names, 20, 1)
    assert sum(name[0] == "a" for name in drawn) == 18
    assert draw({"0": list(reversed(names["0"])), "1+": names["1+"]}, 20, 1) == drawn
    assert len(draw(names, 1_000, 1)) == 100


def test_the_contact_sheet_shows_eight_pairs_and_is_the_same_each_time(mist, opened, tmp_path):
    tiles = opened("mist")
    for name in ("a.png", "b.png"):
        write_contact_sheet(tmp_path / name, tiles, seed=1)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    write_contact_sheet(tmp_path / "c.png", tiles, seed=2)
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()


def test_rows_that_are_neither_places_nor_strides_are_not_thinned_by_chance(put, opened):
    for case in range(3):
        for row in (137, 1637):
            name = f"Her2/P/S/a_{case}_1_{row}_0.jpg"
            put(f"Images/HandE/{name}", f"Images/IHC/{name}")
    with pytest.raises(ConfigError, match=r"up to 1,637 .* thin: false keeps all"):
        opened("ihc4bc", mpp=0.25)
    assert len(opened("ihc4bc", mpp=0.25, thin=False).pairs) == 6


def test_labels_of_another_set_are_an_error_and_missing_ones_are_counted(ihc4bc, opened, tmp_path):
    (tmp_path / "labels.csv").write_text("a_00_1_0_0,a,1,0.25\n")
    told = opened("ihc4bc", mpp=0.25, labels="labels.csv").told
    assert told["labels"]["pairs with a label"] == 1
    assert "no label for 47 of 48 pairs" in told["warnings"]
    (tmp_path / "labels.csv").write_text("b_00_1_0_0,a,1,0.25\n")
    with pytest.raises(ConfigError, match="none of its 1 rows names one of the 48 pairs"):
        opened("ihc4bc", mpp=0.25, labels="labels.csv")


def test_a_set_of_one_marker_is_not_taken_for_another(opened):
    for kind in ("bci", "bci-clean", "her2match"):
        with pytest.raises(ValueError, match=f"marker ER: kind {kind} has HER2"):
            opened(kind, marker="ER")


def test_an_option_that_would_do_nothing_is_refused(opened):
    with pytest.raises(ValueError, match="validation: preset official of kind folder takes none out of train"):
        opened("folder", mpp=0.5, validation=5)
    with pytest.raises(ValueError, match="split is an option of kind her2match, folder, aligned, not of mist"):
        opened("mist", split="train")


def test_mist4000_is_never_four_thousand_quarters(opened):
    with pytest.raises(ValueError, match="mist4000 ranks and counts whole pairs"):
        opened("mist", preset="mist4000", quarter=True)


def test_a_list_of_cases_loses_no_tile_of_a_name_in_and_outside_its_split(put, opened, rows_of, tmp_path):
    for name in ("a.png", "test/a.png", "b.png"):
        put(f"HE/{name}", f"IHC/{name}")
    (tmp_path / "cases.csv").write_text("name,case\nb,c1\n")
    tiles = opened("folder", mpp=0.5, cases="cases.csv")
    assert len(tiles.pairs) == 3
    with pytest.raises(ConfigError, match="the same name in folder test and outside of it: test/a"):
        rows_of(tiles, "folder", mpp=0.5)


def test_a_slide_whose_id_holds_its_cases_has_the_same_name_in_every_run():
    ids = [(f"67M21006{number}-A", f"67M21006{number}") for number in range(10, 18)]
    pairs = [Pair("train", "train", f"{slide}_3_12", None, None, Facts(slide, case)) for slide, case in ids]
    made = _with_aliases(pairs, ImportSpec(kind="mist", path="x"), Told(""))
    assert [pair.name for pair in made] == [f"{alias(slide)}_3_12" for slide, _ in ids]
