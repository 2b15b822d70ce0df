import base64
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import typer
import zarr
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from hepipe.cli import slides
from hepipe.slides.deid import private_words, scan

app = typer.Typer()
slides.register(app)


def write_row(results: Path, *, he: str, case_id: str = "C1", patient_id: str = "P1") -> None:
    row = {
        "case_id": case_id, "patient_id": patient_id, "he": he, "ihc": "/clinic/DOE_JANE/S19-777-HER2.svs",
        "marker": "HER2", "her2_score": None, "section": "restained",
    }  # fmt: skip
    path = results / "private/ds" / case_id / "row.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    write_row(results, he="/clinic/DOE_JANE/S19-777.svs")
    (results / "ds/checked").mkdir(parents=True)
    (results / "ds/checked/C1.json").write_text('{"case_id": "C1", "format": "aperio", "mpp": 0.5, "marker": "HER2"}')
    return results


def found(results: Path) -> list[str]:
    words = private_words(results / "private", results=results)
    return [f"{finding.file}: {finding.what}" for finding in scan(results, words=words, skip=results / "private")]


def test_clean_results_pass(results: Path):
    assert found(results) == []


def test_a_name_in_any_text_is_found_and_not_repeated(results: Path):
    (results / "report.html").write_text("<p>from S19-777.svs</p>")
    (results / "status.tsv").write_text("C1\tfailed\tcannot open /clinic/DOE_JANE/S19-777.svs\n")
    (results / "odd.txt").write_text("patient doe_jane was here")
    assert found(results) == [
        "odd.txt: folder of the he file of case C1 (text)",
        "report.html: name of the he file of case C1 (text)",
        "status.tsv: path of the he file of case C1 (text)",
    ]


def test_a_name_in_a_file_name_or_folder_is_found(results: Path):
    (results / "ds/S19-777").mkdir()
    (results / "ds/S19-777/tile.json").write_text("{}")
    assert found(results) == ["ds/S19-777/tile.json: name of the he file of case C1 (in its own name)"]


def test_tables_are_read_in_columns_and_metadata(results: Path):
    table = pa.table({"tile_id": ["a", "S19-777/3"], "x": [1, 2]}).replace_schema_metadata({"hepipe": "DOE_JANE"})
    pq.write_table(table, results / "index.parquet")
    assert [line.split("(")[1] for line in found(results)] == ["metadata hepipe)", "column tile_id)"]


def test_zarr_attributes_are_read_and_pixels_are_not(results: Path):
    group = zarr.open_group(results / "tiles.zarr", mode="w", zarr_format=3)
    group.create_array("he", shape=(4,), chunks=(4,), dtype="uint8")[:] = 1
    assert found(results) == []
    group.attrs["source"] = "S19-777"
    assert found(results) == ["tiles.zarr/zarr.json: name of the he file of case C1 (text)"]


def test_pictures_give_away_their_metadata(results: Path):
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    text = PngInfo()
    text.add_text("Comment", "S19-777", zip=True)
    picture.save(results / "a.png", pnginfo=text)
    exif = Image.Exif()
    exif[306] = "2019:03:04 05:06:07"
    exif[315] = "DOE_JANE"
    picture.save(results / "b.jpg", exif=exif)
    tifffile.imwrite(
        results / "c.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb", metadata=None,
        description="Aperio Image Library v12|ScanScope ID = 1", datetime="2019:03:04 05:06:07",
    )  # fmt: skip
    assert found(results) == [
        "a.png: name of the he file of case C1 (metadata Comment)",
        "b.jpg: a date (tag DateTime)",
        "b.jpg: folder of the he file of case C1 (tag Artist)",
        "c.tif: a key of a scanner's metadata (tag ImageDescription)",
        "c.tif: a date (tag DateTime)",
    ]


def test_pictures_inside_a_page_are_opened(results: Path):
    exif = Image.Exif()
    exif[270] = "S19-777"
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    page = f'<img src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    (results / "report.html").write_text(page)
    assert found(results) == ["report.html: name of the he file of case C1 (picture 1, tag ImageDescription)"]


@pytest.mark.parametrize("path", ["/home/anna/x.py", "/mnt/slides/a", r"C:\Users\anna\x", "/scratch/u1/results"])
def test_absolute_paths_are_found(results: Path, path: str):
    (results / "log.txt").write_text(f"saved to {path}\n")
    assert found(results) == ["log.txt: an absolute path (text)"]


@pytest.mark.parametrize("text", ["see https://example.org/home/page", "</tmp/>", "a/data/b", '"format": "aperio"'])
def test_ordinary_text_is_not_taken_for_a_path_or_a_key(results: Path, text: str):
    (results / "log.txt").write_text(text)
    assert found(results) == []


def test_a_name_that_the_sheet_made_public_is_no_finding(tmp_path: Path):
    write_row(tmp_path, he="/clinic/block/CASE-17.svs", case_id="CASE-17")
    (tmp_path / "status.tsv").write_text("CASE-17\tok\n")
    assert found(tmp_path) == []


def test_a_short_name_is_no_finding_but_its_path_is(tmp_path: Path):
    write_row(tmp_path, he="/clinic/block/He.jpg")
    (tmp_path / "he.jpg.txt").write_text("he.jpg, from /clinic/block/He.jpg")
    assert found(tmp_path) == ["he.jpg.txt: path of the he file of case C1 (text)"]


def test_slides_that_lie_in_the_results_are_no_secret(tmp_path: Path):
    write_row(tmp_path, he=str(tmp_path / "synth/demo/s1-001/drawn.tif"))
    (tmp_path / "status.tsv").write_text("drawn.tif\n")
    assert found(tmp_path) == []


def test_the_command_lists_findings_and_exits_1(results: Path):
    clean = CliRunner().invoke(app, ["deid", "check", str(results)])
    assert clean.exit_code == 0, clean.output
    assert "0 finding(s)" in clean.output
    (results / "status.tsv").write_text("S19-777\tMuster\n")
    dirty = CliRunner().invoke(app, ["deid", "check", str(results), "--word", "Muster"])
    assert dirty.exit_code == 1
    assert "status.tsv: name of the he file of case C1" in dirty.output
    assert "status.tsv: a word given with --word" in dirty.output
