"""Work on threads whose results come in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_order(
    work: Callable[[Item], Done], items: Iterable[Item], *, workers: int, name: str = "in-order"
) -> Iterator[Done]:
    """Yield `work(item)` of each item, in the order of the items for any number of workers.

    At most twice `workers` items are begun beyond the one whose result the caller has, so that memory stays bounded
    where the caller is the slower of the two. Items are drawn in the caller's thread, `work` runs in the others.

    An error of `work` is raised where its result is due; whoever stops early, by that error or by closing the
    iterator, waits for what is being worked on and never begins what is queued.

    Args:
        work: Called from several threads at once.
        items: May be endless.
        workers: Threads; 0 works in the caller's thread, on each item when its result is asked for.
        name: What the threads are called in a debugger.
    """
    if workers == 0:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix=name) as pool:
        waiting: deque[Future[Done]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
