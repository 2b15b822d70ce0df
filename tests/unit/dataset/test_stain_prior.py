import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hepipe.cli.cohort import cohort_app
from hepipe.dataset.cohort import Cohort
from hepipe.dataset.schedule import Scheduler
from hepipe.dataset.stain_prior import MOST_PX, StainPrior, geometric_median, stain_prior, step_for, thinned
from hepipe.errors import ConfigError
from hepipe.specs.stains import StainsSpec
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, angle_deg
from hepipe.stores.cases import CaseStains, SlideStains, write_stains
from hepipe.stores.provenance import Provenance

CASES = {name: [(name, f"p-{name}", "train")] * 2 for name in "vwxyz"}
WHITE = (246.0, 244.0, 241.0)
TURNED = {"v": 4.0, "w": -4.0, "x": 0.0, "y": 2.0, "z": -2.0}


def turned(vector, degrees):
    """The vector turned about the blue axis."""
    angle = np.radians(degrees)
    (red, green, blue), cos, sin = vector, np.cos(angle), np.sin(angle)
    return np.array([red * cos - green * sin, red * sin + green * cos, blue]) / np.linalg.norm(vector)


def stained(random, store, number, stain):
    """Px of one stain or the other in many amounts, an eighth glass; each case's vectors are turned a little."""
    first, second = (
        turned(vector, TURNED.get(store, 0.0)) for vector in (HAEMATOXYLIN, EOSIN if stain == "he" else DAB)
    )
    amounts = random.uniform(0.2, 1.0, (96 * 96, 2)) * np.eye(2)[random.integers(0, 2, 96 * 96)]
    amounts += random.uniform(0, 0.05, amounts.shape)
    amounts[:1152] = 0
    light = np.array(WHITE) * 10 ** -(amounts @ np.stack([first, second]))
    return np.clip(np.round(light + random.normal(0, 0.5, light.shape)), 0, 255).astype(np.uint8).reshape(96, 96, 3)


def prior_of(index, *, spec=None, **options):
    return stain_prior(Cohort(index, **options), Scheduler(workers=2), spec or StainsSpec())


def test_the_prior_is_the_middle_of_the_cases_vectors(make_cohort):
    index, _ = make_cohort(plan=CASES, paint=stained)
    found = prior_of(index)
    for stains, second in ((found.he, EOSIN), (found.ihc, DAB)):
        assert stains.n_vectors == stains.n_white == 5
        assert angle_deg(stains.first, HAEMATOXYLIN) < 1.5
        assert angle_deg(stains.second, second) < 1.5
        assert np.linalg.norm(stains.first) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(stains.white, WHITE, atol=2)
        assert 1 < stains.turn_deg[0] < stains.most_turn_deg[0] < 8
    assert [case.case_id for case in found.cases] == sorted(CASES)
    assert {case.n_tiles for case in found.cases} == {2}


def test_one_odd_slide_hardly_moves_it(make_cohort, monkeypatch):
    usual = prior_of(make_cohort(plan=CASES, paint=stained)[0])
    monkeypatch.setitem(TURNED, "v", 14.0)
    odd = prior_of(make_cohort(plan=CASES, paint=stained, folder="odd")[0])
    assert odd.he.n_vectors == 5
    assert odd.he.most_turn_deg[1] > 8
    assert angle_deg(odd.he.second, usual.he.second) < 1.5


def test_slides_without_plausible_vectors_do_not_count(make_cohort):
    def half(random, store, number, stain):
        if store in "vw":
            return random.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        return stained(random, store, number, stain)

    found = prior_of(make_cohort(plan=CASES, paint=half)[0])
    assert found.he.n_vectors == found.ihc.n_vectors == 3
    assert found.cases[0].he.stains.method == "fixed"
    assert "fixed vectors in place of macenko" in found.cases[0].he.stains.notes[-1]
    noise = prior_of(make_cohort(folder="noise")[0])
    assert noise.he is None
    assert noise.ihc is None


def test_the_white_of_the_whole_slide_is_taken_where_its_record_has_one(make_cohort):
    index, _ = make_cohort(plan=CASES, paint=stained)
    white = (240.0, 241.0, 242.0)
    stains = SlideStains(first=HAEMATOXYLIN, second=EOSIN, white=white, method="fixed", n_pixels=1)
    record = CaseStains(case_id="v", he=stains, ihc=None, provenance=Provenance(artefact="stains", subject="v"))
    write_stains(index.parent / "stains" / "v.json", record)
    v, w, *_ = prior_of(index).cases
    assert (v.he.white_from, v.he.stains.white) == ("slide", white)
    assert (v.ihc.white_from, w.he.white_from) == ("tiles", "tiles")
    fixed = prior_of(index, spec=StainsSpec(white="fixed"))
    assert fixed.he.n_white == 0
    assert fixed.he.white == (255.0, 255.0, 255.0)


def test_only_the_tiles_asked_for_count_and_unknown_cases_are_one(make_cohort):
    index, _ = make_cohort()
    assert [case.case_id for case in prior_of(index, split="test").cases] == [None, "c"]
    assert [(case.case_id, case.n_tiles) for case in prior_of(index).cases] == [
        (None, 1),
        ("a", 4),
        ("b", 3),
        ("c", 2),
    ]


def test_chunks_of_any_size_and_any_number_of_threads_write_the_same_bytes(make_cohort, tmp_path):
    index, _ = make_cohort(plan=CASES, paint=stained)
    small = stain_prior(Cohort(index, chunk_mb=1e-6), Scheduler(4), StainsSpec())
    words = ["stain-prior", "--index", index, "--record", tmp_path / "prior.json", "--workers", "1"]
    done = CliRunner().invoke(cohort_app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.output.startswith("set, H&E: vectors of 5 of 5 cases")
    written = (tmp_path / "prior.json").read_text()
    assert StainPrior.model_validate_json(written) == small
    assert json.loads(written)["provenance"]["spec"]["stains"]["vectors"] == "macenko"


def test_a_prior_of_fixed_vectors_is_a_mistake(make_cohort, tmp_path):
    index, _ = make_cohort()
    words = ["stain-prior", "--index", index, "--record", tmp_path / "p.json", "--spec", '{"vectors": "fixed"}']
    done = CliRunner().invoke(cohort_app, [str(word) for word in words])
    assert isinstance(done.exception, ConfigError)


def test_half_of_the_points_may_lie_anywhere_but_the_mean_would_follow():
    points = np.concatenate([np.random.default_rng(1).normal(0, 0.01, (6, 3)), np.full((4, 3), 100.0)])
    assert np.abs(geometric_median(points)).max() < 0.05


def test_px_are_thinned_evenly_and_no_more_are_kept_than_said():
    tile = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(1, 5, 5, 3)
    kept = thinned(he=tile, ihc=255 - tile, step=np.array([2]))
    np.testing.assert_array_equal(kept[:, :3], tile[0, ::2, ::2].reshape(-1, 3))
    np.testing.assert_array_equal(kept[:, 3:], 255 - kept[:, :3])
    for n_tiles in (1, 7, 300):
        step = step_for(n_tiles, 512)
        assert n_tiles * len(range(0, 512, step)) ** 2 <= MOST_PX
        assert step == 1 or n_tiles * len(range(0, 512, step - 1)) ** 2 > MOST_PX
    assert step_for(10**6, 512) == 512
