import math

import cv2
import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops
from typer.testing import CliRunner

from hepipe.cli.cohort import cohort_app
from hepipe.dataset.cohort import Cohort
from hepipe.dataset.cohort_features import (
    DESCRIPTIONS,
    FEATURES,
    GREYS,
    NAMES,
    chunk_features,
    co_occurrence,
    features,
    haralick,
)
from hepipe.dataset.schedule import Scheduler
from hepipe.stores.tables import read_provenance, read_table

RANDOM = np.random.default_rng(3)


def picture(side=64):
    """Blurred noise, so that neighbours resemble one another."""
    noise = RANDOM.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def named(he, ihc, mask=None, mpp=0.5):
    masks = None if mask is None else mask[None, ..., None]
    (values,) = chunk_features(he=he[None], ihc=ihc[None], dab_mask=masks, mpp=mpp)
    return dict(zip(NAMES, values, strict=True))


@pytest.mark.parametrize("offset_px", [1, 3])
def test_texture_is_that_of_scikit_image(offset_px):
    greys = cv2.cvtColor(picture(), cv2.COLOR_RGB2GRAY) // 16
    found = dict(
        zip(
            ("contrast", "correlation", "ASM", "homogeneity", "entropy"),
            haralick(co_occurrence(greys, offset_px)),
            strict=True,
        )
    )
    counts = np.zeros((GREYS, GREYS))
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        angle, distance = math.atan2(rows, columns), offset_px * math.hypot(rows, columns)
        counts += graycomatrix(greys, [distance], [angle], levels=GREYS, symmetric=True)[..., 0, 0]
    np.testing.assert_array_equal(co_occurrence(greys, offset_px), counts)
    shares = (counts / counts.sum())[..., None, None]
    for name in found:
        assert found[name] == pytest.approx(
            graycoprops(shares, name).item() / (math.log(2) if name == "entropy" else 1)
        )


def test_one_colour_has_no_texture():
    flat = np.full((32, 32, 3), 200, np.uint8)
    values = named(flat, flat, np.zeros((32, 32), bool))
    for name in ("od_red_sd", "saturation_mean", "gradient_mean", "laplacian_sd", "glcm_contrast", "glcm_entropy"):
        assert values[f"he_{name}"] == 0
    assert values["he_glcm_energy"] == values["he_glcm_homogeneity"] == values["he_glcm_correlation"] == 1
    assert values["ihc_od_green_mean"] == pytest.approx(-math.log10(200 / 255))
    assert values["dab_frac"] == 0


def test_a_ramp_has_its_slope():
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 2, 64, axis=0).repeat(3, axis=2)
    values = named(ramp, picture())
    assert values["he_gradient_mean"] == pytest.approx(2 * 62 / 64)
    assert math.isnan(values["dab_frac"])


def test_amounts_follow_the_stain_that_is_there():
    def of(vector, amount):
        return np.full(
            (16, 16, 3), np.round(255 * 10 ** -(amount * np.array(vector) / np.linalg.norm(vector))), np.uint8
        )

    dab = named(of((0.27, 0.57, 0.78), 0.8), of((0.27, 0.57, 0.78), 0.8))
    assert dab["ihc_other_mean"] == pytest.approx(0.8, abs=0.02)
    assert dab["ihc_other_p95"] == pytest.approx(0.8, abs=0.02)
    assert dab["ihc_h_mean"] < 0.02
    blue = named(of((0.65, 0.70, 0.29), 0.5), of((0.65, 0.70, 0.29), 0.5))
    assert blue["he_h_mean"] == pytest.approx(0.5, abs=0.02)
    assert blue["ihc_other_mean"] < 0.02


def test_neighbours_are_compared_at_the_same_distance_in_um_whatever_the_resolution():
    tile = picture()
    assert named(tile, tile, mpp=0.5)["he_glcm_contrast"] > named(tile, tile, mpp=1.0)["he_glcm_contrast"]
    assert named(tile, tile, mpp=4.0) == pytest.approx(named(tile, tile, mpp=1.0), nan_ok=True)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_table_has_a_row_for_each_tile_in_the_order_of_ids(make_cohort, tmp_path, workers):
    index, tiles = make_cohort()
    words = ["features", "--index", index, "--table", tmp_path / "t.parquet", "--workers", workers, "--split", "train"]
    done = CliRunner().invoke(cohort_app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    rows = read_table(tmp_path / "t.parquet", FEATURES)
    assert [row["tile_id"] for row in rows] == ["a/0", "a/1", "a/2", "a/4", "imported/0"]
    for row in rows:
        pair = tiles[row["tile_id"]]
        expected = named(pair["he"], pair["ihc"], pair["dab_mask"])
        assert {name: row[name] for name in NAMES} == expected
    assert read_provenance(tmp_path / "t.parquet").spec["split"] == "train"


def test_chunks_of_any_size_give_the_same_rows(make_cohort):
    index, _ = make_cohort()
    assert features(Cohort(index), Scheduler(2)) == features(Cohort(index, chunk_mb=1e-6), Scheduler(1))


def test_every_feature_says_what_it_is():
    assert all(DESCRIPTIONS[name] for name in NAMES)
    assert len(set(DESCRIPTIONS.values())) == len(NAMES)
