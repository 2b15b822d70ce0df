import itertools

import dask
import numpy as np
import pytest

from hepipe.dataset.cohort import Cohort, cohort_array
from hepipe.dataset.schedule import Scheduler
from hepipe.errors import ConfigError, StoreError

SIDE = 16


def one_by_one(*, he):
    return he.sum(axis=(1, 2), dtype=np.int64)


def fails_at_last(*, he):
    if len(he) == 3:
        raise StoreError("no more")
    return he[:, 0, 0].astype(np.int64)


def test_the_array_holds_the_tiles_by_store_and_row_without_those_beside_the_tumour(make_cohort):
    index, tiles = make_cohort()
    cohort = Cohort(index)
    ids = cohort.table["tile_id"].to_pylist()
    assert ids == sorted(set(tiles) - {"a/3"})
    for name in ("he", "ihc"):
        array = cohort.array(name)
        assert (array.shape, array.dtype) == ((10, SIDE, SIDE, 3), np.uint8)
        np.testing.assert_array_equal(array.compute(), np.stack([tiles[tile][name] for tile in ids]))
    masks = cohort_array(index, "dab_mask")
    assert (masks.shape, masks.dtype) == ((10, SIDE, SIDE, 1), bool)
    np.testing.assert_array_equal(masks.compute()[..., 0], np.stack([tiles[tile]["dab_mask"] for tile in ids]))


def test_a_split_or_the_tiles_outside_can_be_asked_for(make_cohort):
    index, tiles = make_cohort()
    np.testing.assert_array_equal(
        cohort_array(index, "he", split="test").compute(), [tiles["imported/1"]["he"], tiles["imported/2"]["he"]]
    )
    assert Cohort(index, place="outside").table["tile_id"].to_pylist() == ["a/3"]
    with pytest.raises(StoreError, match="no tile in split test"):
        Cohort(index, split="test", place="outside")


def test_dask_slices_and_reduces_it_as_any_array(make_cohort):
    index, _ = make_cohort()
    array = cohort_array(index, "he", chunk_mb=0.002)
    whole = array.compute()
    np.testing.assert_array_equal(array[7, 2:9, ::3, 1].compute(), whole[7, 2:9, ::3, 1])
    np.testing.assert_array_equal(array[2:9:2, :, 4].compute(), whole[2:9:2, :, 4])
    assert int(array.sum(dtype="int64").compute()) == int(whole.sum(dtype="int64"))


def test_no_chunk_spans_two_stores_or_is_larger_than_asked_for(make_cohort):
    index, _ = make_cohort()
    assert Cohort(index).array("he").chunks[0] == (4, 3, 3)
    assert Cohort(index, chunk_mb=2 * SIDE * SIDE * 3 / 1e6).array("he").chunks[0] == (2, 2, 1, 2, 1, 2)


def test_reading_and_working_on_a_chunk_is_one_task(make_cohort):
    index, _ = make_cohort()
    cohort = Cohort(index)
    seen = []

    class Tasks(Scheduler):
        def results(self, parts, name, unit="chunk"):
            seen.extend(parts)
            return iter(dask.compute(*parts, scheduler="sync"))

    made = cohort.by_chunk(
        one_by_one, scheduler=Tasks(), rows=[4, 3, 3], width=3, dtype=np.int64, names=["he"], task="sums"
    )
    assert [part.shape for part in made] == [(4, 3), (3, 3), (3, 3)]
    graph = dict(seen[0].__dask_graph__())
    assert len(graph) == 3 + 1, "a task for each chunk, and the table of tiles"


def sums(cohort, scheduler):
    rows = [end - start for start, end in itertools.pairwise(cohort.edges)]
    parts = cohort.by_chunk(
        one_by_one, scheduler=scheduler, rows=rows, width=3, dtype=np.int64, names=["he"], task="sums"
    )
    return np.concatenate(list(parts))


@pytest.mark.parametrize("workers", [1, 4])
def test_results_come_in_order_from_any_number_of_threads(make_cohort, workers):
    index, _ = make_cohort()
    cohort = Cohort(index, chunk_mb=1e-6)
    expected = cohort.array("he").compute(scheduler="sync").sum(axis=(1, 2), dtype=np.int64)
    np.testing.assert_array_equal(sums(cohort, Scheduler(workers)), expected)


def test_an_error_of_a_chunk_is_raised_as_it_is(make_cohort):
    index, _ = make_cohort()
    cohort = Cohort(index)
    parts = cohort.by_chunk(
        fails_at_last, scheduler=Scheduler(2), rows=[4, 3, 3], width=3, dtype=np.int64, names=["he"], task="sums"
    )
    with pytest.raises(StoreError, match="no more"):
        list(parts)


def test_an_address_without_protocol_or_answer_is_a_mistake_that_is_named(make_cohort, monkeypatch):
    with pytest.raises(ConfigError, match="'localhost:8786' is no address; give one as tcp://host:8786"):
        Scheduler(address="localhost:8786")
    monkeypatch.setattr("hepipe.dataset.schedule.CONNECT_S", 1)
    index, _ = make_cohort()
    with pytest.raises(ConfigError, match="nothing answers at tcp"):
        sums(Cohort(index), Scheduler(address="tcp://127.0.0.1:9"))


@pytest.mark.parametrize("name", ["../elsewhere.zarr", "/etc/c.zarr", ""])
def test_a_store_that_an_index_places_elsewhere_is_refused(make_cohort, name):
    index, _ = make_cohort(store=name)
    with pytest.raises(StoreError, match="is not below the folder of the index"):
        Cohort(index)


def test_an_array_that_a_store_does_not_hold_is_named(make_cohort):
    index, _ = make_cohort(masks=False)
    assert not Cohort(index).has("dab_mask")
    with pytest.raises(StoreError, match="not every store holds dab_mask"):
        cohort_array(index, "dab_mask")


def test_a_row_beyond_its_store_is_refused_when_it_is_read(make_cohort):
    index, _ = make_cohort(row_in_store=9)
    with pytest.raises(StoreError, match="no tile 9 of he"):
        cohort_array(index, "he").compute()
