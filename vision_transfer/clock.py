"""Seconds by what they were spent on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Measures nested activities; time spent in an inner one does not count for the outer.

    Attributes:
        seconds: by activity.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def measures(self, activity: str) -> Iterator[None]:
        """Counts the time inside for `activity`."""
        self._turn()
        self._inside.append(activity)
        try:
            yield
        finally:
            self._turn()
            self._inside.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._inside:
            activity = self._inside[-1]
            self.seconds[activity] = self.seconds.get(activity, 0.0) + now - self._since
        self._since = now
