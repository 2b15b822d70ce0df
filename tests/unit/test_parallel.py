"""A bounded loop over threads: order, how far it runs ahead, errors, and a caller that stops early."""

import itertools
import threading
import time

import pytest

from hepipe.parallel import in_order

WAIT_S = 20.0


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_come_in_the_order_of_the_items_whatever_takes_longest(workers):
    def work(item):
        time.sleep(0.002 * (5 - item % 5))
        return item * item

    assert list(in_order(work, range(30), workers=workers)) == [item * item for item in range(30)]


@pytest.mark.parametrize("workers", [1, 3])
def test_it_runs_twice_the_workers_ahead_of_the_caller_and_no_further(workers):
    drawn, begun = [], []

    def items():
        for item in itertools.count():
            drawn.append(item)
            yield item

    results = in_order(begun.append, items(), workers=workers)
    for seen in range(1, 12):
        next(results)
        until = time.monotonic() + WAIT_S
        while len(begun) < seen + 2 * workers and time.monotonic() < until:
            time.sleep(0.001)
        assert len(begun) == len(drawn) == seen + 2 * workers
    results.close()


def test_as_many_work_at_once_as_there_are_workers():
    together = threading.Barrier(3)
    assert list(in_order(lambda _: together.wait(WAIT_S), range(6), workers=3))


def test_without_workers_an_item_is_worked_on_when_its_result_is_asked_for_and_in_the_callers_thread():
    threads = []

    def work(item):
        threads.append(threading.current_thread())
        return item

    results = in_order(work, itertools.count(), workers=0)
    assert [next(results), next(results)] == [0, 1]
    assert threads == [threading.current_thread()] * 2


def test_one_worker_is_a_thread_beside_the_callers():
    (name,) = in_order(lambda _: threading.current_thread().name, [0], workers=1, name="beside")
    assert name.startswith("beside")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_is_raised_where_its_result_is_due_and_ends_the_work(workers):
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise ValueError(f"item {item}")
        return item

    results = in_order(work, itertools.count(), workers=workers)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3"):
        next(results)
    assert len(begun) <= 4 + 2 * workers
    assert list(results) == []


def test_an_error_of_the_items_is_the_callers():
    def items():
        yield 1
        raise KeyError("items")

    with pytest.raises(KeyError, match="items"):
        list(in_order(str, items(), workers=2))


def test_a_caller_that_stops_early_waits_for_what_is_worked_on_and_leaves_what_is_queued():
    begun, ended, go_on = [], [], threading.Event()

    def work(item):
        begun.append(item)
        if item:
            assert go_on.wait(WAIT_S)
        ended.append(item)
        return item

    results = in_order(work, itertools.count(), workers=1)
    assert next(results) == 0
    until = time.monotonic() + WAIT_S
    while len(begun) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    # Closing waits for item 1, so that somebody else has to let it go on.
    timer = threading.Timer(0.1, go_on.set)
    timer.start()
    results.close()
    timer.join()
    assert begun == ended == [0, 1]


def test_fewer_than_no_workers_are_refused():
    with pytest.raises(ValueError, match="max_workers"):
        list(in_order(str, [1], workers=-1))
