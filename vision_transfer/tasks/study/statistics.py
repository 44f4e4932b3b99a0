"""Statistics over repeated runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Exact values of smaller p-values are of no interest.
SMALLEST_SHOWN = 1e-4


@dataclass(frozen=True)
class Summary:
    """Repeated values of one quantity, with the 95 % interval of the mean by Student's t; None for a single value."""

    count: int
    mean: float
    interval: tuple[float, float] | None
    smallest: float
    largest: float

    @property
    def share_interval(self) -> tuple[float, float] | None:
        """The interval of a share, such as an accuracy: cut off at 0 and 1."""
        if self.interval is None:
            return None
        low, high = self.interval
        return max(0.0, low), min(1.0, high)

    @property
    def reach(self) -> tuple[float, float]:
        """The distances of `share_interval`'s ends below and above the mean, for error bars; 0 for a single value."""
        low, high = self.share_interval or (self.mean, self.mean)
        return self.mean - low, high - self.mean


def summarised(values: Sequence[float]) -> Summary:
    """Mean ± t · s / √n with n - 1 degrees of freedom (Student 1908), s the sample's standard deviation.

    The interval covers the repeats only: all runs see the same test images, whose uncertainty each run's own (Wilson)
    interval gives. It may extend beyond 1 where a few runs differ much.
    """
    from scipy import stats

    array = np.asarray(values, np.float64)
    mean = float(np.mean(array))
    interval = None
    if len(array) > 1:
        half = float(stats.t.ppf(0.975, len(array) - 1) * stats.sem(array))
        interval = (mean - half, mean + half)
    return Summary(len(array), mean, interval, float(np.min(array)), float(np.max(array)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction (1979, Scandinavian Journal of Statistics 6:65), in the same order.

    The smallest of n is multiplied by n, the next by n - 1, and so on; no result is below that of a smaller p-value.
    Rejecting those below a level keeps the chance of any false rejection at that level, however the tests depend on
    each other.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(corrected), 1.0)
    return adjusted.tolist()


def p_text(p_value: float) -> str:
    """`p = 0.012`, or `p < 0.0001`."""
    return f"p = {p_value:.2g}" if p_value >= SMALLEST_SHOWN else f"p < {SMALLEST_SHOWN:g}"


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Positions of the choices that no other choice beats, by increasing cost.

    A choice is beaten by one that costs no more and has no lower value, and is better in at least one of the two. Equal
    choices do not beat each other.
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -values[place]))
    front: list[int] = []
    for place in order:
        best = front[-1] if front else place
        equal = (costs[place], values[place]) == (costs[best], values[best])
        if equal or values[place] > values[best]:
            front.append(place)
    return front
