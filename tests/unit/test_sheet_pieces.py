from pathlib import Path

import pytest

from hepipe.errors import ConfigError
from hepipe.sheet import read_piece_roles, read_sheet

HEADER = "case_id\tpatient_id\the\tihc\tmarker\ther2_score\tsection\tpieces"
ROW = "C1\tP1\the.svs\tihc.svs\tHER2\t2+\trestained"


def test_a_cell_names_pieces_by_stain_and_number():
    expected = {("ihc", 3): "control", ("he", 2): "missing", ("ihc", 1): "matched"}
    assert read_piece_roles("ihc3=control, he2=missing, ihc1=matched") == expected
    assert read_piece_roles("ihc3 = control;he2=missing ihc1=matched") == expected
    assert read_piece_roles("") == {}


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("ihc3", "'ihc3' is no piece; write them like ihc3=control, he2=missing"),
        ("er3=control", "'er3=control' is no piece"),
        ("he2=control", "he2=control: a piece of he is matched or missing"),
        ("ihc2=missing", "ihc2=missing: a piece of ihc is matched or control or extra"),
        ("he2=missing, he2=matched", "he2 is named twice"),
    ],
)
def test_a_cell_that_says_something_else_is_named_by_row_and_column(tmp_path: Path, cell: str, problem: str):
    (tmp_path / "slides.tsv").write_text(f"{HEADER}\n{ROW}\t{cell}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_sheet(tmp_path / "slides.tsv")
    assert f"row 2, column pieces: {problem}" in str(caught.value)


def test_the_cell_stays_as_written(tmp_path: Path):
    (tmp_path / "slides.tsv").write_text(f"{HEADER}\n{ROW}\the1=missing\n", encoding="utf-8")
    (row,) = read_sheet(tmp_path / "slides.tsv")
    assert row.pieces == "he1=missing"
