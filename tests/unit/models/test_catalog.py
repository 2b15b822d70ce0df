import subprocess
import sys

import pytest

from hepipe.config import load_config
from hepipe.errors import ConfigError
from hepipe.models.catalog import catalog, check_run, read_entry, runs_needed

ZOO_FILE = '''"""A model.

More of it.
"""
PAIRING = "unpaired"
NEEDS: dict[str, tuple[str, ...]] = {"*": ("score",), "cd": ("dab_mask",)}
PARTS = {"*": {"encoder": "weights:resnet50?"}, "cd": {"teacher": "run~"}}
SIZE = {"*": {"multiple": 16}, "tiny": {"multiple": 4}}
STREAMS = {"loose": ("ihc", 2)}
PRESETS = {"paper": Config(), "cd": Config(x=1), "tiny": make()}
'''


def config(runs, **sections):
    return load_config({"datasets": {"d": {"synth": {}}}, "runs": runs, **sections})


def test_a_file_is_read_without_running_it(tmp_path):
    path = tmp_path / "some_model.py"
    path.write_text(ZOO_FILE)
    entry = read_entry(path)
    assert (entry.name, entry.title, entry.pairing) == ("some_model", "A model.", "unpaired")
    assert entry.presets == ("paper", "cd", "tiny")
    assert entry.needs_of("paper") == ("score",)
    assert entry.needs_of("cd") == ("score", "dab_mask")
    teacher, encoder = entry.parts_of("cd")["teacher"], entry.parts_of("paper")["encoder"]
    assert (teacher.kind, teacher.training_only, teacher.optional) == ("run", True, False)
    assert (encoder.kind, encoder.role, encoder.training_only, encoder.optional) == ("weights", "resnet50", False, True)
    assert entry.streams == {"loose": ("ihc", 2)}
    assert [entry.takes(side, "paper") for side in (32, 40)] == [True, False]
    assert [entry.largest(side, "paper") for side in (40, 8)] == [32, 0]
    assert (entry.takes(40, "tiny"), entry.size_in_words("tiny")) == (True, "multiples of 4 px")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('PAIRING = "unpaired"', "", "its file states no PAIRING"),
        ('PAIRING = "unpaired"', 'PAIRING = "sideways"', "PAIRING is 'sideways'"),
        ('{"*": {"multiple": 16}, "tiny": {"multiple": 4}}', "size()", "SIZE must be a plain literal"),
        ('{"multiple": 16}', '{"about": 16}', "multiple or exact expected"),
        ('"*": {"multiple": 16}, ', "", "multiple or exact expected"),
        ('{"paper": Config(), ', "{**others, ", "PRESETS must be a dict with plain names"),
    ],
)
def test_a_file_that_does_not_state_what_it_must_is_named(tmp_path, old, new, text):
    path = tmp_path / "odd.py"
    path.write_text(ZOO_FILE.replace(old, new))
    with pytest.raises(ConfigError, match=f"model odd: .*{text}|{text}"):
        read_entry(path)


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ({"model": "pix3pix"}, r"runs\.r\.model: no model 'pix3pix'; there are .*identity"),
        ({"model": "pixel_map", "preset": "huge"}, r"runs\.r\.preset: pixel_map has no preset 'huge'; it has paper"),
        ({"model": "pixel_map", "parts": {"teacher": "r"}}, r"runs\.r\.parts\.teacher: .* no such part; it takes none"),
        ({"model": "pixel_map", "training": {"crop_px": 1000}}, r"runs\.r\.training\.crop_px: 1000 px wanted, .* 512"),
        ({"model": "pixel_map", "training": {"mpp": 0.1}}, r"runs\.r\.training\.mpp: 0\.1 is finer than the 0\.5"),
    ],
)
def test_a_run_that_cannot_work_names_its_key(run, text):
    with pytest.raises(ConfigError, match=text):
        check_run(config({"r": {"dataset": "d", **run}}), "r")


def test_parts_must_name_runs_that_come_before(tmp_path, monkeypatch):
    path = tmp_path / "some_model.py"
    path.write_text(ZOO_FILE)
    monkeypatch.setattr("hepipe.models.catalog.catalog", lambda: {"some_model": read_entry(path)})
    student = {"model": "some_model", "preset": "cd", "dataset": "d"}
    teacher = {"model": "some_model", "preset": "paper", "dataset": "d"}
    good = config({"s": {**student, "parts": {"teacher": "t"}}, "t": teacher})
    check_run(good, "s")
    assert runs_needed(good, "s") == {"teacher": "t"}
    with pytest.raises(ConfigError, match=r"runs\.s\.parts\.teacher: missing; name the run"):
        check_run(config({"s": student}), "s")
    with pytest.raises(ConfigError, match=r"runs\.s\.parts\.teacher: no run 'x'; there are s"):
        check_run(config({"s": {**student, "parts": {"teacher": "x"}}}), "s")
    with pytest.raises(ConfigError, match=r"runs\.s\.parts\.teacher: run s itself depends on s"):
        check_run(config({"s": {**student, "parts": {"teacher": "s"}}}), "s")


def test_crops_and_prediction_tiles_must_suit_the_model(tmp_path, monkeypatch):
    path = tmp_path / "some_model.py"
    path.write_text(ZOO_FILE)
    monkeypatch.setattr("hepipe.models.catalog.catalog", lambda: {"some_model": read_entry(path)})
    run = {"model": "some_model", "dataset": "d", "training": {"crop_px": 100}}
    with pytest.raises(ConfigError, match=r"runs\.r\.training\.crop_px: 100 px, .* multiples of 16 px"):
        check_run(config({"r": run}), "r")
    run = {"model": "some_model", "dataset": "d"}
    with pytest.raises(
        ConfigError, match=r"evaluation\.tile_px: 100 px, but some_model paper of run r takes multiples of 16"
    ):
        check_run(config({"r": run}, evaluation={"tile_px": 100}), "r")


def test_the_catalog_needs_neither_torch_nor_a_reader():
    code = (
        "import sys; from hepipe.models.catalog import catalog; assert len(catalog()) >= 3; "
        "print([name for name in ('torch', 'zarr', 'openslide', 'tifffile', 'cv2') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_every_model_has_the_presets_that_all_must_have():
    for entry in catalog().values():
        assert {"paper", "small", "tiny"} <= set(entry.presets), entry.name
        assert entry.title, entry.name
