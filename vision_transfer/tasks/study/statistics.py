"""What repeated runs say together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Repeated values of one quantity.

    Attributes:
        count: how many.
        mean: of them.
        interval: 95 % interval of the mean by Student's t; None for a single value.
        smallest, largest: their range.
    """

    count: int
    mean: float
    interval: tuple[float, float] | None
    smallest: float
    largest: float

    @property
    def share_interval(self) -> tuple[float, float] | None:
        """The interval of a share, such as an accuracy: what Student's t puts below 0 or above 1 is cut off."""
        if self.interval is None:
            return None
        low, high = self.interval
        return max(0.0, low), min(1.0, high)

    @property
    def reach(self) -> tuple[float, float]:
        """How far that interval goes below and above the mean, for error bars; 0 for a single value."""
        low, high = self.share_interval or (self.mean, self.mean)
        return self.mean - low, high - self.mean


def summarised(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean ± t · s / √n with n - 1 degrees of freedom (Student 1908), s the sample's standard deviation.

    The interval is that of the repeats alone: all runs see the same test images, and what those leave open is in each
    run's own (Wilson) interval. It may reach beyond 1 where few runs differ much.
    """
    from scipy import stats

    array = np.asarray(values, np.float64)
    mean = float(np.mean(array))
    interval = None
    if len(array) > 1:
        half = float(stats.t.ppf(0.5 + confidence / 2, len(array) - 1) * stats.sem(array))
        interval = (mean - half, mean + half)
    return Summary(len(array), mean, interval, float(np.min(array)), float(np.max(array)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction (1979, Scandinavian Journal of Statistics 6:65), in the same order.

    The smallest of n counts n times, the next n - 1 times, and so on; none falls below a smaller one's. Rejecting those
    below a level keeps the chance of any false rejection at that level, however the tests hang together.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(corrected), 1.0)
    return [float(value) for value in adjusted]
