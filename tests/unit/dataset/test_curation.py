"""Decisions of people: their file, what they do to a data set, and what no longer matches."""

from dataclasses import replace

import pytest

from hepipe.config import decision_files, load_config
from hepipe.dataset import decisions as module
from hepipe.dataset.cases import CaseTiles
from hepipe.dataset.curation import Curated, combined, content_id, curate, effects_text
from hepipe.dataset.decisions import Decision, csv_text, read_decisions, write_decisions
from hepipe.dataset.index import assemble
from hepipe.errors import ConfigError
from hepipe.specs.dataset import CurationSpec, SplitsSpec
from hepipe.status import OK

HEAD = "content_id,tile_id,decision,reason,reader,time\n"


def tile(tile_id, pixels=None):
    case_id = tile_id.split("/")[0]
    return {"tile_id": tile_id, "case_id": case_id, "he_sha256": pixels or f"h{tile_id}", "ihc_sha256": "i"}


def case(name, count, *, drop=()):
    tiles = [tile(f"{name}/{n}") for n in range(count)]
    keep = {row["tile_id"]: n not in drop for n, row in enumerate(tiles)}
    return CaseTiles(name, f"p{name}", "0", None, tiles, keep, OK, {}, "t")


def decided(tile_id, choice="drop", reason="", **changes):
    return replace(Decision(content_id(tile(tile_id)), tile_id, choice, reason, "ann", ""), **changes)


def file_of(folder, *decisions, name="a.csv"):
    write_decisions(folder / name, decisions)
    return read_decisions(folder / name)


def test_a_content_id_is_of_both_stains_and_of_nothing_else():
    one = content_id(tile("a/0", "x"))
    assert one == content_id({**tile("b/7", "x"), "her2_score": "3+"})
    assert len(one) == 32
    assert one != content_id({**tile("a/0", "x"), "ihc_sha256": "j"})
    with pytest.raises(ValueError, match="no pixels"):
        content_id({**tile("a/0"), "he_sha256": None})


def test_decisions_read_back_as_they_were_written(tmp_path):
    rows = (decided("a/0", reason="out of focus", time="2025-03-31T14:05:00Z"), decided('x/ä "1", 2', "keep"))
    assert tuple(file_of(tmp_path, *rows).decisions.values()) == rows


def test_a_spreadsheets_semicolons_mark_and_further_columns_are_read(tmp_path):
    key = content_id(tile("a/0"))
    text = f"﻿note;content_id;tile_id;decision;reason\r\nmine;{key};a/0;drop;pen\r\n;;;;\r\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    assert list(read_decisions(tmp_path / "a.csv").decisions.values()) == [Decision(key, "a/0", "drop", "pen")]


def test_of_two_rows_on_a_pair_the_last_counts_and_contradictions_are_told(tmp_path):
    file = file_of(tmp_path, decided("a/0"), decided("a/1"), decided("a/1", reason="pen"), decided("a/0", "keep"))
    assert [(one.tile_id, one.decision) for one in file.decisions.values()] == [("a/0", "keep"), ("a/1", "drop")]
    assert file.contradicted == (content_id(tile("a/0")),)
    assert file.repeated == 1
    _, curated = curate([case("a", 2)], [file], CurationSpec())
    assert "1 pairs are decided twice and differently, the last row counts: a/0" in curated.warnings[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "column content_id, tile_id, decision, reason is missing; found nothing"),
        ("tile,verdict\n", "column content_id, tile_id, decision, reason is missing; found tile, verdict"),
        (HEAD + "abc,t,drop,,,\n", "line 2, column content_id: 'abc' found, 32 hexadecimal digits expected"),
        (HEAD + "1.23E+31,t,drop,,,\n", "a spreadsheet has made a number of it"),
        (HEAD + f"{'0' * 32},t,maybe,,,\n", "line 2, column decision: 'maybe' found, keep or drop expected"),
        (HEAD + f"{'0' * 32},t,drop,=cmd(),,\n", "line 2, column reason: '=cmd()' found"),
        (HEAD + f"{'0' * 32},t,drop,,<b>,\n", "line 2, column reader: '<b>' found"),
        (HEAD + f"{'0' * 32},t,drop,,,soon\n", "line 2, column time: 'soon' found"),
        (HEAD + f"{'0' * 32},,drop,,,\n", "line 2, column tile_id: '' found"),
        (HEAD + f"{'0' * 32},t,drop\n", "line 2: 6 columns expected, 3 found"),
        (HEAD + f'{"0" * 32},"{"x" * 200_000}",drop,,,\n', "field larger than field limit"),
        (HEAD + "abc,t,drop,,,\n" * 40, "further problems follow"),
    ],
)
def test_a_bad_file_is_refused_with_its_line_what_was_found_and_what_was_expected(tmp_path, text, said):
    (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_decisions(tmp_path / "bad.csv")
    assert said in str(raised.value)
    assert str(raised.value).startswith("decisions bad.csv:")


def test_what_is_no_text_no_file_or_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe" + HEAD.encode("utf-16-le"))
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_decisions(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="No such file"):
        read_decisions(tmp_path / "none.csv")
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="more than 0 MB"):
        read_decisions(tmp_path / "a.csv")


def test_a_drop_removes_a_kept_tile_and_a_keep_changes_no_filter(tmp_path):
    file = file_of(
        tmp_path, decided("a/0", reason="pen"), decided("a/1", "keep"), decided("a/2", "keep"), decided("a/3")
    )
    cases, curated = curate([case("a", 5, drop=(2, 3))], [file], CurationSpec())
    assert cases[0].keep == {"a/0": False, "a/1": True, "a/2": False, "a/3": False, "a/4": True}
    assert [one.effect for one in curated.applied] == ["dropped", "kept", "not brought back", "dropped already"]
    card = curated.card
    assert (card.n_dropped, card.by_reason, card.by_case) == (1, {"curation:pen": 1}, {"a": 1})
    assert "keep_overrides" in curated.warnings[0]


def test_a_keep_brings_a_tile_back_where_the_config_allows_it(tmp_path):
    file = file_of(tmp_path, decided("a/2", "keep"))
    cases, curated = curate([case("a", 4, drop=(2, 3))], [file], CurationSpec(keep_overrides=True))
    assert [name for name, keep in cases[0].keep.items() if keep] == ["a/0", "a/1", "a/2"]
    assert (curated.applied[0].effect, curated.card.n_brought_back) == ("brought back", 1)


def test_a_keep_never_brings_back_what_an_import_left_out(tmp_path):
    file = file_of(tmp_path, decided("a/1", "keep"), decided("a/2", "keep"))
    left = case("a", 3, drop=(1, 2))
    left.tiles[1]["problem"] = "worst aligned"
    cases, curated = curate([left], [file], CurationSpec(keep_overrides=True))
    assert cases[0].keep == {"a/0": True, "a/1": False, "a/2": True}
    assert curated.warnings == ("1 tiles that a person keeps are left out by their import and stay so",)


def test_a_strangers_tile_id_is_never_a_formula_of_a_table_further_on(tmp_path):
    row = f"{content_id(tile('a/0'))},=HYPERLINK(1),drop,,,"
    (tmp_path / "a.csv").write_text(HEAD + row + "\n")
    with pytest.raises(ConfigError, match=r"line 2, column tile_id: '=HYPERLINK"):
        read_decisions(tmp_path / "a.csv")


def test_decisions_follow_pixels_through_new_names_and_reach_all_that_look_the_same(tmp_path):
    before = tile("a/0", "same")
    file = file_of(tmp_path, decided("a/0", content_id=content_id(before)))
    new = case("b", 3)
    for row in new.tiles[1:]:
        row["he_sha256"] = "same"
    cases, curated = curate([new], [file], CurationSpec())
    assert [one.tile_id for one in curated.applied] == ["b/1", "b/2"]
    assert cases[0].keep == {"b/0": True, "b/1": False, "b/2": False}


def test_decisions_without_a_tile_are_listed_as_changed_or_gone(tmp_path):
    file = file_of(tmp_path, decided("a/0"), decided("a/1", content_id="0" * 32), decided("z/9"))
    _, curated = curate([case("a", 3)], [file], CurationSpec())
    assert {one.tile_id: one.effect for one in curated.applied} == {"a/0": "dropped", "a/1": "changed", "z/9": "gone"}
    assert curated.warnings == (
        "2 of 3 decisions match no tile: 1 tiles have other pixels now, 1 are gone; curated.csv lists them",
    )
    assert effects_text(curated.applied).splitlines()[2] == f"{'0' * 32},a/1,drop,,changed"


def test_a_file_of_another_data_set_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"none of its 2 decisions .* such as 'q/1': is it the file of another"):
        curate([case("a", 3)], [file_of(tmp_path, decided("q/1"), decided("q/2"))], CurationSpec())
    cut_anew = file_of(tmp_path, decided("a/0", content_id="0" * 32))
    with pytest.raises(ConfigError, match=r"1 of its tile ids are there, with other pixels"):
        curate([case("a", 3)], [cut_anew], CurationSpec())


def test_readers_are_combined_by_the_rule():
    one = [decided("a/0"), decided("a/1", "keep"), decided("a/2"), decided("a/4", "keep")]
    two = [decided("a/0", reason="pen"), decided("a/1"), decided("a/2", "keep"), decided("a/3")]
    assert {rule: _said(combined([one, two], rule)) for rule in ("either", "agreed", "first")} == {
        "either": {"a/0": "drop", "a/1": "drop", "a/2": "drop", "a/3": "drop", "a/4": "keep"},
        "agreed": {"a/0": "drop"},
        "first": {"a/0": "drop", "a/1": "keep", "a/2": "drop", "a/3": "drop", "a/4": "keep"},
    }
    assert combined([one, two], "agreed")[content_id(tile("a/0"))].reason == "pen"


def _said(found):
    return {one.tile_id: one.decision for one in found.values()}


def test_who_decided_and_when_is_no_part_of_the_digest(tmp_path):
    cards = [
        curate([case("a", 3)], [file_of(tmp_path, *rows)], CurationSpec())[1].card
        for rows in (
            [decided("a/0"), decided("a/1")],
            [decided("a/1", reader="bob", time="2025-01-01"), decided("a/0")],
            [decided("a/0", reason="pen"), decided("a/1")],
        )
    ]
    assert cards[0].digest == cards[1].digest != cards[2].digest


def test_without_files_nothing_changes():
    cases = [case("a", 2)]
    assert curate(cases, [], CurationSpec()) == (cases, Curated())


def test_the_text_of_a_file_is_the_same_for_the_same_decisions():
    assert csv_text([decided("a/0")]) == HEAD + f"{content_id(tile('a/0'))},a/0,drop,,ann,\n"


def test_a_data_set_is_assembled_without_what_a_person_dropped_and_its_card_and_fingerprint_say_so(tmp_path):
    def assembled(*files):
        tiles = [{**tile(f"a/{n}"), "her2_score": "0", "region": "", "place": "inside"} for n in range(4)]
        for row in tiles:
            row |= {"patient_id": "pa", "source_split": None}
        keep = {row["tile_id"]: True for row in tiles}
        whole = CaseTiles("a", "pa", "0", None, tiles, keep, OK, {}, "t", alignment=dict.fromkeys(keep, "aligned"))
        cases, curated = curate([whole], files, CurationSpec())
        return assemble("set", cases, SplitsSpec(), curated=curated)

    rows, card = assembled(file_of(tmp_path, decided("a/1", reason="pen"), decided("q/9")))
    assert [row["tile_id"] for row in rows] == ["a/0", "a/2", "a/3"]
    assert (card.n_tiles, card.n_kept, card.curation.n_dropped, card.curation.n_gone) == (4, 3, 1, 1)
    assert any("1 of 2 decisions match no tile" in warning for warning in card.warnings)
    # A decision that changes no tile changes the fingerprint too: it is an input.
    digests = [assembled()[1].fingerprint, card.fingerprint]
    digests += [assembled(file_of(tmp_path, decided("a/1", reason="pen"), decided("a/0", "keep")))[1].fingerprint]
    assert len(set(digests)) == 3
    assert assembled()[1].curation is None


def test_a_file_of_decisions_that_the_config_names_must_be_there(tmp_path):
    def named(*decisions):
        own = {"synth": {"patients": 4}, "curation": {"decisions": list(decisions)}}
        return load_config({"datasets": {"set": own}})

    (tmp_path / "a.csv").touch()
    assert decision_files(named(str(tmp_path / "a.csv")), "set") == [tmp_path / "a.csv"]
    assert decision_files(named(), "set") == []
    with pytest.raises(ConfigError, match=r"datasets.set.curation.decisions: no file .*none.csv; make it with"):
        decision_files(named(str(tmp_path / "none.csv")), "set")
