from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import slides
from hepipe.errors import ConfigError
from hepipe.importers.acrobat import write_acrobat_sheet
from hepipe.sheet import read_sheet

app = typer.Typer()
slides.register(app)

META = """anon_id,set,stain,filename,vendor,model,mpp_lvl_0,magnification_lvl_0
0,train,HE,0_HE_train.tif,Hamamatsu,S360,0.9133,10
0,train,HER2,0_HER2_train.tif,Hamamatsu,S360,0.9136,10
0,train,KI67,0_KI67_train.tif,Hamamatsu,S360,0.9136,10
0,valid,HE,0_HE_val.tif,Hamamatsu,XR,,10
0,valid,HER2,0_HER2_val.tif,Hamamatsu,XR,nan,10
1,train,HE,1_HE_train.tif,Hamamatsu,XR,0.92,10
1,train,ER,1_ER_train.tif,Hamamatsu,XR,0.92,10
2,train,HE,2_HE_train.tif,Hamamatsu,XR,0.92,10
2,train,HER2,2_HER2_train.tif,Hamamatsu,XR,0.92,10
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "meta.csv").write_text(META)
    (tmp_path / "slides/part").mkdir(parents=True)
    for name in ("0_HE_train", "0_HER2_train", "0_HE_val", "0_HER2_val", "1_HE_train", "1_ER_train", "2_HE_train"):
        (tmp_path / f"slides/part/{name}.tif").touch()
    return tmp_path


def test_each_patient_with_both_files_is_a_pair(folder: Path):
    counts = write_acrobat_sheet(folder / "meta.csv", folder / "slides", folder / "sheets/a.tsv", marker="HER2")
    assert counts == (2, 2)
    rows = read_sheet(folder / "sheets/a.tsv")
    assert [row.case_id for row in rows] == ["train-0-HER2", "valid-0-HER2"]
    assert [row.patient_id for row in rows] == ["train-0", "valid-0"]
    assert Path(rows[0].he).samefile(folder / "slides/part/0_HE_train.tif")
    assert (rows[0].mpp_he, rows[0].mpp_ihc, rows[1].mpp_he, rows[1].mpp_ihc) == (0.9133, 0.9136, None, None)
    assert {row.section for row in rows} == {"consecutive"}
    assert {row.her2_score for row in rows} == {None}


def test_the_command_says_how_many_were_left_out(folder: Path):
    arguments = ["sheet", "acrobat", str(folder / "meta.csv"), str(folder / "slides"), "--out", str(folder / "a.tsv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "2 pairs; 2 patients have no H&E and HER2 file" in result.output


def test_another_table_or_an_empty_folder_is_an_error(folder: Path):
    with pytest.raises(ConfigError, match="no patient has both an HE and a PGR file"):
        write_acrobat_sheet(folder / "meta.csv", folder / "slides", folder / "a.tsv", marker="PGR")
    (folder / "meta.csv").write_text("id,stain\n1,HE\n")
    with pytest.raises(ConfigError, match="no column anon_id, set, filename"):
        write_acrobat_sheet(folder / "meta.csv", folder / "slides", folder / "a.tsv", marker="HER2")
    assert not (folder / "a.tsv").exists()
