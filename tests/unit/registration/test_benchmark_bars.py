"""The arithmetic behind the table of bars; nothing here is timed."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def load(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, BENCHMARKS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_child_s_cpu_and_exit_are_its_own():
    from bars.child import run

    quiet = run([sys.executable, "-c", "print('first'); print('last')"])
    assert (quiet.status, quiet.last) == (0, "last")
    busy = run([sys.executable, "-c", "import sys; x = bytearray(500_000_000); sum(range(10**7)); sys.exit(3)"])
    assert busy.status == 3
    assert busy.cpu_s > quiet.cpu_s
    assert busy.peak_mb > 480
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        run(["no-such-command"])


def test_a_child_s_peak_is_that_of_its_largest_process_and_not_of_the_one_that_ran_it():
    from bars.child import run

    held = bytearray(300_000_000)
    small = run([sys.executable, "-c", "pass"])
    assert 1 < small.peak_mb < 100
    half = "bytearray(150_000_000)"
    within = run([sys.executable, "-c", f"import subprocess as s, sys; s.run([sys.executable, '-c', '{half}'])"])
    assert 140 < within.peak_mb < 250
    assert len(held) == 300_000_000


def test_errors_are_measured_on_tissue_in_micrometres_of_the_ihc(tmp_path):
    from bars.child import Ran
    from bars.ours import Case, Found, errors_of

    from hepipe.geometry import Transform, translation
    from hepipe.stores.arrays import Registered
    from hepipe.stores.provenance import Provenance

    (tmp_path / "facts.json").write_text(
        json.dumps(
            {"kind": "restained", "seed": 1, "mpp": 0.5, "he_px": [400, 400], "ihc_px": [400, 400], "tissue_mm2": 1}
        )
    )
    truth = zarr.open_group(tmp_path / "truth.zarr", mode="w")
    tissue = np.zeros((20, 20), np.uint8)
    tissue[:10] = 1
    tissue[0] = 2
    truth.attrs.update(tissue_mpp=10.0)
    truth.create_array("tissue", data=tissue)
    truth.create_group("ihc_from_he").attrs.update(
        affine=translation(-50.0, 0.0).tolist(), fixed_mpp=0.5, moving_mpp=0.5, grid_um=10.0
    )
    case = Case.at(tmp_path)
    # Of 20 columns, 20 px apart, the first two have their partner beside the IHC slide.
    assert len(case.points()) == 10 * 18
    assert case.lost(case.points()).sum() == 18
    found = Transform(translation(-47.0, 4.0), 0.5, 0.5, np.zeros((2, 20, 20)), 10.0)
    trust = np.ones((20, 20), np.uint8)
    trust[:5] = 0
    registered = Registered(
        Provenance(artefact="registered", subject="case"), found, None, {}, evidence={"trust": trust}
    )
    errors = errors_of(case, Found(registered, Ran(0, 1.0, 1.0, 1.0, "")))
    assert errors.median == pytest.approx(2.5)
    assert (errors.below, errors.folds) == (0.0, 0.0)
    assert (errors.flagged, errors.trusted) == (pytest.approx(0.5), pytest.approx(0.5))


def test_far_points_count_as_flagged_in_a_tile_that_is_not_aligned_or_in_none():
    from bars.flags import GradedTile, sort_points, together_of

    # Three tiles of 10 px in a row; the points lie in the middle of each px of a line through them and 6 px beyond.
    points = np.stack([np.arange(36) + 0.5, np.full(36, 5.0)], axis=1)
    tiles = [
        GradedTile(0, 0, 10, aligned=True, keep=True),
        GradedTile(10, 0, 10, aligned=False, keep=True),
        GradedTile(20, 0, 10, aligned=False, keep=False),
    ]
    far = np.zeros(36, bool)
    far[[3, 12, 13, 31]] = True
    lost = np.zeros(36, bool)
    lost[[2, 3, 12]] = True
    found = sort_points(points, far, lost, tiles)
    assert (found.far, found.flagged, found.without_tile, found.unseen) == (4, 3, 1, 1)
    assert (found.in_aligned, found.in_kept, found.far_kept) == (10, 20, 3)
    assert (found.tiles, found.aligned, found.missed, found.false_alarms) == (3, 1, 1, 1)
    assert found.share == 0.75
    for words in (
        "75.0% of 4",
        "25% in no tile",
        "of the 1 others 1 on",
        "90.000% < 1 µm in aligned",
        "85.000% in kept",
    ):
        assert words in str(found)

    both = together_of([found, sort_points(points, np.zeros(36, bool), lost, tiles)])
    assert (both.far, both.tiles, both.false_alarms, both.in_aligned) == (4, 6, 3, 20)


def test_a_point_that_an_aligned_tile_shows_is_not_flagged_by_one_that_overlaps_it():
    from bars.flags import GradedTile, sort_points

    tiles = [GradedTile(0, 0, 10, aligned=True, keep=True), GradedTile(5, 0, 10, aligned=False, keep=False)]
    found = sort_points(np.array([[7.0, 5.0], [10.0, 5.0]]), np.array([True, True]), np.zeros(2, bool), tiles)
    assert (found.flagged, found.without_tile) == (1, 0)
    nothing = sort_points(np.zeros((0, 2)), np.zeros(0, bool), np.zeros(0, bool), tiles)
    assert nothing.share == 1.0
    assert "no point ≥ 1 µm" in str(nothing)
    assert "none < 1 µm in aligned" in str(nothing)


def test_a_stage_that_fails_is_said_and_flags_nothing(tmp_path, monkeypatch):
    from bars import flags
    from bars.child import Ran
    from bars.ours import Case, Found

    from hepipe.geometry import Transform, translation
    from hepipe.specs.tiling import TilingSpec
    from hepipe.stores.arrays import Registered
    from hepipe.stores.provenance import Provenance

    asked = []

    def stage(*words):
        asked.append(words[0])
        return Ran(2 if words[0] == "stains" else 0, 1.0, 1.0, 1.0, "no stain")

    monkeypatch.setattr(flags, "command", stage)
    case = Case(tmp_path, {"kind": "restained", "mpp": 0.5})
    made = Provenance(artefact="registered", subject="case")
    ran = Ran(0, 1.0, 1.0, 1.0, "")
    lost = Found(Registered(made, None, None, {}), ran)
    assert flags.flags_of(case, lost, tmp_path / "t.zarr", tmp_path, TilingSpec()) == (
        "no tiles: the registration failed"
    )
    assert asked == []
    there = Found(Registered(made, Transform(translation(0.0, 0.0), 0.5, 0.5), None, {}), ran)
    assert flags.flags_of(case, there, tmp_path / "t.zarr", tmp_path, TilingSpec()) == "stains: exit 2: no stain"
    assert asked == ["check", "tissue", "stains"]


def test_points_go_through_deeperhistreg_s_padding_and_resampling():
    through = load("rivals/deeperhistreg_run.py").through
    padding = {"pad_1": [[3, 4], [10, 10]], "pad_2": [[0, 0], [2, 2]], "initial_resample_ratio": 2.0}
    # On the resampled canvas all moves by (5, -1) px.
    field = np.stack([np.full((30, 40), 5.0), np.full((30, 40), -1.0)])
    points = np.array([[20.0, 20.0], [31.0, 7.5]])
    moved = through(field, points, padding)
    np.testing.assert_allclose(moved, points + np.array([2 - 10 + 10, 0 - 3 - 2]))


def test_the_hash_is_of_the_settings_in_full():
    from bars.table import config_hash

    from hepipe.specs.registration import RegistrationSpec

    default = config_hash(RegistrationSpec())
    assert len(default) == 12
    assert default == config_hash(RegistrationSpec.model_validate({"overview_px": RegistrationSpec().overview_px}))
    assert default != config_hash(RegistrationSpec(overview_px=512))


def test_a_similarity_between_scans_turns_and_shifts():
    from bars.pairs import Scans

    scans = Scans("s", Path("a"), Path("b"), 2.0, 90.0, (1.0, 2.0))
    np.testing.assert_allclose(scans(np.array([[3.0, 0.0]])), [[1.0, 8.0]], atol=1e-12)
