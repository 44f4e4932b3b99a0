"""The number of steps in a dispatch, and the time of the next checkpoint."""

import statistics
import time
from dataclasses import dataclass, field

# A dispatch lasts about this long, so that an interruption is noticed soon; never more than twice as long.
SECONDS_PER_DISPATCH = 1.0
# A dispatch has at most this many times the steps of the largest one so far.
GROWTH = 4


@dataclass
class Pace:
    """Measures steps as they are taken: seconds per step of each dispatch but the first, which may compile."""

    checkpoint_seconds: float
    seconds_per_step: list[float] = field(default_factory=list)
    _largest_count: int = 0
    _last_checkpoint: float = field(default_factory=time.monotonic)

    def steps(self, most: int, left: int) -> int:
        """Steps for the next dispatch: one at first, then as many as fit in its time."""
        if not self.seconds_per_step:
            return 1
        fitting = int(SECONDS_PER_DISPATCH / max(self.seconds_per_step[-1], 1e-9))
        return max(1, min(most, left, fitting, GROWTH * self._largest_count))

    def took(self, count: int, seconds: float) -> None:
        """Notes how long a dispatch took."""
        if self._largest_count:
            self.seconds_per_step.append(seconds / count)
        self._largest_count = max(self._largest_count, count)

    def step_ms(self) -> float | None:
        """Median time of a step in milliseconds, or None before it is known."""
        return round(1000 * statistics.median(self.seconds_per_step), 3) if self.seconds_per_step else None

    def checkpoint_is_due(self) -> bool:
        """Whether it is time for a checkpoint; if so, the interval starts again."""
        now = time.monotonic()
        due = now - self._last_checkpoint >= self.checkpoint_seconds
        if due:
            self._last_checkpoint = now
        return due
