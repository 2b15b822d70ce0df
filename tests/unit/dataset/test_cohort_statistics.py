import contextlib
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from hepipe.cli.cohort import cohort_app
from hepipe.dataset.cohort import Cohort
from hepipe.dataset.cohort_statistics import (
    OD_OF_LEVEL,
    STATISTICS,
    CohortStatistics,
    level_counts,
    mean_sd,
    od_percentile,
    statistics,
)
from hepipe.dataset.schedule import Scheduler
from hepipe.stains.deconvolution import optical_density
from hepipe.stores.tables import read_provenance, read_table

THREADS = Scheduler(workers=2)


def group(record, level, split=None, case_id=None):
    (found,) = (g for g in record.groups if (g.level, g.split, g.case_id) == (level, split, case_id))
    return found


def test_numbers_are_those_of_numpy_on_all_pixels_of_a_group(make_cohort):
    index, tiles = make_cohort()
    rows, record = statistics(Cohort(index), THREADS)
    test = np.stack([tiles["imported/1"]["ihc"], tiles["imported/2"]["ihc"]])
    for channel, name in enumerate(("red", "green", "blue")):
        (row,) = (
            r for r in rows if (r["level"], r["split"], r["stain"], r["channel"]) == ("split", "test", "ihc", name)
        )
        values = test[..., channel].astype(np.float64)
        density = -np.log10(np.maximum(values, 1) / 255)
        assert (row["n_tiles"], row["n_px"]) == (2, values.size)
        assert row["value_mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert row["value_sd"] == pytest.approx(values.std(), rel=1e-12)
        assert row["od_mean"] == pytest.approx(density.mean(), rel=1e-12)
        assert row["od_sd"] == pytest.approx(density.std(), rel=1e-12)
        for share in (5, 50, 95):
            at = np.percentile(density, share, method="inverted_cdf")
            assert row[f"od_p{share:02d}"] == pytest.approx(at, rel=1e-12)
        np.testing.assert_array_equal(row["value_counts"], np.bincount(test[..., channel].ravel(), minlength=256))
        np.testing.assert_array_equal(row["od_counts"], np.histogram(density, bins=25, range=(0, 2.5))[0])
    density = optical_density(test.reshape(-1, 16, 3))[..., 1]
    assert group(record, "split", "test").stains["ihc"]["green"].od_sd == pytest.approx(density.std(), 1e-5)


def test_shares_are_counted_within_each_group(make_cohort):
    index, tiles = make_cohort()
    _, record = statistics(Cohort(index), THREADS)
    masks = {tile: pixels["dab_mask"].mean() for tile, pixels in tiles.items()}
    train = group(record, "split", "train")
    assert (train.n_tiles, train.n_cases, train.n_patients) == (5, 2, 1)
    inside = ["a/0", "a/1", "a/2", "a/4", "imported/0"]
    assert train.dab_frac == pytest.approx(np.mean([masks[tile] for tile in inside]))
    assert train.tissue_frac == pytest.approx((0.5 + 0.625 + 0.75 + 1.0 + 0.5) / 5)
    assert train.area_mm2 == pytest.approx(5 * 0.008**2)
    assert [(g.level, g.split, g.case_id) for g in record.groups] == [
        ("case", "test", None),
        ("case", "test", "c"),
        ("case", "train", "a"),
        ("case", "train", "c"),
        ("case", "val", "b"),
        ("split", "test", None),
        ("split", "train", None),
        ("split", "val", None),
        ("cohort", None, None),
    ]
    assert group(record, "case", "test").n_cases == 0
    assert group(record, "cohort").n_tiles == 10


def test_without_masks_there_is_no_share_of_dab(make_cohort):
    index, _ = make_cohort(masks=False)
    _, record = statistics(Cohort(index), THREADS)
    assert group(record, "cohort").dab_frac is None


@contextlib.contextmanager
def cluster(folder, *, processes):
    """A scheduler with two workers that only this machine can reach, without a page."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=processes,
        host="127.0.0.1",
        protocol="tcp",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        worker_dashboard_address=None,
        local_directory=str(folder),
    ) as running:
        yield running.scheduler_address


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.long)])
def test_threads_and_a_cluster_write_the_same_bytes(make_cohort, tmp_path, processes):
    index, _ = make_cohort()
    written = []
    with cluster(tmp_path / "dask", processes=processes) as address:
        for number, where in enumerate((("--workers", "1"), ("--workers", "4"), ("--scheduler", address))):
            paths = [tmp_path / f"{number}.parquet", tmp_path / f"{number}.json"]
            words = ["statistics", "--index", index, "--table", paths[0], "--record", paths[1], *where]
            done = CliRunner().invoke(cohort_app, [str(word) for word in words])
            assert done.exit_code == 0, (done.output, done.exception)
            written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1] == written[2]
    rows = read_table(tmp_path / "0.parquet", STATISTICS)
    record = CohortStatistics.model_validate_json((tmp_path / "0.json").read_bytes())
    assert len(rows) == 6 * len(record.groups)
    assert read_provenance(tmp_path / "0.parquet") == record.provenance
    assert os.sep not in record.provenance.model_dump_json()


def test_the_size_of_chunks_changes_nothing(make_cohort):
    index, _ = make_cohort()
    assert statistics(Cohort(index), THREADS) == statistics(Cohort(index, chunk_mb=1e-6), THREADS)


def test_levels_are_counted_exactly_beyond_what_float32_counts():
    tile = np.zeros((4200, 4200, 3), np.uint8)
    tile[0, 0] = 9
    assert level_counts(tile)[:, 0].tolist() == [4200 * 4200 - 1] * 3


def test_a_percentile_is_the_lowest_density_that_enough_do_not_exceed():
    counts = [0] * 256
    counts[255], counts[100], counts[0] = 5, 90, 5
    assert od_percentile(counts, 5) == 0
    assert od_percentile(counts, 6) == od_percentile(counts, 95) == OD_OF_LEVEL[100]
    assert od_percentile(counts, 96) == OD_OF_LEVEL[0] == OD_OF_LEVEL[1]


def test_one_value_alone_has_no_deviation():
    assert mean_sd([0, 7, 0], [1.5, 2.5, 3.5]) == (2.5, 0.0)
