"""Repeated times of workers that take turns, and what is said of them: a median and how far they spread."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vision_transfer.tasks.benchmark.processes import Worker

QUARTERS = 4


@dataclass(frozen=True)
class Spread:
    """Of repeated measurements of one thing.

    Attributes:
        median: of all.
        first_quartile: a quarter lie below.
        third_quartile: a quarter lie above.
        lowest: of all.
        highest: of all.
        repeats: how many.
    """

    median: float
    first_quartile: float
    third_quartile: float
    lowest: float
    highest: float
    repeats: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    first, _, third = (
        statistics.quantiles(values, n=QUARTERS, method="inclusive") if len(values) > 1 else (values[0],) * 3
    )
    return Spread(statistics.median(values), first, third, min(values), max(values), len(values))


def take_turns(workers: Mapping[str, Worker], repeats: int, seconds_per_repeat: float) -> dict[str, list[float]]:
    """Seconds of one run by worker and repeat.

    A first run of each tells how many fill `seconds_per_repeat`; it is not counted. Then in each repeat every worker
    has one turn, the first of the one repeat being the last of the next, so that what slows the machine for a while
    slows all of them.
    """
    times = {name: max(1, round(seconds_per_repeat / worker.run(1))) for name, worker in workers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    order = list(workers)
    for _ in range(repeats):
        for name in order:
            seconds[name].append(workers[name].run(times[name]))
        order.reverse()
    return seconds
