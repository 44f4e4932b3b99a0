"""Processes many items in threads, in order, with a progress bar and bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.jax_setup import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# Results wait for earlier ones; more tasks in flight per thread would only fill memory.
TASKS_PER_THREAD = 4
# A hand-over between threads takes about as long as copying one small image.
_ITEMS_PER_TASK = 8


def map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], *, screen: Screen, title: str, unit: str = "images"
) -> Generator[Result]:
    """Yields `function(item)` for each item, in order, computed in one thread per core.

    An exception in `function` or in the caller's loop stops the work, after waiting for tasks that have started.
    """
    threads = cores()
    pool = ThreadPoolExecutor(threads)
    groups = (items[start : start + _ITEMS_PER_TASK] for start in range(0, len(items), _ITEMS_PER_TASK))
    tasks = (pool.submit(lambda group: [function(item) for item in group], group) for group in groups)
    try:
        with screen.bar(title, len(items), unit) as advance:
            waiting: deque[Future[list[Result]]] = deque(islice(tasks, threads * TASKS_PER_THREAD))
            while waiting:
                results = waiting.popleft().result()
                waiting.extend(islice(tasks, 1))
                yield from results
                advance(len(results))
    finally:
        pool.shutdown(cancel_futures=True)
