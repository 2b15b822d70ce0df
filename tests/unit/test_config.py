import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hepipe.config import Config, case_rows, load_config, pseudonym, synth_rows, transforms_folder
from hepipe.errors import ConfigError

DEMO: dict[str, Any] = {"datasets": {"demo": {"synth": {"patients": 4, "seed": 3}}}}


def problems(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(raw)
    first, *lines = str(caught.value).splitlines()
    assert first == "config:"
    return [line.strip() for line in lines]


def test_defaults_fill_every_section():
    config = load_config(DEMO)
    assert config.datasets["demo"].sections.tiling.tile_px == 512
    assert isinstance(config, Config)


def test_a_data_set_overrides_a_section_key_by_key():
    raw = {"tiling": {"mpp": 1.0, "tile_px": 256}, "datasets": {"demo": {**DEMO["datasets"]["demo"]}}}
    raw["datasets"]["demo"]["tiling"] = {"tile_px": 128}
    tiling = load_config(raw).datasets["demo"].sections.tiling
    assert (tiling.mpp, tiling.tile_px) == (1.0, 128)


def test_a_run_overrides_the_training_key_by_key():
    raw = DEMO | {"training": {"n_steps": 7, "batch_size": 2}}
    raw["runs"] = {"a": {"model": "identity", "dataset": "demo", "training": {"batch_size": 3}}}
    training = load_config(raw).runs["a"].training
    assert (training.n_steps, training.batch_size) == (7, 3)


def test_a_typo_in_a_shared_section_is_told_once_with_its_path():
    raw = {"tiling": {"tile_pxx": 256}, "datasets": {"a": DEMO["datasets"]["demo"], "b": DEMO["datasets"]["demo"]}}
    assert problems(raw) == ["tiling.tile_pxx: Extra inputs are not permitted"]


def test_a_typo_in_the_shared_training_is_told_once_with_its_path():
    raw = DEMO | {"training": {"steps": 10}, "runs": {"a": {"model": "identity", "dataset": "demo"}}}
    assert problems(raw) == ["training.steps: Extra inputs are not permitted"]


def test_every_problem_is_told_at_once():
    raw = {
        "tiling": {"mpp": -1},
        "tilling": {},
        "datasets": {"demo": {"synth": {"patience": 4}, "stains": {"vectors": "guess"}}},
        "runs": {"a": {"model": "identity", "dataset": "demo", "training": {"n_steps": 0}}},
    }
    paths = [line.split(":")[0] for line in problems(raw)]
    assert paths == [
        "tiling.mpp",
        "datasets.demo.synth.patience",
        "datasets.demo.stains.vectors",
        "runs.a.training.n_steps",
        "tilling",
    ]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({}, "datasets: Dictionary should have at least 1 item after validation, not 0"),
        ({"datasets": []}, "datasets: a mapping expected, found list"),
        ({"datasets": {"a": None}}, "datasets.a: a mapping expected, found NoneType"),
        ({"datasets": {"a": {}}}, "datasets.a: give exactly one of sheet, synth, import"),
        (
            {"datasets": {"a": {"import": {"kind": "folder", "path": "p", "mpp": 0.5}, "transforms": "t"}}},
            "datasets.a: transforms goes with a sheet or synth: the tiles of an import are registered already",
        ),
        ({"datasets": {"a": {"synth": {}, "sheet": "s.tsv"}}}, "datasets.a: give exactly one of sheet, synth, import"),
        ({"datasets": {"a/b": {"synth": {}}}}, "name 'a/b': letters, digits, '_', '-' expected"),
        (
            {**DEMO, "tiling": {"tile_px": 64, "overlap_px": 64}},
            "tiling: overlap_px (64) must be smaller than tile_px (64), or neighbouring tiles never advance",
        ),
        (
            {**DEMO, "runs": {"r": {"model": "identity", "dataset": "dmo"}}},
            "runs.r: no data set 'dmo'; there are demo",
        ),
    ],
)
def test_a_mistake_is_named_by_the_path_of_its_key(raw: dict[str, Any], problem: str):
    assert problems(raw) == [problem]


def test_a_run_is_evaluated_on_the_test_split_of_its_own_data_set_unless_told():
    raw = DEMO | {"runs": {"a": {"model": "identity", "dataset": "demo"}}}
    assert load_config(raw).targets("a") == (("demo", "test"),)
    raw["runs"]["a"]["test_on"] = {"demo": "val"}
    assert load_config(raw).targets("a") == (("demo", "val"),)


def test_synthetic_case_ids_follow_from_the_seed():
    spec = load_config(DEMO).datasets["demo"].synth
    assert spec is not None
    rows = list(synth_rows(spec, Path("x")))
    assert [row.case_id for row in rows] == ["s3-001", "s3-002", "s3-003", "s3-004"]
    assert [row.her2_score for row in rows] == ["0", "1+", "2+", "3+"]


def test_pseudonyms_replace_the_ids_of_the_sheet(tmp_path: Path):
    (tmp_path / "slides.tsv").write_text(
        "case_id\tpatient_id\the\tihc\tmarker\ther2_score\tsection\nDOE-1\tDOE\ta.svs\tb.svs\tHER2\t2+\trestained\n"
    )
    raw = {"datasets": {"a": {"sheet": str(tmp_path / "slides.tsv")}}, "pseudonyms": "secret"}
    (row,) = case_rows(load_config(raw), "a")
    assert row.case_id == pseudonym("secret", "DOE-1", "C")
    assert row.patient_id.startswith("P")
    assert "DOE" not in row.case_id + row.patient_id
    assert pseudonym("other", "DOE-1", "C") != row.case_id


def test_stored_transforms_are_taken_from_a_folder_that_holds_some(tmp_path: Path):
    config = load_config(
        {"data": str(tmp_path), "datasets": {"a": {"synth": {}, "transforms": "set"}, "b": {"synth": {}}}}
    )
    assert transforms_folder(config, "b") is None
    with pytest.raises(ConfigError, match=r"datasets.a.transforms: .* has no folder `registered`"):
        transforms_folder(config, "a")
    (tmp_path / "set/registered").mkdir(parents=True)
    assert transforms_folder(config, "a") == tmp_path / "set"


def test_the_config_is_light_to_import():
    code = "import sys, hepipe.config; print([m for m in ('torch', 'zarr', 'openslide') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
