from pathlib import Path

import pytest
from pydantic import ValidationError

from hepipe.errors import ConfigError
from hepipe.sheet import CaseRow, read_sheet

HEADER = "case_id\tpatient_id\the\tihc\tmarker\ther2_score\tsection"
ROW = "C1\tP1\the.svs\tihc.svs\tHER2\t2+\trestained"


def read(folder: Path, *lines: str, extra: str = "") -> list[CaseRow]:
    (folder / "slides.tsv").write_text("\n".join([HEADER + extra, *lines]) + "\n", encoding="utf-8")
    return read_sheet(folder / "slides.tsv")


def errors(folder: Path, *lines: str, extra: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, *lines, extra=extra)
    return str(caught.value)


def test_paths_become_absolute_from_the_sheets_folder(tmp_path: Path):
    (row,) = read(tmp_path, ROW)
    assert row.he == str(tmp_path / "he.svs")
    assert (row.case_id, row.her2_score, row.mpp_he) == ("C1", "2+", None)


def test_paths_may_be_relative_to_another_folder(tmp_path: Path):
    read(tmp_path, ROW)
    (row,) = read_sheet(tmp_path / "slides.tsv", Path("/scans"))
    assert row.ihc == "/scans/ihc.svs"


def test_both_files_of_landmarks_become_absolute(tmp_path: Path):
    (row,) = read(tmp_path, ROW + "\ta.csv;b.csv", extra="\tlandmarks")
    assert row.landmarks == f"{tmp_path / 'a.csv'};{tmp_path / 'b.csv'}"


def test_empty_cells_and_empty_lines_are_nothing(tmp_path: Path):
    (row,) = read(tmp_path, "C1\tP1\the.svs\tihc.svs\tHER2\t\trestained\t", "", extra="\tmpp_he")
    assert (row.her2_score, row.mpp_he) == (None, None)


def test_a_pixel_size_may_be_unknown(tmp_path: Path):
    (row,) = read(tmp_path, ROW + "\tunknown\t0.25", extra="\tmpp_he\tmpp_ihc")
    assert (row.mpp_he, row.mpp_ihc) == ("unknown", 0.25)


def test_a_sheet_of_a_spreadsheet_program_is_read(tmp_path: Path):
    (tmp_path / "slides.tsv").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{ROW}\r\n".encode())
    assert len(read_sheet(tmp_path / "slides.tsv")) == 1


def test_several_ihc_of_one_block_share_the_h_and_e(tmp_path: Path):
    rows = read(tmp_path, ROW, "C2\tP1\the.svs\tki67.svs\tKi67\t\tconsecutive")
    assert len({row.he for row in rows}) == 1


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({0: "C 1"}, "row 2, column case_id: 1 to 64 letters, digits, '_', '.', '-' expected"),
        ({0: "imported"}, "row 2, column case_id: this name stands for imported tiles; choose another"),
        ({0: ""}, "row 2, column case_id: empty, a value is required"),
        ({2: ""}, "row 2, column he: empty, a value is required"),
        ({5: "4+"}, "row 2, column her2_score: Input should be '0', '1+', '2+' or '3+' (found '4+')"),
        ({6: "same"}, "row 2, column section: Input should be 'restained' or 'consecutive' (found 'same')"),
        ({7: "1000"}, "row 2, column mpp_he: 0.05 to 20.0 µm per px or the word unknown expected (found '1000')"),
        ({7: "0,5"}, "row 2, column mpp_he: 0.05 to 20.0 µm per px or the word unknown expected (found '0,5')"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(tmp_path: Path, cells: dict[int, str], problem: str):
    values = [*ROW.split("\t"), "0.5"]
    for index, value in cells.items():
        values[index] = value
    assert problem in errors(tmp_path, "\t".join(values), extra="\tmpp_he")


def test_every_bad_row_is_told_at_once(tmp_path: Path):
    message = errors(tmp_path, ROW.replace("2+", "9"), ROW.replace("restained", "x"))
    assert "row 2, column her2_score" in message
    assert "row 3, column section" in message


def test_a_repeated_case_names_both_rows(tmp_path: Path):
    assert "row 3, column case_id: C1 stands in row 2 already" in errors(tmp_path, ROW, ROW)


def test_a_patient_is_in_one_split(tmp_path: Path):
    message = errors(tmp_path, ROW + "\ttrain", ROW.replace("C1", "C2") + "\ttest", extra="\tsplit")
    assert "row 3, column split: test, but patient P1 is in train by row 2; a patient is in one split" in message


def test_a_row_of_another_length_is_told(tmp_path: Path):
    assert "row 2: 7 columns expected, another number found" in errors(tmp_path, "C1\tP1")
    assert "row 2: 7 columns expected, another number found" in errors(tmp_path, ROW + "\tmore")


def test_missing_and_unknown_columns_are_told(tmp_path: Path):
    (tmp_path / "slides.tsv").write_text(HEADER.replace("\tsection", "\tsecton") + "\n" + ROW)
    with pytest.raises(ConfigError, match="column section is missing; column 'secton' is not known"):
        read_sheet(tmp_path / "slides.tsv")


def test_no_sheet_no_text_and_no_rows_are_errors(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        read_sheet(tmp_path / "none.tsv")
    (tmp_path / "a.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_sheet(tmp_path / "a.tsv")
    assert "no rows" in errors(tmp_path)


@pytest.mark.parametrize(
    ("first", "again", "disagree"), [("2+", "1+", True), ("2+", "2+", False), ("2+", "", False), ("", "2+", False)]
)
def test_scores_disagree_only_where_both_are_given(tmp_path: Path, first: str, again: str, disagree: bool):
    (row,) = read(tmp_path, ROW.replace("2+", first) + f"\t{again}", extra="\ther2_score_restained")
    assert row.scores_disagree is disagree


def test_every_column_is_documented():
    text = (Path(__file__).parents[2] / "docs/slide-sheet.md").read_text(encoding="utf-8")
    assert [name for name in CaseRow.model_fields if f"| `{name}` |" not in text] == []


def test_a_start_from_landmarks_needs_landmarks():
    row = {"case_id": "a", "patient_id": "p", "he": "a", "ihc": "b", "marker": "HER2", "her2_score": "0"}
    row |= {"section": "restained", "start": "landmarks"}
    with pytest.raises(ValidationError, match="the cell landmarks is empty"):
        CaseRow.model_validate(row)
    assert CaseRow.model_validate({**row, "landmarks": "a.csv"}).start == "landmarks"
