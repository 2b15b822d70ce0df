"""BCI and BCI-clean, in their layout."""

import numpy as np
import pytest
from PIL import Image

from hepipe.errors import ConfigError
from hepipe.stores.tiles import TileStore

LEVELS = ("0", "1+", "2+", "3+")


@pytest.fixture
def bci(put, root):
    """40 pairs of train, 8 of test; JPEG data in .png, a level in turn."""
    for split, count in (("train", 40), ("test", 8)):
        for number in range(count):
            name = f"{split}/{number:05d}_{split}_{LEVELS[number % 4]}.png"
            put(f"BCI_dataset/HE/{name}", f"BCI_dataset/IHC/{name}")
    (root / "BCI_dataset" / "README").write_text("for non-commercial purposes")
    return root / "BCI_dataset"


def test_names_say_split_and_level_and_cases_stay_unknown(bci, opened, rows_of):
    tiles = opened("bci", preset="bci_paper")
    rows = rows_of(tiles, "bci", preset="bci_paper")
    assert len(rows) == 48
    row = next(row for row in rows if row["tile_id"] == "train/00001_train_1+")
    assert (row["her2_score"], row["score_level"], row["source_set"], row["source_name"], row["source_split"]) == (
        "1+", "slide", "bci", "00001_train_1+", "train",
    )  # fmt: skip
    assert (row["mpp"], row["section"], row["warped_stain"], row["marker"]) == (0.46, "consecutive", "he", "HER2")
    assert {row[name] for row in rows for name in ("case_id", "patient_id", "slide_id", "x_px0")} == {None}


def test_the_bytes_of_the_files_are_kept_though_they_are_called_png(bci, opened, rows_of, tmp_path):
    tiles = opened("bci", preset="bci_paper")
    assert tiles.passes == {"he", "ihc"}
    assert tiles.told["kept"]["he"] == "the bytes of 48 JPEG"
    rows = rows_of(tiles, "bci", preset="bci_paper")
    store = TileStore(tmp_path / "t.zarr")
    for row in rows[:3]:
        file = (bci / "HE" / row["source_split"] / f"{row['source_name']}.png").read_bytes()
        assert store.chunk("he", row["row_in_store"]).endswith(file)
        np.testing.assert_array_equal(
            store.read("he", row["row_in_store"]),
            np.array(Image.open(bci / "HE" / row["source_split"] / f"{row['source_name']}.png")),
        )


def test_a_copy_encoded_anew_without_loss_has_the_same_hashes(bci, opened, rows_of):
    before = {row["tile_id"]: row["he_sha256"] for row in rows_of(opened("bci"), "bci")}
    for file in (bci / "HE").rglob("*.png"):
        with Image.open(file) as found:
            pixels = found.copy()
        pixels.save(file, "PNG")
    tiles = opened("bci")
    assert tiles.passes == {"ihc"}
    assert tiles.told["kept"]["he"] == "pixels of 48 PNG: not all are sequential JPEGs"
    assert {row["tile_id"]: row["he_sha256"] for row in rows_of(tiles, "bci")} == before


def test_counts_that_are_not_the_authors_are_told_with_both_numbers(bci, opened):
    warnings = opened("bci").told["warnings"]
    assert "bci train: 40 pairs found, 3,896 expected" in warnings
    assert "bci test: 8 pairs found, 977 expected" in warnings
    assert "bci test 3+: 2 pairs found, 258 expected" in warnings


def test_validation_is_drawn_from_train_by_level_and_keeps_the_ids(bci, opened):
    tiles = opened("bci", validation=8)
    val = [pair for pair in tiles.pairs if pair.split == "val"]
    assert len(val) == 8
    assert [sum(pair.facts.score == level for pair in val) for level in LEVELS] == [2, 2, 2, 2]
    assert all(pair.tile_id.startswith("train/") for pair in val)
    assert {pair.tile_id for pair in opened("bci", validation=8).pairs if pair.split == "val"} == {
        pair.tile_id for pair in val
    }
    assert {pair.tile_id for pair in opened("bci", validation=8, seed=2).pairs if pair.split == "val"} != {
        pair.tile_id for pair in val
    }
    assert "seed 1" in tiles.told["division"]
    assert not [pair for pair in opened("bci", preset="bci_paper").pairs if pair.split == "val"]


def test_quarters_stay_with_their_parent_and_are_its_pixels(bci, opened, rows_of, tmp_path):
    tiles = opened("bci", validation=8, quarter=True)
    assert (tiles.tile_px, tiles.mpp, len(tiles.pairs), tiles.passes) == (8, 0.46, 4 * 48, frozenset())
    rows = rows_of(tiles, "bci", validation=8, quarter=True)
    parents = {}
    for row in rows:
        parents.setdefault(row["source_name"], set()).add(row["source_split"])
    assert all(len(splits) == 1 for splits in parents.values())
    assert [row["tile_id"] for row in rows[:4]] == [f"test/00000_test_0_r{r}c{c}" for r in (0, 1) for c in (0, 1)]
    whole = np.array(Image.open(bci / "HE" / "test" / "00000_test_0.png"))
    np.testing.assert_array_equal(TileStore(tmp_path / "t.zarr").read("he", rows[1]["row_in_store"]), whole[:8, 8:])


def test_halving_is_the_mean_of_two_by_two_px(bci, opened):
    tiles = opened("bci", halve=True)
    assert (tiles.tile_px, tiles.mpp) == (8, 0.92)
    pair = tiles.pairs[0]
    whole = np.array(Image.open(pair.he)).astype(np.float64)
    mean = whole.reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(pair.read()[0] - mean).max() <= 0.5


def test_with_cases_validation_is_whole_cases(bci, opened, tmp_path):
    rows = [f"{n:05d}_train_{LEVELS[n % 4]},case{n // 5}" for n in range(40)]
    (tmp_path / "cases.csv").write_text("\n".join(["name,case", *rows]))
    tiles = opened("bci", cases="cases.csv", validation=11)
    val = {pair.facts.case_id for pair in tiles.pairs if pair.split == "val"}
    assert len(val) == 2
    assert not val & {pair.facts.case_id for pair in tiles.pairs if pair.split == "train"}
    assert "2 whole cases with 10 of 40 pairs" in tiles.told["division"]


def test_cases_of_some_pairs_leave_validation_to_levels_and_that_is_a_warning(bci, opened, tmp_path):
    (tmp_path / "cases.csv").write_text("name,case\n00000_train_0,c1\n")
    tiles = opened("bci", cases="cases.csv", validation=11)
    assert sum(pair.split == "val" for pair in tiles.pairs) == 11
    assert any(text.startswith("cases are given for 1 of 40 pairs of train") for text in tiles.told["warnings"])


def test_a_list_of_cases_joins_them_by_name(bci, opened, tmp_path):
    (tmp_path / "cases.csv").write_text("name,case\nHE/train/00000_train_0.png,c1\n00001_train_1+,c1\n")
    tiles = opened("bci", cases="cases.csv")
    assert {pair.name: pair.facts.case_id for pair in tiles.pairs if pair.facts.case_id} == {
        "00000_train_0": "c1",
        "00001_train_1+": "c1",
    }
    (tmp_path / "cases.csv").write_text("name,case\n00000_train_1+,c1\n")
    with pytest.raises(ConfigError, match=r"00000_train_1\+ \(nearest: 000\d\d_train_1\+\)"):
        opened("bci", cases="cases.csv")


def test_a_name_on_one_side_is_an_error_and_a_dropped_row_when_allowed(bci, opened, rows_of):
    (bci / "IHC" / "test" / "00001_test_1+.png").unlink()
    with pytest.raises(ConfigError, match=r"1 tiles without a partner: test/00001_test_1\+ \(no IHC\)"):
        opened("bci")
    tiles = opened("bci", allow_missing=True)
    rows = rows_of(tiles, "bci", allow_missing=True)
    row = next(row for row in rows if row["problem"])
    assert (row["tile_id"], row["problem"], row["row_in_store"]) == ("test/00001_test_1+", "no partner", None)
    assert "1 tiles without a partner are left out" in tiles.told["warnings"]


def test_names_that_contradict_their_folder_are_listed(put, opened):
    put("HE/test/00000_train_0.png", "IHC/test/00000_train_0.png")
    with pytest.raises(ConfigError, match=r"another folder than their names say: 00000_train_0.png"):
        opened("bci")


def test_names_whose_plus_was_lost_are_listed(put, opened):
    put("HE/train/00000_train_1 .png", "IHC/train/00000_train_1 .png")
    with pytest.raises(ConfigError, match=r"like 00000_train_1\+.png; not so: 00000_train_1 .png"):
        opened("bci")


def test_clean_keeps_the_names_of_a_list_with_and_without_folder_and_suffix(bci, opened, tmp_path):
    (tmp_path / "clean.txt").write_text("train/00000_train_0.png\nIHC/train/00001_train_1+\n00003_test_3+\n")
    tiles = opened("bci-clean", names="clean.txt")
    assert sorted(pair.tile_id for pair in tiles.pairs) == [
        "test/00003_test_3+", "train/00000_train_0", "train/00001_train_1+",
    ]  # fmt: skip
    assert "bci-clean train: 2 pairs found, 1,112 expected" in tiles.told["warnings"]
    (tmp_path / "clean.csv").write_text("kept,name\nyes,00001_train_1+\n")
    assert len(opened("bci-clean", names="clean.csv").pairs) == 1


def test_a_list_with_a_name_that_no_tile_has_is_an_error_with_the_nearest(bci, opened, tmp_path):
    (tmp_path / "clean.txt").write_text("00001_train_1+\n00001_train_2+\n")
    with pytest.raises(ConfigError, match=r"1 names that no tile has: 00001_train_2\+ \(nearest: \d+_train_\d\+\)"):
        opened("bci-clean", names="clean.txt")
    with pytest.raises(ConfigError, match=r"import.names: cannot be read \(No such file"):
        opened("bci-clean", names="none.txt")


def test_terms_travel_with_the_text_that_lay_there(bci, opened, root):
    (root / "LICENSE.txt").write_text("ours too")
    (terms,) = opened("bci", terms="asked and granted").told["terms"]
    assert terms["source_set"] == "bci"
    assert "non-commercial" in terms["line"]
    assert terms["texts"] == {"LICENSE.txt": "ours too", "README": "for non-commercial purposes"}
    assert terms["line"].endswith("who imports it says: asked and granted")
