"""Work on many items by threads, in order, with a progress bar and bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from vision_transfer.runtime.console import Screen

Item = TypeVar("Item")
Result = TypeVar("Result")

# Results wait for those before them; more tasks in flight than this many a thread would only fill memory.
_TASKS_PER_THREAD = 4
# A hand-over between threads costs about as much as copying one small image.
_ITEMS_PER_TASK = 8


def map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], *, screen: Screen, title: str, unit: str = "images"
) -> Generator[Result]:
    """`function` of each item, computed by one thread a core, yielded in the order of the items.

    An exception of `function`, or one in the caller's loop, stops the work; what was begun is waited for.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads)
    groups = (items[start : start + _ITEMS_PER_TASK] for start in range(0, len(items), _ITEMS_PER_TASK))
    tasks = (pool.submit(lambda group: [function(item) for item in group], group) for group in groups)
    try:
        with screen.bar(title, len(items), unit) as advance:
            waiting: deque[Future[list[Result]]] = deque(islice(tasks, threads * _TASKS_PER_THREAD))
            while waiting:
                results = waiting.popleft().result()
                waiting.extend(islice(tasks, 1))
                yield from results
                advance(len(results))
    finally:
        pool.shutdown(cancel_futures=True)
