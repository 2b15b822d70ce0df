from dataclasses import replace

import pytest

from hepipe.dataset.card import profile_warnings, read_card, write_card
from hepipe.dataset.cases import IMPORTED, CaseTiles
from hepipe.dataset.index import assemble
from hepipe.errors import ConfigError, StoreError
from hepipe.specs.dataset import SplitsSpec
from hepipe.status import OK, failed, review

SPEC = SplitsSpec()


def tile(tile_id, case_id, *, pixels=None, split=None, score="0", place="inside"):
    return {
        "tile_id": tile_id, "case_id": case_id, "patient_id": case_id and f"p-{case_id}", "her2_score": score,
        "he_sha256": pixels or f"h-{tile_id}", "ihc_sha256": f"i-{tile_id}", "source_split": split, "place": place,
        "region": "",
    }  # fmt: skip


def case(case_id, count, *, drop=(), patient=None, score="0", status=OK, transform="t", specs=None, held=False):
    tiles = [tile(f"{case_id}/{n}", case_id, score=score) for n in range(count)]
    keep = {row["tile_id"]: n not in drop for n, row in enumerate(tiles)}
    return CaseTiles(
        case_id,
        patient or f"p-{case_id}",
        score,
        None,
        tiles,
        keep,
        status,
        specs or {"tiles": {"mpp": 0.5}},
        transform,
        held,
        dict.fromkeys(keep, "aligned"),
    )


def imported(*tiles, preset="official"):
    keep = {row["tile_id"]: True for row in tiles}
    return CaseTiles(
        IMPORTED, None, None, None, tiles, keep, OK, {}, "",
        alignment=dict.fromkeys(keep, "weak"), told={"preset": preset},
    )  # fmt: skip


@pytest.mark.parametrize("preset", ["by_slide", "by_case"])
def test_a_division_of_ours_that_leaks_stops_an_imported_set_and_a_published_one_is_flagged(preset):
    tiles = [tile("train/a", "c1", split="train", pixels="same"), tile("test/b", "c2", split="test", pixels="same")]
    _, card = assemble("set", [imported(*tiles)], SPEC)
    assert any(warning.startswith("leak:") for warning in card.warnings)
    with pytest.raises(ConfigError, match="splits leak"):
        assemble("set", [imported(*tiles, preset=preset)], SPEC)


def test_dropped_tiles_are_counted_but_not_in_the_index():
    rows, card = assemble("set", [case("a", 4, drop=(1,))], SPEC)
    assert [row["tile_id"] for row in rows] == ["a/0", "a/2", "a/3"]
    assert {row["store"] for row in rows} == {"tiles/a.zarr"}
    assert (card.n_tiles, card.n_kept) == (4, 3)


def test_two_cases_of_one_patient_share_a_split():
    cases = [case(f"c{n}", 3, patient=f"p{n // 2}") for n in range(12)]
    rows, card = assemble("set", cases, SPEC)
    splits = {}
    for row in rows:
        splits.setdefault(int(row["case_id"][1:]) // 2, set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert sum(part.tiles for part in card.splits.values()) == len(rows)


def test_a_failed_case_is_listed_without_a_split_and_marks_the_set():
    _, card = assemble("set", [case("a", 2), case("b", 0, status=failed("tissue", "empty"))], SPEC)
    assert [(one.case_id, one.status.state, one.split is None) for one in card.cases] == [
        ("a", "ok", False),
        ("b", "failed", True),
    ]
    assert card.provenance.status.state == "review"


def test_tiles_of_a_pair_in_review_stay_out_of_the_index_and_are_counted():
    doubt = review("registration", "look at the overlay")
    rows, card = assemble("set", [case("a", 4), case("b", 3, drop=(0,), status=doubt, held=True)], SPEC)
    assert {row["case_id"] for row in rows} == {"a"}
    assert [(one.n_tiles, one.n_kept, one.n_held, one.split is None) for one in card.cases] == [
        (4, 4, 0, False),
        (3, 0, 2, True),
    ]
    assert card.warnings[-1].startswith("case b is in review: 2 tiles held back")
    assert card.n_kept == 4
    assert card.provenance.status.state == "review"


def test_a_pair_that_a_person_accepted_is_in_the_index_again():
    waiting, accepted = (case("b", 3, held=held) for held in (True, False))
    without, with_it = (assemble("set", [case("a", 4), one], SPEC) for one in (waiting, accepted))
    assert {row["case_id"] for row in with_it[0]} == {"a", "b"}
    assert without[1].fingerprint != with_it[1].fingerprint


def test_an_imported_set_keeps_its_splits():
    tiles = [tile("train/x", None, split="train"), tile("test/y", None, split="test")]
    rows, card = assemble("set", [imported(*tiles)], SPEC)
    assert {row["tile_id"]: row["split"] for row in rows} == {"train/x": "train", "test/y": "test"}
    assert card.cases == ()
    assert any("cases unknown for 2" in warning for warning in card.warnings)


def test_a_case_in_two_splits_of_an_imported_set_is_reported():
    tiles = [tile("train/x", "s1", split="train"), tile("test/y", "s1", split="test")]
    assert any("more than one split" in w and "s1" in w for w in assemble("set", [imported(*tiles)], SPEC)[1].warnings)


def test_the_same_pixels_in_two_splits_are_reported():
    tiles = [tile("train/x", None, split="train", pixels="q"), tile("test/y", None, split="test", pixels="q")]
    _, card = assemble("set", [imported(*tiles)], SPEC)
    assert any("has the pixels of" in warning for warning in card.warnings)


def test_a_card_reads_back(tmp_path):
    _, card = assemble("set", [case("a", 2)], SPEC)
    write_card(tmp_path / "dataset.json", card)
    assert read_card(tmp_path / "dataset.json") == card
    with pytest.raises(StoreError, match="run assemble again"):
        read_card(tmp_path / "none.json")


def test_the_fingerprint_does_not_depend_on_the_order_of_cases():
    cases = [case(f"c{n}", 2, score=score) for n, score in enumerate(["0", "1+", "2+", "3+"])]
    assert assemble("set", cases, SPEC)[1].fingerprint == assemble("set", cases[::-1], SPEC)[1].fingerprint


def test_nothing_kept_is_said():
    _, card = assemble("set", [case("a", 1, drop=(0,))], SPEC)
    assert card.warnings[0] == "no tile is kept in any case"


def test_tiles_from_beside_the_tumour_are_in_the_index_and_counted_apart():
    first, second = case("a", 4), case("b", 3)
    first.tiles[1]["place"] = "outside"
    for row in second.tiles:
        row["place"] = "outside"
    rows, card = assemble("set", [first, second], SPEC)
    assert [(row["tile_id"], row["place"]) for row in rows] == [
        ("a/0", "inside"),
        ("a/1", "outside"),
        ("a/2", "inside"),
        ("a/3", "inside"),
    ]
    assert (card.n_tiles, card.n_kept, card.n_outside) == (7, 3, 1)
    assert [(one.n_kept, one.n_outside, one.split is None) for one in card.cases] == [(3, 1, False), (0, 0, True)]
    (part,) = [part for part in card.splits.values() if part.tiles]
    assert (part.tiles, part.outside) == (3, 1)


def test_slides_of_other_colour_profiles_are_said_and_stop_nothing():
    one, two, none = "a" * 64, "b" * 64, None
    same = {"x": {"he": one, "ihc": one}, "y": {"he": one, "ihc": one}}
    assert profile_warnings(same) == []
    assert profile_warnings({"x": {"he": none, "ihc": none}}) == []
    assert profile_warnings({"x": {"he": one, "ihc": two}, "y": {"he": one, "ihc": two}}) == [
        "H&E and IHC carry different colour profiles in x, y"
    ]
    assert profile_warnings({**same, "z": {"he": none, "ihc": none}}) == [
        "H&E slides carry 2 colour profiles: aaaaaaaa in 2, none in 1 of 3 cases",
        "IHC slides carry 2 colour profiles: aaaaaaaa in 2, none in 1 of 3 cases",
    ]
    many = {f"c{number:02d}": {"he": one, "ihc": none} for number in range(12)}
    assert profile_warnings(many)[0].endswith("c09 and 2 more")
    rows, card = assemble("set", [replace(case("a", 2), icc={"he": one, "ihc": two})], SPEC)
    assert len(rows) == 2
    assert "H&E and IHC carry different colour profiles in a" in card.warnings
