"""What a data set's fingerprint sees, what it does not, and how it says so."""

from dataclasses import replace

import pytest

from hepipe.dataset.card import read_card, write_card
from hepipe.dataset.cases import CaseTiles
from hepipe.dataset.fingerprint import PARTS, Fingerprint, fingerprint
from hepipe.dataset.index import assemble
from hepipe.specs.dataset import SplitsSpec
from hepipe.status import OK, failed

SPLITS = {"seed": 1}


def tile(case_id: str, number: int, **columns: object) -> dict:
    return {
        "tile_id": f"{case_id}/{number}", "case_id": case_id, "patient_id": f"p-{case_id}", "her2_score": "2+",
        "score_level": "slide", "marker": "HER2", "section": "restained", "he_sha256": f"h{case_id}{number}",
        "ihc_sha256": f"i{case_id}{number}", "source_split": None, "place": "inside", "region": "", **columns,
    }  # fmt: skip


def case(case_id: str = "a", **changes: object) -> CaseTiles:
    tiles = [tile(case_id, number) for number in range(3)]
    keep = {row["tile_id"]: True for row in tiles}
    made = CaseTiles(
        case_id,
        f"p-{case_id}",
        "2+",
        None,
        tiles,
        keep,
        OK,
        {"tiles": {"mpp": 0.5}, "verdict": {"limit": 1.0}},
        f"t-{case_id}",
        alignment=dict.fromkeys(keep, "aligned"),
        slides={"he": f"he-{case_id}", "ihc": f"ihc-{case_id}"},
        decoded={"he": "direct, as_scanned", "ihc": "direct, as_scanned"},
        stains="s",
        versions={"tiles": "1.0", "verdict": "1.0"},
    )
    return replace(made, **changes)


def rows_of(*cases: CaseTiles, split: str = "train") -> list[dict]:
    return [{**row, "split": split, "store": f"tiles/{one.case_id}.zarr"} for one in cases for row in one.tiles]


def made(*, rows=None, cases=None, splits=SPLITS, curation=None, version="1.0") -> Fingerprint:
    cases = [case("a"), case("b")] if cases is None else cases
    rows = rows_of(*cases) if rows is None else rows
    return fingerprint(rows, cases, splits=splits, curation=curation or {}, version=version)


def with_first(**columns: object) -> dict:
    rows = rows_of(case("a"), case("b"))
    return {"rows": [{**rows[0], **columns}, *rows[1:]]}


CHANGES = [
    ("slides", {"cases": [case("a", slides={"he": "other", "ihc": "ihc-a"}), case("b")]}),
    ("slides", {"cases": [case("a", slides={"he": "he-a", "ihc": "other"}), case("b")]}),
    ("transforms", {"cases": [case("a", transform="u"), case("b")]}),
    ("readers", {"cases": [case("a", decoded={"he": "openslide, as_scanned"}), case("b")]}),
    ("sections", {"cases": [case("a", specs={"tiles": {"mpp": 0.25}, "verdict": {"limit": 1.0}}), case("b")]}),
    ("sections", {"cases": [case("a", specs={"tiles": {"mpp": 0.5}, "verdict": {"limit": 2.0}}), case("b")]}),
    ("stains", {"cases": [case("a", stains="z"), case("b")]}),
    ("tiles", with_first(he_sha256="z")),
    ("tiles", with_first(ihc_sha256="z")),
    ("tiles", with_first(place="outside")),
    ("tiles", with_first(region="invasive")),
    ("labels", with_first(her2_score="3+")),
    ("labels", with_first(marker="ER")),
    ("labels", with_first(section="consecutive")),
    ("curation", {"curation": {"digest": "d"}}),
    ("splits", with_first(split="test")),
    ("splits", {"splits": {"seed": 2}}),
    ("versions", {"version": "2.0"}),
    ("versions", {"cases": [case("a", versions={"tiles": "2.0", "verdict": "1.0"}), case("b")]}),
]


@pytest.mark.parametrize(("part", "change"), CHANGES, ids=[f"{n}-{part}" for n, (part, _) in enumerate(CHANGES)])
def test_a_change_of_one_part_changes_the_fingerprint_and_that_part_alone(part, change):
    before, after = made(), made(**change)
    assert after.digest != before.digest
    assert {name for name in PARTS if before.parts[name] != after.parts[name]} == {part}


def test_every_part_has_a_change_that_is_tested():
    assert {part for part, _ in CHANGES} == set(PARTS)


def test_a_tile_less_is_another_fingerprint_and_no_other_label_or_split():
    before, after = made(), made(rows=rows_of(case("a"), case("b"))[1:])
    assert {name for name in PARTS if before.parts[name] != after.parts[name]} == {"tiles"}


def test_labels_of_tiles_that_differ_within_a_case_belong_to_their_tiles():
    rows = rows_of(case("a"), case("b"))
    first, second = (
        [{**row, "her2_score": "3+" if n == which else "0"} for n, row in enumerate(rows)] for which in (0, 1)
    )
    assert made(rows=first).parts["labels"] != made(rows=second).parts["labels"]


def test_the_order_of_rows_and_cases_is_no_part_of_it():
    cases = [case("a"), case("b")]
    assert made(rows=rows_of(*cases)[::-1], cases=cases[::-1]) == made()


def test_a_case_without_a_tile_in_the_index_is_no_part_of_it():
    lost = case("c", status=failed("tissue", "empty"), tiles=[], keep={})
    assert made(cases=[case("a"), case("b"), lost]) == made()


def test_columns_that_change_no_tile_are_no_part_of_it():
    assert made(**with_first(he_reader="direct", alignment="weak", measurements={"blur": 1.0})) == made()


def test_the_parts_follow_from_what_stands_beside_them():
    whole = made(curation={"digest": "d", "rule": "either"})
    assert whole.recomputed() == whole.parts
    assert Fingerprint.model_validate_json(whole.model_dump_json()) == whole
    forged = whole.model_copy(update={"splits": "0"})
    assert forged.recomputed()["splits"] != forged.parts["splits"]


def test_a_section_can_be_read_from_it_by_case_and_stage():
    assert made().section("a", "tiles") == {"mpp": 0.5}
    assert made().section("a", "unknown") == {}


def test_a_card_holds_what_its_fingerprint_is_made_of(tmp_path):
    _, card = assemble("set", [case("a"), case("b")], SplitsSpec())
    write_card(tmp_path / "dataset.json", card)
    read = read_card(tmp_path / "dataset.json")
    assert read.made_of is not None
    assert read.made_of.digest == read.fingerprint
    assert sorted(read.made_of.cases) == ["a", "b"]


def test_several_versions_in_one_data_set_are_named():
    old = case("b", versions={"tiles": "0.9", "verdict": "1.0"})
    _, card = assemble("set", [case("a"), old], SplitsSpec())
    assert "tiles: made by several versions of hepipe: 0.9 in b; 1.0 in a" in card.warnings
    assert not [line for line in card.warnings if line.startswith("verdict:")]
